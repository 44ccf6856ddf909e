"""The best trials trained again with fresh seeds: why the winner is the winner, and each candidate's interval."""

from search.report.figures import ACCENT, INK, STATE_COLORS, Figure, error_bars, framed_rows
from search.report.markup import plot, sentences, table
from search.report.section import Section, Subject
from search.runs.reading import Run
from search.runs.rerun_records import Confirmation
from search.show.confirmation import confirmation_lines, confirmation_table, confirmation_title, verdict

_PAIRED = (
    "all candidates are scored on the same images, so that their own intervals overlap more than they differ; whether "
    "two can be told apart is judged by their difference, image by image"
)
_SEEDS_BELOW = 0.24
"""How far the seeds' dots lie below their mean, in rows."""


def confirmed(run: Run) -> Confirmation | None:
    """`confirm.json`."""
    return run.confirmation


def render(record: Confirmation, subject: Subject) -> str:
    """Why the winner is the winner; each candidate's seeds, mean and interval; the same as a table."""
    reason, *notes = confirmation_lines(record)
    heads, rows = confirmation_table(record)
    kinds = ["n" if head else "mark" for head in heads]
    body = [
        ("winner" if candidate.trial == record.winner else "", list(zip(row, kinds, strict=True)))
        for candidate, row in zip(record.candidates, rows, strict=True)
    ]
    return "".join(
        [
            f"<p>{sentences([confirmation_title(record), reason])}</p>",
            plot(confirmation_plot(record)),
            table([(head.replace("\n", " "), kind) for head, kind in zip(heads, kinds, strict=True)], body),
            f'<p class="soft">{sentences([*([_PAIRED] if len(rows) > 1 else []), *notes])}</p>',
        ]
    )


def confirmation_plot(record: Confirmation) -> Figure:
    """One row per candidate, the best on top: mean with interval, each seed's value, and what the search saw."""
    rows = list(enumerate(record.candidates))
    means = [(row, each, each.mean) for row, each in rows if each.mean is not None]
    seen = [(row, each, each.searched) for row, each in rows if each.searched is not None]
    seeds = [(row, each, seed, value) for row, each in rows for seed, value in each.values]
    traces = [
        {
            "type": "scatter", "mode": "markers", "name": f"mean over seeds, {record.confidence:.0%} interval",
            "x": [mean for _, _, mean in means], "y": [row for row, _, _ in means],
            "error_x": error_bars([(mean, each.interval) for _, each, mean in means], ACCENT),
            "marker": {"size": 11, "color": ACCENT}, "text": [f"trial {each.trial}" for _, each, _ in means],
            "hovertemplate": "%{text}: mean %{x:.4f}<extra></extra>",
        },
        {
            "type": "scatter", "mode": "markers", "name": "one seed", "x": [value for _, _, _, value in seeds],
            "y": [row + _SEEDS_BELOW for row, _, _, _ in seeds],
            "text": [f"trial {each.trial}, seed {seed}" for _, each, seed, _ in seeds],
            "marker": {"size": 7, "color": STATE_COLORS["pruned"]},
            "hovertemplate": "%{text}: %{x:.4f}<extra></extra>",
        },
        {
            "type": "scatter", "mode": "markers", "name": "what the search saw",
            "x": [value for _, _, value in seen], "y": [row - _SEEDS_BELOW for row, _, _ in seen],
            "marker": {"size": 10, "symbol": "diamond-open", "color": INK, "line": {"width": 1.5}},
            "text": [f"trial {each.trial}" for _, each, _ in seen],
            "hovertemplate": "%{text}: the search saw %{x:.4f}<extra></extra>",
        },
    ]  # fmt: skip
    said = [verdict(record, candidate) for candidate in record.candidates]
    labels = [
        f"trial {each.trial}<br>{words}" if words else f"trial {each.trial}"
        for each, words in zip(record.candidates, said, strict=True)
    ]
    return framed_rows(traces, labels, record.metric)


SECTION = Section("confirmation", 40, "The best trials with fresh seeds", confirmed, render)
