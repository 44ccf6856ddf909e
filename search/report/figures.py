"""What the figures of several sections are made of, as plotly.js draws it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from search.show.quoting import value_text
from search.show.run import short_names

Figure = dict[str, Any]
"""JSON for plotly.js: of a whole figure `{"data": [...], "layout": {...}}`, or a part of one."""

STATE_COLORS = {"complete": "#1f7a5c", "pruned": "#9aa5b1", "failed": "#c8452f", "running": "#d99a1c"}
INK, GRID, ACCENT, SOFT, RULE = "#2b2f36", "#e7e9ec", "#2f5fb3", "#69717c", "#8a929c"


@dataclass(frozen=True)
class Dot:
    """A trial in a figure: where it lies, how it ended, and what is said of it, as HTML, when it is pointed at."""

    x: float | str
    y: float
    state: str
    label: str


def dots(points: Sequence[Dot]) -> list[Figure]:
    """One trace per state, so that the legend names the states."""
    traces = []
    for state in dict.fromkeys([*STATE_COLORS, *(point.state for point in points)]):
        chosen = [point for point in points if point.state == state]
        if chosen:
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": state,
                    "x": [point.x for point in chosen], "y": [point.y for point in chosen],
                    "text": [point.label for point in chosen],
                    "marker": {"size": 8, "color": STATE_COLORS.get(state, INK), "line": {"color": "#fff", "width": 1}},
                    "hovertemplate": "%{text}<br>%{x}: %{y:.4f}<extra></extra>",
                }
            )  # fmt: skip
    return traces


def trial_label(name: str, state: str, settings: Mapping[str, object]) -> str:
    """What is said of a trial when it is pointed at, as HTML.

    Args:
        name: `trial 7`.
        state: How it ended.
        settings: What it ran with, by dotted key.
    """
    lines = [f"{escape(key)} = {escape(value_text(value))}" for key, value in short_names(settings).items()]
    return "<br>".join([f"<b>{name}</b>, {state}", *lines])


def step_line(xs: Sequence[float], ys: Sequence[float]) -> Figure:
    """The best so far."""
    return {
        "type": "scatter", "mode": "lines", "x": list(xs), "y": list(ys), "name": "best so far",
        "line": {"color": ACCENT, "width": 2, "shape": "hv"}, "hoverinfo": "skip",
    }  # fmt: skip


def error_bars(estimates: Sequence[tuple[float, Sequence[float] | None]], color: str) -> Figure:
    """Error bars of values with their intervals; None: the interval is not known."""
    ends = [(value, interval or (value, value)) for value, interval in estimates]
    return {
        "type": "data", "symmetric": False, "array": [high - value for value, (_, high) in ends],
        "arrayminus": [value - low for value, (low, _) in ends], "color": color, "thickness": 1.5, "width": 4,
    }  # fmt: skip


def framed(data: Sequence[Figure], x_title: str, y_title: str, *, height: int) -> Figure:
    """A figure with the page's axes, legend and colours.

    Args:
        data: Its traces.
        x_title: Title of the x axis, as text.
        y_title: Title of the y axis, as text.
        height: In pixels.
    """
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": "#c5cad1", "automargin": True}
    layout = {
        "height": height,
        "margin": {"l": 56, "r": 14, "t": 30, "b": 46},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
        "xaxis": {**axis, "title": {"text": escape(x_title), "standoff": 8}},
        "yaxis": {**axis, "title": {"text": escape(y_title), "standoff": 6}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hoverlabel": {"bgcolor": "#fff", "font": {"size": 12, "color": INK}, "align": "left"},
        "colorway": [ACCENT],
    }
    return {"data": list(data), "layout": layout}


def framed_rows(data: Sequence[Figure], labels: Sequence[str], x_title: str) -> Figure:
    """A figure whose rows are numbered from the top; a number for y, unlike a name, may lie between two rows.

    Args:
        data: Its traces, y being the row.
        labels: The rows' names, as HTML.
        x_title: Title of the x axis, as text.
    """
    figure = framed(data, x_title, "", height=100 + 46 * len(labels))
    figure["layout"]["yaxis"].update(
        tickvals=list(range(len(labels))), ticktext=list(labels), range=[len(labels) - 0.4, -0.6], showgrid=False,
        fixedrange=True,
    )  # fmt: skip
    figure["layout"]["hovermode"] = "closest"
    return figure
