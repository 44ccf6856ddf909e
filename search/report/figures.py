"""The report's figures, from its records to what plotly.js draws: plain `{"data": [...], "layout": {...}}`."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from search.show.run import short_names

STATE_COLORS = {"complete": "#1f7a5c", "pruned": "#9aa5b1", "failed": "#c8452f", "running": "#d99a1c"}
INK, GRID, ACCENT = "#2b2f36", "#e7e9ec", "#2f5fb3"
_FAINT = "rgba(154,165,177,0.45)"
_MOST_TICKS = 12


def by_number(history: Mapping[str, Any]) -> dict[str, Any]:
    """Each trial's value against its number, with the best so far."""
    trials = history["trials"]
    best = [trial for trial in trials if trial["best_so_far"] is not None]
    line = _step_line([t["number"] for t in best], [t["best_so_far"] for t in best])
    dots = _dots(trials, x="number", y="value")
    return framed([line, *dots], "trial", history["metric"], height=330)


def by_epochs(history: Mapping[str, Any]) -> dict[str, Any]:
    """Each trial's value against the epochs that all trials had been trained until then, with the best so far."""
    steps = [*history["steps"]]
    if steps:
        steps.append({"epochs": history["epochs"], "best": steps[-1]["best"]})
    line = _step_line([step["epochs"] for step in steps], [step["best"] for step in steps])
    trials = [trial for trial in history["trials"] if trial["epochs_spent"] is not None]
    dots = _dots(trials, x="epochs_spent", y="value")
    return framed([line, *dots], "epochs of all trials together", history["metric"], height=330)


def learning_curves(history: Mapping[str, Any]) -> dict[str, Any]:
    """A line a trial, the winner's in front; the epochs at which trials are judged are dotted."""
    traces = []
    for curve in sorted(history["curves"], key=lambda curve: curve["is_winner"]):
        color = ACCENT if curve["is_winner"] else STATE_COLORS.get(curve["state"], _FAINT)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": curve["epochs"],
                "y": curve["values"],
                "line": {"color": color, "width": 3 if curve["is_winner"] else 1.5},
                "marker": {"size": 6 if curve["is_winner"] else 3.5, "color": color},
                "opacity": 1.0 if curve["is_winner"] else 0.8,
                "hovertemplate": f"{_label(curve)}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>",
                "showlegend": False,
            }
        )
    figure = framed(traces, "epoch", history["metric"], height=400)
    figure["layout"]["shapes"] = [
        {
            "type": "line", "x0": rung, "x1": rung, "yref": "paper", "y0": 0, "y1": 1,
            "line": {"color": "#8a929c", "width": 1, "dash": "dot"},
        }
        for rung in history["rungs"]
    ]  # fmt: skip
    figure["layout"]["annotations"] = [
        {
            "x": rung, "y": 1, "yref": "paper", "yanchor": "bottom", "text": f"rung {rung}", "showarrow": False,
            "font": {"size": 11, "color": "#69717c"},
        }
        for rung in history["rungs"]
    ]  # fmt: skip
    last = max((epoch for curve in history["curves"] for epoch in curve["epochs"]), default=1)
    figure["layout"]["xaxis"].update(tick0=0, dtick=math.ceil(last / _MOST_TICKS))
    figure["layout"]["hovermode"] = "closest"
    return figure


def importance_bars(shares: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One bar a parameter, the most important on top."""
    rows = list(reversed(shares))
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [escape(row["name"]) for row in rows],
        "x": [row["share"] for row in rows],
        "text": [f"{row['share']:.0%}" for row in rows],
        "textposition": "auto",
        "marker": {"color": ACCENT},
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
        "showlegend": False,
    }
    figure = framed([bars], "share of importance", "", height=80 + 30 * len(rows))
    figure["layout"]["xaxis"].update(tickformat=".0%", rangemode="tozero")
    figure["layout"]["yaxis"].update(type="category")
    return figure


def slice_plot(part: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Each trial's value against one parameter."""
    figure = framed(_dots(part["points"], x="x", y="value", labels=False), part["name"], metric, height=290)
    axis = figure["layout"]["xaxis"]
    axis.update(type=part["axis"], exponentformat="e")
    if part["axis"] == "category":
        axis.update(categoryorder="array", categoryarray=part["choices"], range=[-0.5, len(part["choices"]) - 0.5])
    elif part["axis"] == "log":
        axis["dtick"] = "D2"  # 1, 2 and 5 of each decade
    figure["layout"]["showlegend"] = False
    return figure


def threshold_curve(cost: Mapping[str, Any]) -> dict[str, Any]:
    """IoU against the threshold, with the best, 0.5, and what a random one is worth."""
    low, high = cost["range"]
    line = {
        "type": "scatter", "mode": "lines", "x": cost["curve"]["threshold"], "y": cost["curve"]["iou"],
        "line": {"color": ACCENT, "width": 2.5}, "name": "IoU on val",
        "hovertemplate": "threshold %{x:.3f}: IoU %{y:.4f}<extra></extra>",
    }  # fmt: skip
    random = {
        "type": "scatter", "mode": "lines", "x": [low, high], "y": [cost["iou_at_random"]] * 2,
        "line": {"color": STATE_COLORS["running"], "width": 2, "dash": "dash"}, "name": "a random one, on average",
        "hovertemplate": "IoU %{y:.4f}<extra>on average</extra>",
    }  # fmt: skip
    marks = [
        (f"best, {cost['best_threshold']:.3f}", cost["best_threshold"], cost["iou_at_best"], STATE_COLORS["complete"]),
        ("0.5", 0.5, cost["iou_at_half"], INK),
    ]
    points = [
        {
            "type": "scatter", "mode": "markers", "x": [x], "y": [y], "name": name,
            "marker": {"size": 10, "color": color}, "hovertemplate": f"{name}: IoU %{{y:.4f}}<extra></extra>",
        }
        for name, x, y, color in marks
    ]  # fmt: skip
    return framed([line, random, *points], "threshold", "IoU", height=320)


def threshold_losses(cost: Mapping[str, Any]) -> dict[str, Any]:
    """What each searched threshold lost, against the threshold."""
    losses = cost["losses"]
    dots = {
        "type": "scatter", "mode": "markers", "x": [loss["threshold"] for loss in losses],
        "y": [loss["lost"] for loss in losses], "marker": {"size": 8, "color": ACCENT}, "showlegend": False,
        "text": [f"trial {loss['number']}, best at {loss['best_threshold']:.3f}" for loss in losses],
        "hovertemplate": "%{text}<br>at %{x:.3f} it lost %{y:.4f}<extra></extra>",
    }  # fmt: skip
    return framed([dots], "searched threshold", "IoU lost", height=300)


def front_plot(front: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Value against cost; the front is joined."""
    best = front["front"]
    line = {
        "type": "scatter", "mode": "lines+markers", "x": [p["cost"] for p in best], "y": [p["value"] for p in best],
        "line": {"color": ACCENT, "width": 2}, "name": "Pareto front", "hoverinfo": "skip",
        "marker": {"size": 15, "symbol": "circle-open", "color": ACCENT, "line": {"width": 2}},
    }  # fmt: skip
    figure = framed([line, *_dots(front["points"], x="cost", y="value")], front["label"], metric, height=360)
    costs = [point["cost"] for point in front["points"]]
    if min(costs) > 0 and max(costs) / min(costs) > 10:
        figure["layout"]["xaxis"]["type"] = "log"
    return figure


def _dots(points: Sequence[Mapping[str, Any]], *, x: str, y: str, labels: bool = True) -> list[dict[str, Any]]:
    """One trace a state, so that the legend names the states."""
    traces = []
    for state in dict.fromkeys([*STATE_COLORS, *(point["state"] for point in points)]):
        chosen = [point for point in points if point["state"] == state]
        if chosen:
            traces.append(
                {
                    "type": "scatter", "mode": "markers", "name": state,
                    "x": [point[x] for point in chosen], "y": [point[y] for point in chosen],
                    "text": [_label(point) if labels else f"trial {point['number']}, {state}" for point in chosen],
                    "marker": {"size": 8, "color": STATE_COLORS.get(state, INK), "line": {"color": "#fff", "width": 1}},
                    "hovertemplate": "%{text}<br>%{x}: %{y:.4f}<extra></extra>",
                }
            )  # fmt: skip
    return traces


def _step_line(xs: Sequence[float], ys: Sequence[float]) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "x": list(xs), "y": list(ys), "name": "best so far",
        "line": {"color": ACCENT, "width": 2, "shape": "hv"}, "hoverinfo": "skip",
    }  # fmt: skip


def _label(point: Mapping[str, Any]) -> str:
    settings = short_names(point["settings"])
    lines = [f"{escape(key)} = {escape(cell(value))}" for key, value in settings.items()]
    return "<br>".join([f"<b>trial {point['number']}</b>, {point['state']}", *lines])


def cell(value: Any) -> str:
    """A setting for people."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def framed(data: list[dict[str, Any]], x_title: str, y_title: str, *, height: int) -> dict[str, Any]:
    """A figure of these traces with the page's axes, legend and colours; titles are text."""
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
    return {"data": data, "layout": layout}
