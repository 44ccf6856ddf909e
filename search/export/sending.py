"""Hands a sealed model over: every target is tried, each copy is verified, and the result is kept in `export.json`."""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from search.config.choices import secret_variables
from search.errors import ExportError
from search.export.files import FileDigest, Progress, card_last
from search.export.registry import build_target
from search.export.target import SpecLike, TargetSpec, TrackingContext
from search.runs.paths import read_json, write_json
from search.secrets import redact
from segcore.errors import ConfigError
from segcore.sealed.card import CARD_FILE, verify_bundle

log = logging.getLogger("segsearch")


@dataclass(frozen=True)
class ExportOutcome:
    """The result of an export to one target.

    Attributes:
        target: Kind of the target.
        location: Where, in the target's own words.
        status: `done` only after the destination was seen to hold every file.
        files: sha256 and size in bytes of each file there; empty after a failure.
        url: A page on which a person finds the files, where there is one.
        error: Why it failed; None if it did not.
        time: When it ended, ISO 8601 in UTC.
        seconds: Wall-clock time.
    """

    target: str
    location: str
    status: Literal["done", "failed"]
    files: dict[str, FileDigest]
    url: str | None
    error: str | None
    time: str
    seconds: float

    @property
    def spec(self) -> TargetSpec:
        """Kind and location together; as text, what `--to` takes."""
        return TargetSpec(self.target, self.location)


def sealed_files(best_dir: Path) -> dict[str, Path]:
    """The files of a sealed model by name, after checking each against the card.

    Raises:
        BundleError: A file is missing or altered.
    """
    names = {*verify_bundle(best_dir).files, CARD_FILE}
    return {name: best_dir / name for name in card_last(dict.fromkeys(names))}


def export_all(
    best_dir: Path,
    specs: Sequence[SpecLike],
    export_json: Path,
    *,
    context: TrackingContext | None = None,
    progress: Progress | None = None,
) -> list[ExportOutcome]:
    """Exports to every target in turn, also after one that fails, and keeps the record in `export_json`.

    The record holds the latest outcome of each target and is written after each, so that an interruption loses none.

    Args:
        best_dir: The sealed model.
        specs: Where to.
        export_json: The run's record; outcomes of other targets in it are kept.
        context: What the run knows of itself, for the targets that ask.
        progress: Called as `(file name, bytes done, bytes in total)`.

    Returns:
        One outcome per spec, in order. A failure is in its `error`, not raised.

    Raises:
        BundleError: The model is incomplete or altered, so nothing was sent.
    """
    files = sealed_files(best_dir)
    outcomes = []
    for spec in specs:
        started = time.monotonic()
        try:
            receipt = build_target(spec, context).upload(files, progress=progress)
        except Exception as error:
            message = str(error) if isinstance(error, ExportError | ConfigError) else f"{type(error).__name__}: {error}"
            log.debug("export to %s:%s failed", spec.kind, spec.location, exc_info=True)
            outcome = _outcome(spec, started, error=redact(message, secret_variables()))
        else:
            outcome = _outcome(spec, started, files=receipt.files, url=receipt.url)
        outcomes.append(outcome)
        _record(export_json, outcome)
    return outcomes


def _outcome(
    spec: SpecLike,
    started: float,
    *,
    files: dict[str, FileDigest] | None = None,
    url: str | None = None,
    error: str | None = None,
) -> ExportOutcome:
    return ExportOutcome(
        target=spec.kind,
        location=spec.location,
        status="done" if error is None else "failed",
        files=files or {},
        url=url,
        error=error,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 3),
    )


def _record(export_json: Path, outcome: ExportOutcome) -> None:
    """Replaces the outcome of the same target in the record, or adds it."""
    entries = read_json(export_json).get("targets") if export_json.exists() else None
    kept = [
        entry
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
        and (entry.get("target"), entry.get("location")) != (outcome.target, outcome.location)
    ]
    write_json(export_json, {"targets": [*kept, asdict(outcome)]})
