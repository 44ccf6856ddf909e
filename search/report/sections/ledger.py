"""The section of the report's page on what each part of the winner's settings is worth."""

from collections.abc import Mapping, Sequence
from typing import Any

from search.report.interval_figures import ledger_plot
from search.report.markup import (
    plot,
    section,
    sentences,
    table,
)
from search.show.ledger import (
    alternative_table,
    ledger_lines,
    ledger_table,
    ledger_title,
)

_KINDS = {"step": "", "of": "", "changed": "lines", "choice": "lines", "": "mark"}
"""How cells are set, by their column's title; all others hold numbers."""


def ledger_section(record: Mapping[str, Any]) -> str:
    """What each step from the config's own values to the winner is worth, and each choice against another."""
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
    return section("What the gain is made of", *parts, f'<p class="soft">{sentences(notes)}</p>')


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], total: int | None = None) -> str:
    kinds = [_KINDS.get(head, "n") for head in heads]
    body = [("winner" if at == total else "", list(zip(row, kinds, strict=True))) for at, row in enumerate(rows)]
    return table(list(zip(heads, kinds, strict=True)), body)
