"""A run's report: one HTML page that opens offline, made of plain records that are computed from the run's files."""

from pathlib import Path
from typing import Any

from search.errors import RunError
from search.report.jsonable import as_json
from search.report.page import render_page
from search.report.privacy import without_private
from search.report.section import all_sections, subject_of
from search.runs.paths import RunPaths, write_text
from search.runs.reading import Run


def report_record(paths: RunPaths) -> dict[str, Any]:
    """Everything that the page shows but its pictures, ready for JSON. A part that does not apply is None.

    Raises:
        RunError: A file of the run cannot be read.
    """
    record: dict[str, Any] = as_json(_records(Run(paths)))
    return record


def write_report(paths: RunPaths, out: Path | None = None) -> Path:
    """Writes the page and returns its path.

    Args:
        paths: The run; it may still be running.
        out: The file to write; default: `report.html` in the run's folder.

    Raises:
        RunError: A file of the run cannot be read, or the page cannot be written.
    """
    run = Run(paths)
    page = render_page(run.record.name, _records(run), subject_of(run))
    out = out or paths.report
    try:
        write_text(out, page)
    except OSError as error:
        raise RunError(f"the report cannot be written: {error}; name another file with -o") from error
    return out


def _records(run: Run) -> dict[str, object]:
    """The record of each section, by its name, without what is private."""
    return without_private({section.name: section.record(run) for section in all_sections()})
