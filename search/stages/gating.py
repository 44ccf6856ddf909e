"""The gate before a run: findings are shown, an error ends the job, and the run's folder keeps verdict and picture."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from search.errors import GateError, RunError
from search.runs.folder import update_run
from search.runs.paths import RunPaths
from search.space.search import Search

if TYPE_CHECKING:
    from segcore.gate.report import Finding, GateReport

log = logging.getLogger("segsearch")

_VERDICTS = {
    "overfitted": "the batch was learned",
    "steps": "the batch is being learned",
    "time": "the batch is being learned; there was no time for more",
    "diverged": "the loss is no number",
}


def inspect(search: Search, cache_path: Path, console: Console) -> "GateReport":
    """Lets the config's own pipeline, as it stands without a search, overfit one batch.

    Args:
        search: The run's.
        cache_path: Its decoded samples.
        console: Where a spinner turns meanwhile.
    """
    from segcore.data.pixels.cache_file import open_cache
    from segcore.gate.gate import run_gate

    with open_cache(cache_path) as cache, console.status("overfitting one batch"):
        return run_gate(search.base, cache)


def log_warnings(report: "GateReport") -> None:
    """Logs what should be looked at."""
    for finding in report.warnings:
        log.warning("gate: %s", finding)


def in_a_line(report: "GateReport") -> str:
    """What was trained, and how well the batch was learned."""
    figures = report.figures
    return (
        f"{figures.num_images} images in {figures.num_steps} steps: loss {figures.initial_loss:.3f} to "
        f"{figures.final_loss:.3f}, IoU {figures.iou_at_threshold:.3f} at threshold {figures.threshold:.3f} "
        f"({figures.total_s:.0f} s)"
    )


def require_passed(report: "GateReport", name: str, picture: Path | None = None) -> None:
    """Ends the job where something is certainly wrong.

    Args:
        report: What the gate found.
        name: The config's name, for the picture's file.
        picture: The picture's path, if it was written already.

    Raises:
        GateError: With every error.
    """
    if not report.errors:
        return
    picture = picture or write_picture(report, name)
    lines = [f"  {finding}" for finding in report.errors]
    raise GateError(
        "the gate found what would make training a waste:\n" + "\n".join(lines)
        + f"\n  the batch, its masks and predictions: {picture}\n  if this is how it should be: --no-gate"
    )  # fmt: skip


def write_picture(report: "GateReport", name: str, path: Path | None = None) -> Path:
    """Writes the picture to a path, by default a new temporary file, and returns the path.

    Args:
        report: What the gate found.
        name: The config's name, for the new file's name.
        path: The file to write; None makes a new one.

    Raises:
        RunError: It cannot be written there.
    """
    if path is not None:
        try:
            report.write_picture(path)
        except OSError as error:
            raise RunError(f"the picture {path} cannot be written: {error}") from error
        return path
    with tempfile.NamedTemporaryFile(prefix=f"segsearch-{name}-gate-", suffix=".png", delete=False) as file:
        path = Path(file.name)
    report.write_picture(path)
    return path


def keep(report: "GateReport", paths: RunPaths) -> None:
    """Puts picture and verdict into the run's folder."""
    report.write_picture(paths.gate)
    update_run(paths, gate=report.to_dict())


def render_gate(report: "GateReport") -> Iterator[RenderableType]:
    """What was tried, the result, and each finding."""
    figures = report.figures
    table = Table("gate", "", title=None, box=None, show_header=False)
    table.add_row("batch", f"{figures.num_images} images at {figures.width}x{figures.height} px")
    table.add_row("trained", f"{figures.num_steps} steps in {figures.train_s:.1f} s ({_VERDICTS[figures.ended_by]})")
    table.add_row("loss", f"{figures.initial_loss:.4f} before, {figures.final_loss:.4f} after")
    table.add_row(
        "IoU",
        f"{figures.iou_at_threshold:.4f} at threshold {figures.threshold:.3f}; "
        f"best {figures.best_iou:.4f} at {figures.best_threshold:.3f}",
    )
    yield table
    for finding in report.findings:
        yield _finding(finding)


def _finding(finding: "Finding") -> Text:
    color = "red" if finding.severity == "error" else "yellow"
    return Text.assemble((finding.severity, f"bold {color}"), f" {finding}")
