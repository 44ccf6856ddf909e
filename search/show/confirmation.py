"""How `confirm.json` is shown: the best trials trained again with fresh seeds, as rows of text, and in the terminal."""

from collections import defaultdict
from collections.abc import Iterator
from statistics import stdev

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from search.runs.rerun_records import Confirmation, ConfirmedTrial, Ledger
from search.show.quoting import (
    number_text,
    range_text,
    signed_range_text,
    signed_text,
)
from segcore.objective import Objective


def render_confirmation(record: Confirmation, parameters: bool = True) -> Iterator[RenderableType]:
    """A table of the candidates, best mean first, and the verdict.

    Args:
        record: What `confirm.json` holds.
        parameters: Show what each candidate's model costs, too.
    """
    heads, rows = confirmation_table(record, parameters)
    title = confirmation_title(record)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for head in heads:
        width = _narrowest(head)
        table.add_column(head, justify="right", min_width=width, no_wrap=width is None)
    for candidate, row in zip(record.candidates, rows, strict=True):
        table.add_row(*map(Text, row), style="bold" if candidate.trial == record.winner else "")
    yield table
    yield Text("\n".join([*confirmation_lines(record), ""]))


def confirmation_title(record: Confirmation) -> str:
    """What was done, and on what it is judged."""
    better = "larger" if record.mode == "max" else "smaller"
    again = f"the best trials again over {seeds_text(len(record.seeds))}"
    return f"{again}: {judged_text(record)}, {better} is better"


def judged_text(record: Confirmation | Ledger) -> str:
    """The metric, and on how many images it is a mean; a loss has no value of a single image."""
    metric = str(record.metric)
    return metric if record.num_images is None else f"{metric} on {record.num_images} val images"


def confirmation_table(record: Confirmation, parameters: bool = True) -> tuple[list[str], list[list[str]]]:
    """Titles, and a row of text for each candidate; empty columns are left out."""
    candidates = record.candidates
    percent = f"{record.confidence:.0%}"
    columns: list[tuple[str, list[str]]] = [
        ("trial", [str(candidate.trial) for candidate in candidates]),
        ("mean", [number_text(candidate.mean) for candidate in candidates]),
        (f"{percent} interval", [range_text(candidate.interval) for candidate in candidates]),
        ("sd of\nseeds", [number_text(_spread(candidate)) for candidate in candidates]),
        ("search\nsaw", [number_text(candidate.searched) for candidate in candidates]),
    ]
    if len(candidates) > 1:
        found = [candidate.difference for candidate in candidates]
        columns += [
            (f"against\ntrial {candidates[0].trial}", [signed_text(part.value if part else None) for part in found]),
            (f"its {percent}\nrange", [signed_range_text(part.interval if part else None) for part in found]),
        ]
    columns.append(("", [verdict(record, candidate) for candidate in candidates]))
    if parameters:
        columns.append(("M\nparams", [_millions(candidate.parameters) for candidate in candidates]))
        if any(candidate.latency_ms is not None for candidate in candidates):
            columns.append(("ms", [number_text(candidate.latency_ms, 2) for candidate in candidates]))
    return [head for head, _ in columns], [list(row) for row in zip(*(cells for _, cells in columns), strict=True)]


def verdict(record: Confirmation, candidate: ConfirmedTrial) -> str:
    """`failed`, `tie`, `winner`, both of these, or nothing."""
    if candidate.mean is None:
        return "failed"
    words = [
        "tie" if record.is_tie and candidate.trial in record.tied else "",
        "winner" if candidate.trial == record.winner else "",
    ]
    return ", ".join(filter(None, words))


def confirmation_lines(record: Confirmation) -> Iterator[str]:
    """Why the winner is the winner, how much the search flattered it, the noise of a seed, and what failed."""
    yield record.reason
    yield from _flattery(record)
    if record.seed_sd is not None:
        yield f"the same settings with another seed differ by {record.seed_sd:.4f} (standard deviation)"
    for candidate in record.candidates:
        seeds_of = defaultdict(list)
        for seed, message in candidate.failed:
            seeds_of[message.partition("\n")[0]].append(str(seed))
        for message, seeds in seeds_of.items():
            which = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"
            yield f"trial {candidate.trial} failed with {which}: {message}"


def seeds_text(count: int) -> str:
    """`3 fresh seeds`."""
    return f"{count} fresh seed{'s' if count != 1 else ''}"


def _flattery(record: Confirmation) -> Iterator[str]:
    """How much the search flattered the winner, and before it the trial that the search had first, if another one."""
    sign = Objective(record.metric, record.mode).sign
    known = [
        (row.searched, row.mean, row) for row in record.candidates if row.mean is not None and row.searched is not None
    ]
    first = max(known, key=lambda found: sign * found[0], default=None)
    winner = next((found for found in known if found[2].trial == record.winner), None)
    for searched, mean, row in filter(None, (first if first is not winner else None, winner)):
        yield (
            f"the search saw {searched:.4f} of trial {row.trial}; over {seeds_text(len(row.values))} it "
            f"is {mean:.4f}, so the search {_flattered(sign * (searched - mean))}"
        )


def _flattered(by: float) -> str:
    return f"flattered it by {by:.4f}" if by > 0 else "did not flatter it"


def _spread(candidate: ConfirmedTrial) -> float | None:
    """Standard deviation over seeds; None for fewer than two."""
    values = [value for _, value in candidate.values]
    return stdev(values) if len(values) > 1 else None


def _millions(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e6:.3g}"


def _narrowest(head: str) -> int | None:
    """How narrow a column may become by taking more lines; None where it stays on one."""
    if head.endswith("interval"):
        return 8
    return 7 if head.endswith("range") else None if head else 6
