"""Hands a sealed model over: every target is tried, each copy is verified, and `export.json` says what came of it.

One file a target; `TARGETS` is the registry that the config's `export.targets` and `segsearch export --to` share.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from search.errors import ExportError
from search.export.local import LocalTarget
from search.export.target import (
    FileDigest,
    Progress,
    Receipt,
    SpecLike,
    Target,
    TargetSpec,
    TrackingContext,
    card_last,
    redact,
)
from search.runs.paths import read_json, write_json
from segcore.errors import ConfigError
from segcore.sealed.card import CARD_FILE, verify_bundle

__all__ = [
    "TARGETS",
    "ExportOutcome",
    "Progress",
    "Receipt",
    "Target",
    "TargetSpec",
    "TrackingContext",
    "build_target",
    "check_targets",
    "export_all",
    "parse_target",
    "sealed_files",
]

log = logging.getLogger("segsearch")


def _local(location: str, context: TrackingContext) -> Target:
    return LocalTarget(location)


def _yandex_disk(location: str, context: TrackingContext) -> Target:
    from search.export.yandex_disk import YandexDiskTarget

    return YandexDiskTarget(location)


def _wandb_artifact(location: str, context: TrackingContext) -> Target:
    from search.export.wandb_artifact import WandbArtifactTarget

    return WandbArtifactTarget(location, context)


TARGETS: dict[str, Callable[[str, TrackingContext], Target]] = {
    "local": _local,
    "yandex_disk": _yandex_disk,
    "wandb_artifact": _wandb_artifact,
}
"""Builders by kind; a target's own module, with the client library behind it, is imported when it is built."""


@dataclass(frozen=True)
class ExportOutcome:
    """What became of one target.

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


def parse_target(text: str) -> TargetSpec:
    """Reads `kind:location`, as in `yandex_disk:/segsearch/attention` or `local:/tmp/model`.

    Raises:
        ConfigError: The kind is unknown or the location is missing.
    """
    kind, colon, location = text.partition(":")
    if kind.strip() not in TARGETS:
        raise ConfigError(f"an export target is KIND:LOCATION with a kind of {_kinds()}, found {text!r}")
    if not colon or not location.strip():
        raise ConfigError(f"export target {text!r} lacks its location, as in {kind.strip()}:LOCATION")
    return TargetSpec(kind.strip(), location.strip())


def build_target(spec: SpecLike, **context: Any) -> Target:
    """Builds the target of a spec; nothing is sent yet.

    Args:
        spec: Kind and location.
        **context: Fields of `TrackingContext` (project, entity, group, mode, run_dir), for `wandb_artifact`; the
            other kinds take no notice.

    Raises:
        ConfigError: The kind is unknown, or the location is not one that this kind can have.
    """
    if spec.kind not in TARGETS:
        raise ConfigError(f"unknown export target {spec.kind!r}; valid: {_kinds()}")
    try:
        return TARGETS[spec.kind](spec.location, TrackingContext(**context))
    except ExportError as error:
        raise ConfigError(str(error)) from error


def check_targets(specs: Sequence[SpecLike], **context: Any) -> list[str]:
    """What would stop an export that is still hours away: a missing token, a folder in the way. No request is sent.

    Returns:
        One message a target that is not ready; empty if all are.
    """
    problems = []
    for spec in specs:
        try:
            build_target(spec, **context).check()
        except (ConfigError, ExportError) as error:
            problems.append(redact(f"export target {spec.kind}:{spec.location}: {error}"))
    return problems


def sealed_files(best_dir: Path) -> dict[str, Path]:
    """The files of a sealed model by name, after checking each against the card.

    Raises:
        BundleError: A file is missing or altered.
    """
    names = {*verify_bundle(best_dir).get("files", {}), CARD_FILE}
    return {name: best_dir / name for name in card_last(dict.fromkeys(names))}


def export_all(
    best_dir: Path,
    specs: Sequence[SpecLike],
    export_json: Path,
    *,
    context: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[ExportOutcome]:
    """Exports to every target in turn, going on after one that fails, and keeps the record in `export_json`.

    The record holds the latest outcome of each target and is written after each, so that an interruption loses none.

    Args:
        best_dir: The sealed model.
        specs: Where to.
        export_json: The run's record; outcomes of other targets in it are kept.
        context: Keyword arguments for `build_target`.
        progress: Called as `(file name, bytes done, bytes in total)`.

    Returns:
        One outcome a spec, in order. A failure is in its `error`, not raised.

    Raises:
        BundleError: The model is incomplete or altered, so nothing was sent.
    """
    files = sealed_files(best_dir)
    outcomes = []
    for spec in specs:
        started = time.monotonic()
        try:
            receipt = build_target(spec, **(context or {})).upload(files, progress=progress)
        except Exception as error:
            message = str(error) if isinstance(error, ExportError | ConfigError) else f"{type(error).__name__}: {error}"
            log.debug("export to %s:%s failed", spec.kind, spec.location, exc_info=True)
            outcome = _outcome(spec, started, error=redact(message))
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
    record: dict[str, Any] = read_json(export_json) if export_json.exists() else {}
    entries = record.get("targets")
    kept = [
        entry
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict)
        and (entry.get("target"), entry.get("location")) != (outcome.target, outcome.location)
    ]
    write_json(export_json, {"targets": [*kept, asdict(outcome)]})


def _kinds() -> str:
    return ", ".join(TARGETS)
