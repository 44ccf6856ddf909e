"""What each step from the config's own values to the winner is worth, and each choice against another."""

from collections.abc import Sequence
from html import escape

from search.report.figures import INK, RULE, STATE_COLORS, Figure, error_bars, framed_rows
from search.report.markup import plot, sentences, table
from search.report.section import Section, Subject
from search.runs.reading import Run
from search.runs.rerun_records import Ledger, Worth
from search.show.ledger import (
    NOISE,
    alternative_table,
    chosen_text,
    ledger_lines,
    ledger_table,
    ledger_title,
    worth_text,
)
from search.show.quoting import value_text

_KINDS = {"step": "", "of": "", "changed": "lines", "choice": "lines", "": "mark"}
"""How cells are set, by their column's title; all others hold numbers."""
GAIN, LOSS, NOISE_COLOR = STATE_COLORS["complete"], STATE_COLORS["failed"], STATE_COLORS["pruned"]
_LONGEST = 26
"""Characters of a row's name that leave room for the figure on a phone."""


def ledger(run: Run) -> Ledger | None:
    """`ledger.json`."""
    return run.ledger


def render(record: Ledger, subject: Subject) -> str:
    """The steps as a figure and a table, then the choices."""
    first, *notes = ledger_lines(record)
    heads, rows = ledger_table(record)
    figure = ledger_plot(record)
    parts = [
        f"<p>{sentences([ledger_title(record), first])}</p>",
        plot(figure) if figure else "",
        _table(heads, rows, total=len(rows) - 1),
    ]
    heads, rows = alternative_table(record)
    if rows:
        parts += ["<h3>At the winner, one choice against another</h3>", _table(heads, rows)]
    return "".join([*parts, f'<p class="soft">{sentences(notes)}</p>'])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], total: int | None = None) -> str:
    kinds = [_KINDS.get(head, "n") for head in heads]
    body = [("winner" if at == total else "", list(zip(row, kinds, strict=True))) for at, row in enumerate(rows)]
    return table(list(zip(heads, kinds, strict=True)), body)


def ledger_plot(record: Ledger) -> Figure | None:
    """A bar for each step, the total and each choice against another, by colour what is clear; None for no bars."""
    steps: list[tuple[str, Worth]] = [(escape(step.group), step) for step in record.steps]
    others: list[tuple[str, Worth]] = [
        (f"{escape(_cut(other.group))}<br>not {escape(_cut(chosen_text(other.instead[:1])))}", other)
        for other in record.alternatives
    ]
    if record.threshold:
        others.append((f"threshold<br>not {escape(_cut(value_text(record.threshold.instead)))}", record.threshold))
    total = [("<b>total</b>", record.total)] if steps else []
    parts = [*steps, *total, *others]
    if not parts:
        return None
    known = [(row, part, part.worth) for row, (_, part) in enumerate(parts) if part.worth is not None]
    traces = []
    for name, color in (("a gain", GAIN), ("a loss", LOSS), (NOISE, NOISE_COLOR)):
        bars = [(row, part, worth) for row, part, worth in known if _kind(part, worth) == name]
        if bars:
            traces.append(
                {
                    "type": "bar", "orientation": "h", "name": name, "width": 0.6, "y": [row for row, _, _ in bars],
                    "x": [worth for _, _, worth in bars], "marker": {"color": color},
                    "error_x": error_bars([(worth, part.interval) for _, part, worth in bars], INK),
                    "text": [escape(worth_text(part)) for _, part, _ in bars], "textposition": "none",
                    "hovertemplate": "%{text}<extra></extra>",
                }
            )  # fmt: skip
    figure = framed_rows(traces, [label for label, _ in parts], f"worth, in {record.metric}")
    figure["layout"].update(barmode="overlay", showlegend=True)
    figure["layout"]["xaxis"].update(zeroline=True, zerolinecolor=RULE, tickformat="+.3~f")
    if steps and others:
        figure["layout"]["shapes"] = [_divider(len(steps) + 0.5)]
    return figure


def _kind(part: Worth, worth: float) -> str:
    if not part.clear:
        return NOISE
    return "a gain" if worth > 0 else "a loss"


def _divider(y: float) -> Figure:
    return {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y,
        "line": {"color": RULE, "width": 1, "dash": "dot"},
    }  # fmt: skip


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


SECTION = Section("ledger", 50, "What the gain is made of", ledger, render)
