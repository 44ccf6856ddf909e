"""A run's report: one HTML page that opens offline, made of plain records that are computed from the run's files."""

from pathlib import Path
from typing import Any

from search.errors import RunError
from search.report.history import search_history
from search.report.importance import importances
from search.report.outcome import (
    all_scores,
    best_trials,
    configuration,
    failures,
    headline,
    origins,
)
from search.report.page import render_page
from search.report.pareto import front
from search.report.pictures import overlays
from search.report.privacy import without_private
from search.report.threshold import threshold_cost
from search.runs.paths import RunPaths, write_text
from search.runs.sources import Sources, read_sources

__all__ = ["report_record", "write_report"]


def report_record(paths: RunPaths) -> dict[str, Any]:
    """Everything that the page shows but its pictures, ready for JSON. A part that does not apply is None.

    Raises:
        RunError: A file of the run cannot be read.
    """
    return _record(read_sources(paths))


def write_report(paths: RunPaths, out: Path | None = None) -> Path:
    """Writes the page and returns its path.

    Args:
        paths: The run; it may still be running.
        out: The file to write; default: `report.html` in the run's folder.

    Raises:
        RunError: A file of the run cannot be read, or the page cannot be written.
    """
    sources = read_sources(paths)
    page = render_page(_record(sources), sources.checkpoints)
    out = out or paths.report
    try:
        write_text(out, page)
    except OSError as error:
        raise RunError(f"the report cannot be written: {error}; name another file with -o") from error
    return out


def _record(sources: Sources) -> dict[str, Any]:
    record: dict[str, Any] = {
        "headline": headline(sources),
        "scores": all_scores(sources),
        "history": search_history(sources),
        "best_trials": best_trials(sources),
        "confirmation": sources.confirmation,
        "ledger": sources.ledger,
        "failures": failures(sources),
        "importances": importances(sources),
        "threshold": threshold_cost(sources),
        "front": front(sources),
        "origins": origins(sources),
        "overlays": overlays(sources.checkpoints),
        "configuration": configuration(sources),
    }
    clean: dict[str, Any] = without_private(record)
    return clean
