"""The section of the report's page on the best trials, trained again with fresh seeds."""

from collections.abc import Mapping
from typing import Any

from search.report.interval_figures import confirmation_plot
from search.report.markup import (
    plot,
    section,
    sentences,
    table,
)
from search.show.confirmation import confirmation_lines, confirmation_table, confirmation_title

_PAIRED = (
    "all candidates are scored on the same images, so that their own intervals overlap more than they differ; whether "
    "two can be told apart is judged by their difference, image by image"
)


def confirm_section(record: Mapping[str, Any]) -> str:
    """Why the winner is the winner; each candidate's seeds, mean and interval; the same as a table."""
    reason, *notes = confirmation_lines(record)
    heads, rows = confirmation_table(record)
    kinds = ["n" if head else "mark" for head in heads]
    body = [
        ("winner" if candidate["trial"] == record["winner"] else "", list(zip(row, kinds, strict=True)))
        for candidate, row in zip(record["candidates"], rows, strict=True)
    ]
    return section(
        "The best trials with fresh seeds",
        f"<p>{sentences([confirmation_title(record), reason])}</p>",
        plot(confirmation_plot(record)),
        table([(head.replace("\n", " "), kind) for head, kind in zip(heads, kinds, strict=True)], body),
        f'<p class="soft">{sentences([*([_PAIRED] if len(rows) > 1 else []), *notes])}</p>',
    )
