"""One training run without a search and without Ray: the same loop, the same checkpoints, the same sealed model."""

import logging
import os
import shutil
from pathlib import Path

import torch

from search.config import SearchConfig
from search.errors import RunError
from search.events import EventLog, read_events
from search.paths import RunPaths, trial_dirname
from search.results import write_epochs
from search.runs import timed
from segcore.checkpoint import BestModel, first_readable, read_best, save_checkpoint
from segcore.data.cache import open_cache
from segcore.training import fit

log = logging.getLogger("segsearch")


def train_run(config: SearchConfig, paths: RunPaths, cache_path: Path) -> BestModel:
    """Trains what is left of the run, and returns its best epoch.

    Each epoch is saved before the earlier ones are removed, so that a stop, whatever stopped it, costs one epoch.
    """
    num_cpus = len(os.sched_getaffinity(0))
    torch.set_num_threads(num_cpus)
    metric, num_epochs = config.search.metric, config.train.epochs
    events = EventLog(paths.events)
    checkpoint = first_readable(paths.trial_checkpoints(0))
    folder = paths.tune / paths.next_session() / trial_dirname(0)
    with timed(paths, "train"), open_cache(cache_path) as cache:
        epochs = fit(config.train_config(), cache, metric=metric, checkpoint=checkpoint, num_cpus=num_cpus)
        for result in epochs:
            events.epoch(0, result.epoch, {**result.metrics, "finished": result.is_last})
            checkpoint = folder / f"checkpoint_{result.epoch:06d}"
            save_checkpoint(checkpoint, result.state)
            for older in paths.trial_checkpoints(0)[1:]:
                shutil.rmtree(older)
            write_epochs(read_events(paths.events), paths.epochs)
            log.info(
                "epoch %d/%d  %s %.4f  threshold %.3f  train/loss %.4f%s",
                result.epoch, num_epochs, metric, result.metrics[metric], result.metrics["val/threshold"],
                result.metrics["train/loss"], "  best" if result.is_best else "",
            )  # fmt: skip
    events.close()
    if checkpoint is None:
        raise RunError(f"{paths.name!r} trained no epoch")
    return read_best(checkpoint)
