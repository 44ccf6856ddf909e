"""Training repeatedly on one batch, the core of the gate."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from segcore.data.loader import Batch
from segcore.gate.pipeline import Pipeline
from segcore.scores.curve import CurveResult
from segcore.scores.threshold_curve import curve_of
from segcore.sealed.predictor import forward

MAX_STEPS = 96
MORE_STEPS = 64
GOOD_IOU = 0.85
HIGH_IOU = 0.7
SETTLED_DROP = 0.6
"""Relative drop of the loss below which the probabilities do not yet show which threshold suits them."""

_FASTER = 5.0
_CHECK_EVERY = 8
_TAIL = 3


@dataclass(frozen=True)
class Overfit:
    """The result of overfitting one batch.

    Attributes:
        losses: The batch's loss before each step.
        curve: Scores of the batch over all thresholds, with the batch's own statistics and without dropout.
        probs: `(N, C, H, W) float32`, the batch's probabilities in [0, 1].
        seconds: Time that the steps took.
        ended_by: `overfitted`, `steps`, `time` or `diverged`.
    """

    losses: list[float]
    curve: CurveResult
    probs: Tensor
    seconds: float
    ended_by: str

    @property
    def initial_loss(self) -> float:
        """Loss before the first step."""
        return self.losses[0]

    @property
    def final_loss(self) -> float:
        """Mean loss of the last three steps."""
        return sum(self.losses[-_TAIL:]) / len(self.losses[-_TAIL:])

    @property
    def drop(self) -> float:
        """Relative drop of the loss; negative where it grew, minus infinity where the final loss is not finite."""
        if not math.isfinite(self.final_loss):
            return -math.inf
        return (self.initial_loss - self.final_loss) / max(abs(self.initial_loss), 1e-12)


class Start:
    """A snapshot of model, optimizer and learning rates that can be restored."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._model = {name: value.clone() for name, value in pipeline.model.state_dict().items()}
        self._optimizer: dict[str, Any] = copy.deepcopy(pipeline.step.optimizer.state_dict())

    def restore(self, lr_factor: float = 1.0) -> None:
        """Restore the snapshot, with every learning rate multiplied by `lr_factor`."""
        step = self._pipeline.step
        step.model.load_state_dict(self._model)
        step.optimizer.load_state_dict(copy.deepcopy(self._optimizer))
        for group in step.optimizer.param_groups:
            for name in {"lr", "peak_lr"} & group.keys():
                group[name] *= lr_factor


def overfit(pipeline: Pipeline, batch: Batch, deadline: float) -> Overfit:
    """Train on one batch until its masks are reproduced at the configured threshold, or steps or time run out.

    Half-trained probabilities lie close together, and many reasonable thresholds separate them badly. So a batch that
    is learned at its best threshold, but not yet at the configured one, gets more and larger steps.

    Args:
        pipeline: What is trained; its model and optimizer change.
        batch: The batch to overfit.
        deadline: Value of `time.perf_counter()`, in seconds, after which training stops.
    """
    started = time.perf_counter()
    torch.manual_seed(pipeline.config.train.seed)
    run = _until(pipeline, batch, [], MAX_STEPS, deadline)
    if run.ended_by == "steps" and run.curve.best("iou")[1] >= HIGH_IOU and run.drop < SETTLED_DROP:
        _faster(pipeline)
        run = _until(pipeline, batch, run.losses, MAX_STEPS + MORE_STEPS, deadline)
    return replace(run, seconds=time.perf_counter() - started)


def _until(pipeline: Pipeline, batch: Batch, losses: list[float], num_steps: int, deadline: float) -> Overfit:
    ended_by = "steps"
    while len(losses) < num_steps:
        losses = losses + take_steps(pipeline, batch, _CHECK_EVERY)
        if not math.isfinite(losses[-1]):
            ended_by = "diverged"
            break
        if _score(pipeline, batch_curve(pipeline, batch, probs_of(pipeline, batch))) >= GOOD_IOU:
            ended_by = "overfitted"
            break
        if time.perf_counter() > deadline:
            ended_by = "time"
            break
    probs = probs_of(pipeline, batch)
    return Overfit(losses, batch_curve(pipeline, batch, probs), probs, 0.0, ended_by)


def _faster(pipeline: Pipeline) -> None:
    for group in pipeline.step.optimizer.param_groups:
        for name in {"lr", "peak_lr"} & group.keys():
            group[name] *= _FASTER


def take_steps(pipeline: Pipeline, batch: Batch, count: int) -> list[float]:
    """Take up to `count` steps with dropout off, stopping at a loss that is not finite; return the loss before each.

    Args:
        pipeline: What is trained; its model and optimizer change.
        batch: The batch to train on.
        count: Largest number of steps, at least 1.
    """
    training_without_dropout(pipeline.model)
    losses: list[float] = []
    for _ in range(count):
        losses.append(float(pipeline.step(batch)))
        if not math.isfinite(losses[-1]):
            break
    return losses


def training_without_dropout(model: nn.Module) -> None:
    """Set training mode, except for dropout and stochastic depth, which would prevent overfitting a batch."""
    model.train()
    for module in model.modules():
        if isinstance(module, _DropoutNd) or type(module).__name__ in ("DropPath", "StochasticDepth"):
            module.eval()


def probs_of(pipeline: Pipeline, batch: Batch) -> Tensor:
    """The batch's probabilities, `(N, C, H, W) float32` on the CPU; NaN becomes 0."""
    training_without_dropout(pipeline.model)
    step = pipeline.step
    answers = []
    with torch.no_grad():
        for images, _ in step.parts(batch):
            logits = forward(step.model, images, step.precision)
            answers.append(pipeline.task.probs(logits).nan_to_num(nan=0.0).cpu())
    return torch.cat(answers)


def batch_curve(pipeline: Pipeline, batch: Batch, probs: Tensor) -> CurveResult:
    """Scores of a batch over all thresholds.

    Args:
        pipeline: Says what the task is.
        batch: Holds the masks, `(N, 1, H, W)`; values above 0 are foreground.
        probs: `(N, C, H, W) float32` in [0, 1].
    """
    curve = curve_of(pipeline.task)
    curve.update(probs, (batch.targets > 0).byte())  # other mask values are reported by a probe
    return curve.compute()


def applied_threshold(pipeline: Pipeline, curve: CurveResult) -> float:
    """The configured threshold; for `auto` the curve's best one."""
    return curve.best("iou")[0] if pipeline.threshold == "auto" else float(pipeline.threshold)


def _score(pipeline: Pipeline, curve: CurveResult) -> float:
    return curve.at(applied_threshold(pipeline, curve)).iou
