"""The bridge to Ray Tune: a trial's spec in, a report per epoch out. The only file here that imports ray."""

import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from ray import tune

from segcore.checkpoint import first_readable, save_checkpoint
from segcore.config import TrainConfig
from segcore.cost import LATENCY, PARAMETERS, measure_latency_ms, num_parameters
from segcore.data.cache import open_cache
from segcore.training import fit

STATE_INTERVAL_S = 30.0
"""A trial that found no better epoch still saves its state this often, so that a resume repeats little."""


def train_trial(spec: dict[str, Any]) -> None:
    """Trains one trial and reports after each epoch; a Ray function trainable.

    Args:
        spec: `number`, `train` (a dumped `TrainConfig`), `cache` (path of the Arrow file), `metric`,
            `num_cpus`, `gpu_fraction` and `checkpoints` (folders to go on from, newest first; the first one
            that can be read is used); and, where they apply, `reached` (the last epoch whose report arrived: a
            checkpoint of a later one is passed over, so that its report is made again), `save_at` (epochs that
            are to be saved whatever they are worth), `fork_from` (another trial's checkpoint, to go on from
            when there is none of its own) and `measure_latency` (true: after the first epoch trained here).

    A report carries the metrics of `segcore.training.EpochResult` and `number`, `epoch`, `best_epoch`,
    `finished` (true in the last epoch, so that a trial that was stopped early can be told from a complete one),
    `cost/parameters` and, where it is measured, `cost/latency_ms`.
    A checkpoint goes with each epoch that is the best so far, with those of `save_at`, and at least every
    `STATE_INTERVAL_S` seconds.

    Raises:
        TrainingError: `fork_from` cannot be read; starting afresh instead would not be a fork.
    """
    release_memory()
    torch.set_num_threads(max(1, int(spec["num_cpus"])))
    if torch.cuda.is_available() and 0 < spec["gpu_fraction"] < 1:
        torch.cuda.set_per_process_memory_fraction(float(spec["gpu_fraction"]))
    config = TrainConfig.model_validate(spec["train"])
    checkpoint = first_readable([Path(folder) for folder in spec["checkpoints"]], last_epoch=spec.get("reached"))
    is_fork = checkpoint is None and spec.get("fork_from") is not None
    if is_fork:
        checkpoint = Path(spec["fork_from"])
    save_at = frozenset(spec.get("save_at", ()))
    last_save = time.monotonic()
    costs: dict[str, float] = {}
    with open_cache(Path(spec["cache"])) as cache:
        epochs = fit(
            config,
            cache,
            metric=spec["metric"],
            checkpoint=checkpoint,
            as_fork=is_fork,
            num_cpus=max(1, int(spec["num_cpus"])),
        )
        for result in epochs:
            best = result.state.best
            if not costs:
                costs[PARAMETERS] = num_parameters(result.state.model)
                if spec.get("measure_latency"):
                    costs[LATENCY] = measure_latency_ms(result.state.model, config.data.image_hw)
            report = {
                **result.metrics,
                **costs,
                "number": spec["number"],
                "epoch": result.epoch,
                "best_epoch": best.epoch if best else result.epoch,
                "finished": result.is_last,
            }
            is_wanted = result.is_best or result.epoch in save_at
            if not is_wanted and time.monotonic() - last_save < STATE_INTERVAL_S:
                tune.report(report)
                continue
            with tempfile.TemporaryDirectory(prefix="segsearch-") as folder:
                save_checkpoint(Path(folder), result.state)
                tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))
            last_save = time.monotonic()


def release_memory() -> None:
    """Drops what an earlier trial of a reused actor has left behind."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
