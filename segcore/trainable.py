"""The bridge to Ray Tune: a trial's spec in, a report per epoch out. The only file here that imports ray.

Layer 6.
"""

from typing import Any

import torch
from ray import tune

from segcore.applied.verify import compact
from segcore.checkpoint.state import first_readable, read_checkpoint
from segcore.checkpoint.writer import CheckpointWriter
from segcore.data.pixels.cache_file import open_cache
from segcore.spec import TrialReport, TrialSpec
from segcore.training.cost import (
    LATENCY,
    PARAMETERS,
    measure_latency_ms,
    num_parameters,
)
from segcore.training.device import begin_trial
from segcore.training.loop import fit
from segcore.training.machine import describe_machine


def train_trial(ray_spec: dict[str, Any]) -> None:
    """Train one trial and report after each epoch; a Ray function trainable.

    `CheckpointWriter` decides which epochs are saved; each is saved before it is reported. The first report of an
    attempt also says what was read back of the run before its first step, and on which machine it trains.

    Args:
        ray_spec: A `TrialSpec` as Ray passes it; a `TrialReport` is returned through Ray for each epoch.

    Raises:
        AppliedConfigError: What was built is not what the config asks for.
        TrainingError: `fork_from` cannot be read; starting from scratch instead would not be a fork.
    """
    spec = TrialSpec.from_ray(ray_spec)
    begin_trial(spec.num_cpus, spec.gpu_fraction)
    own = first_readable(spec.checkpoints, last_epoch=spec.reached)
    start = read_checkpoint(spec.fork_from, as_fork=True) if own is None and spec.fork_from is not None else own
    resumed_from = None if own is None else own.folder
    costs: dict[str, float] = {}
    with (
        open_cache(spec.cache) as cache,
        CheckpointWriter(
            spec.folder, save_at=spec.save_at, older=spec.checkpoints, resumed_from=resumed_from
        ) as writer,
    ):
        epochs = fit(
            spec.train,
            cache,
            metric=spec.metric,
            checkpoint=start,
            num_cpus=max(1, int(spec.num_cpus)),
            device=None if spec.gpu_fraction else torch.device("cpu"),  # a visible GPU may not be the trial's
            decided_at=spec.save_at,
            on_trained=writer.begin,
        )
        for result in epochs:
            best, model = result.state.best, result.state.model
            if not costs:
                costs[PARAMETERS] = num_parameters(model)
                if spec.measure_latency:
                    costs[LATENCY] = measure_latency_ms(model, spec.train.data.image_hw)
            writer.end(result.state, is_best=result.is_best)
            is_proven = result.applied is not None
            report = TrialReport(
                number=spec.number,
                epoch=result.epoch,
                metrics={**result.metrics, **costs},
                best_epoch=best.epoch if best else result.epoch,
                finished=result.is_last,
                checkpoint_bytes=writer.num_bytes,
                note=result.note or None,
                applied=compact(result.applied or {}) if is_proven else None,
                machine=describe_machine(next(model.parameters()).device) if is_proven else None,
            )
            tune.report(report.to_ray())
            writer.reported()
