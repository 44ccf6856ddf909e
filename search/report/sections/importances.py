"""Which parameters mattered, and the value of each trial against each of those that did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from search.report.figures import ACCENT, Dot, Figure, dots, framed
from search.report.markup import plot
from search.report.section import Section, Subject
from search.runs.reading import Run
from search.runs.rerun_records import ImportanceShare
from search.runs.trials import Trials
from search.study.importance import MIN_TRIALS, importances

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

NUM_SLICES = 4


@dataclass(frozen=True)
class SlicePoint:
    """A trial's value, and its value of the parameter; the option's text for a choice."""

    number: int
    state: str
    x: float | str
    value: float


@dataclass(frozen=True)
class Slice:
    """The value of each trial against one parameter.

    Attributes:
        name: The parameter's.
        choices: The options of a choice, as text; None for a range.
        axis: `category`, `log` or `linear`.
        points: The trials that have the parameter.
    """

    name: str
    choices: list[str] | None
    axis: str
    points: list[SlicePoint]


@dataclass(frozen=True)
class Parameters:
    """Shares of importance, empty with fewer than `min_trials`, and a slice of each of the first few parameters."""

    num_trials: int
    min_trials: int
    shares: list[ImportanceShare]
    slices: list[Slice]


def parameters(run: Run) -> Parameters | None:
    """What each parameter is worth to the trials that did not fail; None where nothing was searched.

    With too few trials for shares, the first parameters of the space are plotted instead of the most important.
    """
    found = importances(run.frozen, run.trials)
    known = [trial for trial in run.frozen if trial.number in found.values]
    names = list(dict.fromkeys(name for trial in known for name in trial.params))
    if not names:
        return None
    shown = [share.name for share in found.shares] or names
    slices = [_slice(name, known, found.values, run.trials) for name in shown[:NUM_SLICES]]
    return Parameters(found.num_trials, MIN_TRIALS, found.shares, slices)


def _slice(name: str, frozen: Sequence["FrozenTrial"], values: Mapping[int, float], trials: Trials) -> Slice:
    having = [trial for trial in frozen if name in trial.params]
    distribution = having[-1].distributions[name]
    choices = getattr(distribution, "choices", None)
    is_log = getattr(distribution, "log", False)
    states = {row.number: row.state for row in trials}
    points = [
        SlicePoint(
            number=trial.number,
            state=states[trial.number],
            x=trial.params[name] if choices is None else str(trial.params[name]),
            value=values[trial.number],
        )
        for trial in having
    ]
    options = None if choices is None else [str(choice) for choice in choices]
    return Slice(name, options, "category" if options is not None else "log" if is_log else "linear", points)


def render(record: Parameters, subject: Subject) -> str:
    """A bar a parameter where there are enough trials, then the slices."""
    if record.shares:
        intro = (
            f"How much the best of {record.num_trials} trials differ from all of them in each parameter "
            "(PED-ANOVA). What one parameter does through another is not in it."
        )
        parts = [f"<p>{intro}</p>", plot(importance_bars(record.shares))]
    else:
        parts = [
            f"<p>{record.num_trials} trials with a value are too few to tell which parameters mattered; "
            f"that takes {record.min_trials}.</p>"
        ]
    slices = [f"<div>{plot(slice_plot(part, subject.metric))}</div>" for part in record.slices]
    parts += ["<h3>Value against parameter</h3>", f'<div class="two">{"".join(slices)}</div>']
    return "".join(parts)


def importance_bars(shares: Sequence[ImportanceShare]) -> Figure:
    """One bar a parameter, the most important on top."""
    rows = list(reversed(shares))
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [escape(row.name) for row in rows],
        "x": [row.share for row in rows],
        "text": [f"{row.share:.0%}" for row in rows],
        "textposition": "auto",
        "marker": {"color": ACCENT},
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
        "showlegend": False,
    }
    figure = framed([bars], "share of importance", "", height=80 + 30 * len(rows))
    figure["layout"]["xaxis"].update(tickformat=".0%", rangemode="tozero")
    figure["layout"]["yaxis"].update(type="category")
    return figure


def slice_plot(part: Slice, metric: str) -> Figure:
    """Each trial's value against one parameter."""
    points = [Dot(point.x, point.value, point.state, f"trial {point.number}, {point.state}") for point in part.points]
    figure = framed(dots(points), part.name, metric, height=290)
    axis = figure["layout"]["xaxis"]
    axis.update(type=part.axis, exponentformat="e")
    if part.choices is not None:
        axis.update(categoryorder="array", categoryarray=part.choices, range=[-0.5, len(part.choices) - 0.5])
    elif part.axis == "log":
        axis["dtick"] = "D2"  # 1, 2 and 5 of each decade
    figure["layout"]["showlegend"] = False
    return figure


SECTION = Section("importances", 80, "Parameters", parameters, render, is_long=True)
