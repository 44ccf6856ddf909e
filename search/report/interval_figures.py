"""The report's figures of estimates with their intervals: candidates over fresh seeds, and what settings are worth."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from search.report.figures import (
    ACCENT,
    INK,
    STATE_COLORS,
    framed,
)
from search.show.confirmation import verdict
from search.show.ledger import (
    NOISE,
    chosen_text,
    value_text,
    worth_text,
)

GAIN, LOSS, NOISE_COLOR = STATE_COLORS["complete"], STATE_COLORS["failed"], STATE_COLORS["pruned"]
_SEEDS_BELOW = 0.24
"""How far the seeds' dots lie below their mean, in rows."""
_LONGEST = 26
"""Characters of a row's name that leave room for the figure on a phone."""


def confirmation_plot(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row a candidate, the best on top: its mean with the interval, each seed's value, and what the search saw."""
    candidates = record["candidates"]
    rows = range(len(candidates))
    known = [row for row in rows if candidates[row]["mean"] is not None]
    dots = [(row, seed, value) for row in rows for seed, value in candidates[row]["values"]]
    names = [f"trial {candidate['trial']}" for candidate in candidates]
    percent = f"{record['confidence']:.0%}"
    seen = [row for row in rows if candidates[row]["searched"] is not None]
    traces = [
        {
            "type": "scatter", "mode": "markers", "name": f"mean over seeds, {percent} interval",
            "x": [candidates[row]["mean"] for row in known], "y": known,
            "error_x": _bars([(candidates[row]["mean"], candidates[row]["interval"]) for row in known], ACCENT),
            "marker": {"size": 11, "color": ACCENT}, "text": [names[row] for row in known],
            "hovertemplate": "%{text}: mean %{x:.4f}<extra></extra>",
        },
        {
            "type": "scatter", "mode": "markers", "name": "one seed", "x": [value for _, _, value in dots],
            "y": [row + _SEEDS_BELOW for row, _, _ in dots],
            "text": [f"{names[row]}, seed {seed}" for row, seed, _ in dots],
            "marker": {"size": 7, "color": NOISE_COLOR}, "hovertemplate": "%{text}: %{x:.4f}<extra></extra>",
        },
        {
            "type": "scatter", "mode": "markers", "name": "what the search saw",
            "x": [candidates[row]["searched"] for row in seen], "y": [row - _SEEDS_BELOW for row in seen],
            "marker": {"size": 10, "symbol": "diamond-open", "color": INK, "line": {"width": 1.5}},
            "text": [names[row] for row in seen], "hovertemplate": "%{text}: the search saw %{x:.4f}<extra></extra>",
        },
    ]  # fmt: skip
    labels = [
        f"{name}<br>{said}" if (said := verdict(record, candidate)) else name
        for name, candidate in zip(names, candidates, strict=True)
    ]
    return _in_rows(traces, labels, record["metric"])


def ledger_plot(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """A bar for each step, the total and each choice against another, by colour what is clear; None for no bars."""
    steps = [(escape(step["group"]), step) for step in record["steps"]]
    others = [
        (f"{escape(_cut(other['group']))}<br>not {escape(_cut(chosen_text(other['instead'][:1])))}", other)
        for other in record["alternatives"]
    ]
    if record["threshold"]:
        threshold = record["threshold"]
        others.append((f"threshold<br>not {escape(_cut(value_text(threshold['instead'])))}", threshold))
    total = [("<b>total</b>", record["total"])] if steps else []
    parts = [*steps, *total, *others]
    if not parts:
        return None
    kinds = [("a gain", GAIN), ("a loss", LOSS), (NOISE, NOISE_COLOR)]
    traces = []
    for name, color in kinds:
        rows = [row for row, (_, part) in enumerate(parts) if part["worth"] is not None and _kind(part) == name]
        if rows:
            found = [parts[row][1] for row in rows]
            traces.append(
                {
                    "type": "bar", "orientation": "h", "name": name, "width": 0.6, "y": rows,
                    "x": [part["worth"] for part in found], "marker": {"color": color},
                    "error_x": _bars([(part["worth"], part["interval"]) for part in found], INK),
                    "text": [escape(worth_text(part)) for part in found], "textposition": "none",
                    "hovertemplate": "%{text}<extra></extra>",
                }
            )  # fmt: skip
    figure = _in_rows(traces, [label for label, _ in parts], f"worth, in {record['metric']}")
    figure["layout"].update(barmode="overlay", showlegend=True)
    figure["layout"]["xaxis"].update(zeroline=True, zerolinecolor="#8a929c", tickformat="+.3~f")
    if steps and others:
        figure["layout"]["shapes"] = [_divider(len(steps) + 0.5)]
    return figure


def _kind(part: Mapping[str, Any]) -> str:
    if not part["clear"]:
        return NOISE
    return "a gain" if part["worth"] > 0 else "a loss"


def _in_rows(traces: list[dict[str, Any]], labels: Sequence[str], x_title: str) -> dict[str, Any]:
    """A figure whose rows are numbered from the top; a number for y, unlike a name, may lie between two rows."""
    figure = framed(traces, x_title, "", height=100 + 46 * len(labels))
    figure["layout"]["yaxis"].update(
        tickvals=list(range(len(labels))), ticktext=list(labels), range=[len(labels) - 0.4, -0.6], showgrid=False,
        fixedrange=True,
    )  # fmt: skip
    figure["layout"]["hovermode"] = "closest"
    return figure


def _bars(estimates: Sequence[tuple[float, Sequence[float] | None]], color: str) -> dict[str, Any]:
    """Error bars of values with their intervals."""
    ends = [(value, interval or (value, value)) for value, interval in estimates]
    return {
        "type": "data", "symmetric": False, "array": [high - value for value, (_, high) in ends],
        "arrayminus": [value - low for value, (low, _) in ends], "color": color, "thickness": 1.5, "width": 4,
    }  # fmt: skip


def _divider(y: float) -> dict[str, Any]:
    return {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y,
        "line": {"color": "#8a929c", "width": 1, "dash": "dot"},
    }  # fmt: skip


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
