"""What `ls` prints: one line per run, reading as little of its files as possible."""

import time
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from search.errors import RunError
from search.runs.paths import RunPaths, list_runs
from search.runs.reading import Run
from search.show.quoting import quote
from segcore.errors import SegsearchError

SO_FAR = "val, so far"
"""Split of the score of a run without a sealed model: that of its best trial."""


@dataclass(frozen=True)
class RunLine:
    """A run in the list.

    Attributes:
        name: The run's.
        kind: `search` or `train`; `?` where it cannot be read, as for `created`.
        status: As it stands now, or `unreadable: ` and why.
        created: Local time, to the minute.
        seconds: Over all sessions.
        trials: How many there are; None for a single training run, and before the first one.
        iou: The score to quote; of a run that has sealed nothing, its best trial's on val.
        split: What the score is on.
    """

    name: str
    kind: str
    status: str
    created: str
    seconds: float
    trials: int | None
    iou: float | None
    split: str | None


def run_lines(results: Path) -> list[RunLine]:
    """One line per run, newest first.

    Raises:
        RunError: `results` is a file.
    """
    if results.is_file():
        raise RunError(f"{results} is a file; --results names the folder of the runs")
    return [_line_or_error(paths) for paths in list_runs(results)]


def run_line(run: Run) -> RunLine:
    """A run's line in the list.

    Raises:
        RunError, BundleError: A file of it cannot be read.
    """
    found = quote(run.card)
    iou, split = (found.score.iou, found.name) if found else _so_far(run)
    return RunLine(
        name=run.name,
        kind=run.record.kind,
        status=run.status,
        created=time.strftime("%Y-%m-%d %H:%M", time.localtime(run.record.created)),
        seconds=run.record.timings.get("total_s", 0.0),
        trials=run.num_trials or None,
        iou=iou,
        split=split,
    )


def list_table(lines: list[RunLine]) -> Table:
    """The table of `ls`."""
    table = Table("run", "kind", "status", "created", "minutes", "trials", "IoU", "on", box=box.SIMPLE_HEAD)
    for line in lines:
        table.add_row(
            line.name, line.kind, line.status, line.created, f"{line.seconds / 60:.1f}", str(line.trials or ""),
            "" if line.iou is None else f"{line.iou:.4f}", line.split or "",
        )  # fmt: skip
    return table


def _so_far(run: Run) -> tuple[float | None, str | None]:
    best = run.told.best()
    iou = None if best is None else best.metrics.get("val/iou")
    return iou, None if iou is None else SO_FAR


def _line_or_error(paths: RunPaths) -> RunLine:
    """A run's line, or its error: one damaged run must not hide the others."""
    try:
        return run_line(Run(paths))
    except (SegsearchError, OSError, ValueError, KeyError) as error:
        return RunLine(paths.name, "?", f"unreadable: {error}", "?", 0.0, None, None, None)
