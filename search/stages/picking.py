"""Sealing a trial that the user chooses, such as another point of a search's front, beside the run's own model."""

import logging
from pathlib import Path

from rich.console import Console

from search.errors import RunError
from search.runs.folder import stored_config
from search.runs.journal import dropped_trials, read_events
from search.runs.paths import RunPaths
from search.runs.reading import Run
from search.show.quoting import headline
from search.space.search import Search
from search.stages.checking import same_data
from search.stages.job import trial_configs
from search.stages.sealing import applied_of, newest_readable, seal
from segcore.data.pixels.cache_file import open_cache
from segcore.sealed.card import Card, Origin

log = logging.getLogger("segsearch")


def seal_trial(paths: RunPaths, number: int, folder: Path, console: Console) -> Card:
    """Seals the best epoch of one trial into a folder and returns its card; the run stays as it is.

    Args:
        paths: A search whose tables are written.
        number: The trial.
        folder: Where the bundle goes: a new folder, or an empty one.
        console: Where progress is shown.

    Raises:
        RunError: The run has no such trial, it left no model behind, or the folder holds something.
    """
    run = Run(paths)
    if run.record.kind != "search":
        raise RunError(f"{paths.name!r} is one training run, not a search; its model is in {paths.best}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder}: something is there already; name a new folder, or an empty one")
    best = newest_readable(paths, number)
    config = stored_config(paths)
    if best is None and number in dropped_trials(read_events(paths.events)):
        raise RunError(
            f"trial {number} of {paths.name!r} has no model any more: its checkpoint was dropped to keep all of them "
            f"within resources.checkpoints_gb={config.resources.checkpoints_gb}; valid: {_sealable(run)}. "
            "A run that is to keep more needs a higher value, or null, from its start"
        )
    if best is None or run.trials.get(number) is None:
        raise RunError(f"{paths.name!r} has no model of a trial {number}; valid: {_sealable(run)}")
    index, cache_path = same_data(config, paths, console)
    origin = Origin(run=paths.name, trial=number, epoch=best.epoch, trials=len(run.trials))
    with open_cache(cache_path) as cache:
        train = trial_configs(Search.of(config), paths)[number]
        proof = applied_of(paths, number)
        card = seal(folder, best, train, index, cache, origin, chosen_on=config.search.metric, applied=proof)
    log.info("sealed trial %d, epoch %d in %s", number, best.epoch, folder)
    log.info("%s", headline(card))
    return card


def _sealable(run: Run) -> str:
    known = [str(row.number) for row in run.trials if newest_readable(run.paths, row.number) is not None]
    return ", ".join(known) or "none yet"
