"""Sending a run's sealed model to the config's targets: checked before the run, done at its end, repeated on demand."""

import logging
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from search.commands import run_command
from search.config.tree import SearchConfig
from search.errors import RunError
from search.export.registry import check_targets, parse_target
from search.export.sending import ExportOutcome, export_all
from search.export.target import SpecLike, TrackingContext
from search.runs.folder import (
    held,
    logged,
    stored_config,
    timed,
    update_run,
)
from search.runs.paths import RunPaths, find_run
from search.runs.records import read_exports, read_run
from search.terminal import transfer_bars
from segcore.errors import ConfigError
from segcore.sealed.card import CARD_FILE, read_card, verify_bundle

log = logging.getLogger("segsearch")

EXIT_DONE, EXIT_EXPORT_FAILED = 0, 3


def require_targets(config: SearchConfig) -> None:
    """Refuses an export that could not work, before hours of training are spent.

    Raises:
        ConfigError: A target lacks its token, or something is in its way.
    """
    problems = check_targets(config.export.targets, export_context(config, None))
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        targets = [word for spec in config.export.targets for word in ("--to", f"{spec.kind}:{spec.location}")]
        later = run_command("export", Path(config.results) / config.name, *targets)
        raise ConfigError(
            f"export.targets: not ready\n{lines}\nTo run without an export now: --set 'export.targets=[]', "
            f"and later: {later}"
        )


def export_run(
    config: SearchConfig, paths: RunPaths, console: Console, targets: Sequence[SpecLike] | None = None
) -> int:
    """Exports the sealed model to the config's targets, or to those given; returns the exit code.

    A target that fails leaves the sealed model and the other targets as they are.

    Args:
        config: The run's config.
        paths: The run.
        console: Where progress is shown.
        targets: Where to export; None takes the config's targets.
    """
    specs = config.export.targets if targets is None else targets
    failed = _send(config, paths, console, specs, asked=targets is not None) if specs else []
    _record_end(paths, failed)
    return EXIT_EXPORT_FAILED if failed else EXIT_DONE


def targets_without_model(config: SearchConfig, paths: RunPaths) -> list[SpecLike]:
    """The config's targets that do not hold the sealed model as it is now, by the run's record."""
    files = read_card(paths.best).files
    holding = {
        (export.target, export.location)
        for export in read_exports(paths)
        if export.status == "done"
        and all(name in export.files and export.files[name].sha256 == entry.sha256 for name, entry in files.items())
    }
    return [spec for spec in config.export.targets if (spec.kind, spec.location) not in holding]


def export_again(name_or_path: str, results: Path, targets: list[str], console: Console) -> int:
    """Exports a run's sealed model again, to the config's targets or to others; returns the exit code.

    Only the run's own targets change its recorded status: a run that can be resumed stays so, and sending the model
    elsewhere does not affect the run.

    Args:
        name_or_path: The run.
        results: Folder of the runs.
        targets: Others than the config's, as `kind:location`.
        console: Where progress is shown.

    Raises:
        RunError: No such run, or it has no sealed model.
        ConfigError: A target cannot be parsed, or there is none.
    """
    paths = find_run(name_or_path, results)
    if not (paths.best / CARD_FILE).is_file():
        raise RunError(f"{paths.name!r} has no sealed model yet; continue with: {run_command('resume', paths.root)}")
    config = stored_config(paths)
    specs: Sequence[SpecLike] = [parse_target(text) for text in targets] or config.export.targets
    if not specs:
        raise ConfigError(f"{paths.config}: export.targets is empty; name one with --to, e.g. --to local:/models/birds")
    verify_bundle(paths.best)
    with held(paths), logged(paths):
        failed = _send(config, paths, console, specs, asked=bool(targets))
        if not targets and read_run(paths).status in ("done", "export_failed"):
            _record_end(paths, failed)
    return EXIT_EXPORT_FAILED if failed else EXIT_DONE


def export_context(config: SearchConfig, paths: RunPaths | None) -> TrackingContext:
    """What a target may need to know about the run."""
    wandb = config.tracking.wandb
    return TrackingContext(
        mode=wandb.mode,
        project=wandb.project,
        entity=wandb.entity,
        group=wandb.group or config.name,
        run_dir=paths.root if paths else None,
    )


def _send(
    config: SearchConfig, paths: RunPaths, console: Console, specs: Sequence[SpecLike], *, asked: bool
) -> list[ExportOutcome]:
    """Exports to all, says how each went, and returns those that failed.

    Args:
        config: The run's config.
        paths: The run.
        console: Where progress is shown.
        specs: Where to.
        asked: Whether the targets are others than the config's, which the command to try again has to name.
    """
    with timed(paths, "export"), transfer_bars(console) as advance:
        outcomes = export_all(paths.best, specs, paths.export, context=export_context(config, paths), progress=advance)
    for outcome in outcomes:
        _log_outcome(outcome)
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        named = [word for outcome in failed for word in ("--to", str(outcome.spec))] if asked else []
        log.error(
            "the sealed model is safe in %s; try again with: %s",
            paths.best, run_command("export", paths.root, *named),
        )  # fmt: skip
    return failed


def _record_end(paths: RunPaths, failed: Sequence[ExportOutcome]) -> None:
    if failed:
        update_run(paths, status="export_failed", error="; ".join(f"{o.spec}: {o.error}" for o in failed))
    else:
        update_run(paths, status="done")


def _log_outcome(outcome: ExportOutcome) -> None:
    if outcome.error:
        log.error("export to %s failed: %s", outcome.spec, outcome.error)
    else:
        log.info("exported to %s", outcome.spec)
