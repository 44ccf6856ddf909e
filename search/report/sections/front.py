"""Trials by two measures: their value and what their model costs."""

from collections.abc import Mapping
from dataclasses import dataclass

from search.report.figures import ACCENT, Dot, Figure, dots, framed, trial_label
from search.report.markup import cost_text, plot, settings_text, table
from search.report.section import Section, Subject
from search.runs.reading import Run
from search.show.quoting import number_text

COSTS = {"cost/parameters": "parameters", "cost/latency_ms": "latency, ms"}
"""Columns of the trial table, and their names for people."""


@dataclass(frozen=True)
class FrontPoint:
    """A trial with a value and a cost; `pareto`: no other one is both better and cheaper."""

    number: int
    state: str
    cost: float
    value: float
    pareto: bool
    settings: Mapping[str, object]


@dataclass(frozen=True)
class Front:
    """All trials as points, and those of the front, cheapest first; `label` is the second metric for people."""

    column: str
    label: str
    points: list[FrontPoint]
    front: list[FrontPoint]


def front(run: Run) -> Front | None:
    """The Pareto front of a search with a second metric, running or ended; None for any other, or without values."""
    column = run.objective.second
    if column is None:
        return None
    members = {row.number for row in run.trials.front()}
    points = [
        FrontPoint(row.number, row.state, row.metrics[column], row.value, row.number in members, row.params)
        for row in run.trials
        if row.value is not None and column in row.metrics
    ]
    if not members:
        return None
    best = sorted((point for point in points if point.pareto), key=lambda point: point.cost)
    return Front(column, COSTS.get(column, column), points, best)


def render(record: Front, subject: Subject) -> str:
    """A figure of all trials and a table of the front."""
    body = [
        ("", [
            (str(point.number), "n"), (number_text(point.value), "n"), (cost_text(point.cost), "n"),
            (settings_text(point.settings), "text"),
        ])
        for point in record.front
    ]  # fmt: skip
    heads = [("trial", "n"), (subject.metric, "n"), (record.label, "n"), ("settings", "text")]
    intro = "<p>No trial is both better and cheaper than one of the front.</p>"
    return f"{intro}{plot(front_plot(record, subject.metric))}{table(heads, body)}"


def front_plot(record: Front, metric: str) -> Figure:
    """Value against cost; the front is joined."""
    line = {
        "type": "scatter", "mode": "lines+markers", "x": [point.cost for point in record.front],
        "y": [point.value for point in record.front],
        "line": {"color": ACCENT, "width": 2}, "name": "Pareto front", "hoverinfo": "skip",
        "marker": {"size": 15, "symbol": "circle-open", "color": ACCENT, "line": {"width": 2}},
    }  # fmt: skip
    points = [
        Dot(point.cost, point.value, point.state, trial_label(f"trial {point.number}", point.state, point.settings))
        for point in record.points
    ]
    figure = framed([line, *dots(points)], record.label, metric, height=360)
    costs = [point.cost for point in record.points]
    if min(costs) > 0 and max(costs) / min(costs) > 10:
        figure["layout"]["xaxis"]["type"] = "log"
    return figure


def _title(record: Front, subject: Subject) -> str:
    return f"{subject.metric} against {record.label}"


SECTION = Section("front", 60, "Value against cost", front, render, _title)
