"""The bridge to Ray Tune: a trial's spec in, a report per epoch out. The only file here that imports ray.

Layer 6.
"""

import json
from pathlib import Path
from typing import Any

import torch
from ray import tune

from segcore.applied.verify import compact
from segcore.checkpoint.state import first_readable
from segcore.checkpoint.writer import CheckpointWriter
from segcore.config import TrainConfig
from segcore.data.pixels.cache_file import open_cache
from segcore.training.cost import (
    LATENCY,
    PARAMETERS,
    measure_latency_ms,
    num_parameters,
)
from segcore.training.device import begin_trial
from segcore.training.loop import EpochResult, fit
from segcore.training.machine import describe_machine


def train_trial(spec: dict[str, Any]) -> None:
    """Trains one trial and reports after each epoch; a Ray function trainable.

    Args:
        spec: `number`, `train` (a dumped `TrainConfig`), `cache` (path of the Arrow file), `metric`,
            `num_cpus`, `gpu_fraction`, `folder` (the trial's own, for its checkpoints) and `checkpoints`
            (its earlier ones, newest first; the first one that can be read is gone on from); and, where they apply,
            `reached` (the last epoch whose report arrived: a checkpoint of a later one is passed over, so that
            its report is made again), `save_at` (epochs that are to be saved whatever they are worth),
            `fork_from` (another trial's checkpoint, to go on from when there is none of its own) and
            `measure_latency` (true: after the first epoch trained here).

    A report carries the metrics of `segcore.training.loop.EpochResult` and `number`, `epoch`, `best_epoch`,
    `finished` (true in the last epoch, so that a trial that was stopped early can be told from a complete one),
    `checkpoint_bytes` (of the newest checkpoint of this trial), `note` where there is one, `cost/parameters` and,
    where it is measured, `cost/latency_ms`. The first one that is made here also says as JSON what was found to be
    `applied` of the config, and on which `machine`. Which epochs are saved says `CheckpointWriter`; each is saved
    before it is reported.

    Raises:
        AppliedConfigError: What was built is not what the config asks for.
        TrainingError: `fork_from` cannot be read; starting afresh instead would not be a fork.
    """
    begin_trial(spec["num_cpus"], spec["gpu_fraction"])
    config = TrainConfig.model_validate(spec["train"])
    older = [Path(folder) for folder in spec["checkpoints"]]
    own = first_readable(older, last_epoch=spec.get("reached"))
    is_fork = own is None and spec.get("fork_from") is not None
    costs: dict[str, float] = {}
    with (
        open_cache(Path(spec["cache"])) as cache,
        CheckpointWriter(
            Path(spec["folder"]), save_at=spec.get("save_at", ()), older=older, resumed_from=own
        ) as writer,
    ):
        epochs = fit(
            config,
            cache,
            metric=spec["metric"],
            checkpoint=Path(spec["fork_from"]) if is_fork else own,
            as_fork=is_fork,
            num_cpus=max(1, int(spec["num_cpus"])),
            device=None if spec["gpu_fraction"] else torch.device("cpu"),  # a GPU may be seen that is not the trial's
            decided_at=spec.get("save_at", ()),
            on_trained=writer.begin,
        )
        for result in epochs:
            best = result.state.best
            if not costs:
                costs[PARAMETERS] = num_parameters(result.state.model)
                if spec.get("measure_latency"):
                    costs[LATENCY] = measure_latency_ms(result.state.model, config.data.image_hw)
            writer.end(result.state, is_best=result.is_best)
            tune.report(
                {
                    **result.metrics,
                    **costs,
                    "number": spec["number"],
                    "epoch": result.epoch,
                    "best_epoch": best.epoch if best else result.epoch,
                    "finished": result.is_last,
                    "checkpoint_bytes": writer.num_bytes,
                    **({"note": result.note} if result.note else {}),
                    **(_proof(result) if result.applied is not None else {}),
                }
            )
            writer.reported()


def _proof(result: EpochResult) -> dict[str, str]:
    device = next(result.state.model.parameters()).device
    return {"applied": json.dumps(compact(result.applied or {})), "machine": json.dumps(describe_machine(device))}
