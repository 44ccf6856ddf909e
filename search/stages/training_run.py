"""One training run without a search and without Ray: the same loop, the same checkpoints, the same sealed model."""

import logging
import os

from search.errors import RunError
from search.runs.folder import timed
from search.runs.journal import EventLog, epochs_by_trial, read_events
from search.runs.paths import trial_dirname
from search.runs.tables import write_epochs
from search.stages.work import Work
from segcore.applied.verify import compact
from segcore.checkpoint.state import BestModel, first_readable
from segcore.checkpoint.writer import CheckpointWriter
from segcore.data.pixels.cache_file import open_cache
from segcore.training.device import begin_trial
from segcore.training.loop import fit
from segcore.training.machine import describe_machine

log = logging.getLogger("segsearch")


def train_run(work: Work) -> BestModel:
    """Trains what is left of the run, and returns its best epoch.

    Each epoch is saved before it is reported, and earlier checkpoints are removed after that, so that an interruption
    costs one epoch at most, and each epoch is reported once.
    """
    config, paths = work.config, work.paths
    num_cpus = len(os.sched_getaffinity(0))
    begin_trial(num_cpus, gpu_fraction=1.0)
    metric, num_epochs = config.search.metric, config.train.epochs
    events = EventLog(paths.events)
    older = paths.trial_checkpoints(0)
    reached = max(epochs_by_trial(read_events(paths.events)).get(0, {}), default=0)
    checkpoint = first_readable(older, last_epoch=reached)  # an epoch that was saved but not reported has no row
    resumed_from = None if checkpoint is None else checkpoint.folder
    folder = paths.tune / paths.next_session() / trial_dirname(0)
    every_epoch = range(1, num_epochs + 1)
    with (
        timed(paths, "train"),
        open_cache(work.cache_path) as cache,
        CheckpointWriter(folder, save_at=every_epoch, older=older, resumed_from=resumed_from) as writer,
    ):
        epochs = fit(
            work.search.base,
            cache,
            metric=metric,
            checkpoint=checkpoint,
            num_cpus=num_cpus,
            on_trained=writer.begin,
        )
        for result in epochs:
            writer.end(result.state, is_best=result.is_best)
            if result.applied is not None:
                device = next(result.state.model.parameters()).device
                events.applied(0, compact(result.applied), describe_machine(device))
            events.epoch(0, result.epoch, {**result.metrics, "finished": result.is_last})
            writer.reported()
            if result.note:
                log.info("%s", result.note)
            write_epochs(read_events(paths.events), paths.epochs)
            log.info(
                "epoch %d/%d  %s %.4f  threshold %.3f  train/loss %.4f%s",
                result.epoch, num_epochs, metric, result.metrics[metric], result.metrics["val/threshold"],
                result.metrics["train/loss"], "  best" if result.is_best else "",
            )  # fmt: skip
    events.close()
    found = first_readable(paths.trial_checkpoints(0))
    if found is None or found.best is None:
        raise RunError(f"{paths.name!r} trained no epoch")
    return found.best
