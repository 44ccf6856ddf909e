"""Probes of the result of overfitting one batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from segcore.gate.evidence import Evidence
from segcore.gate.overfit import (
    GOOD_IOU,
    HIGH_IOU,
    SETTLED_DROP,
    Overfit,
    Start,
    applied_threshold,
    take_steps,
)
from segcore.gate.pipeline import Pipeline
from segcore.gate.report import Finding

TrainingProbe = Callable[[Evidence, Overfit, Start], Iterator[Finding]]

LEARNING_DROP = 0.25
"""Relative drop of the loss from which a batch counts as being learned."""

_TRIAL_STEPS = 16
_TRIAL_DROP = 0.15
_FACTORS = (10.0, 100.0, 1e3, 1e4, 1e5)
_FAR = 100.0
_POOR_IOU = 0.5
_WORTHWHILE_DROP = 0.6
_THRESHOLD_LOSS = 0.1
_THRESHOLD_RUIN = 0.25


def probe_threshold(evidence: Evidence, run: Overfit, start: Start) -> Iterator[Finding]:
    """A model that has learned the batch must also show it at the configured threshold.

    Args:
        evidence: The pipeline and its batch.
        run: The result of overfitting the batch.
        start: The snapshot from before overfitting.
    """
    best_threshold, best_iou, _ = run.curve.best("iou")
    threshold = applied_threshold(evidence.pipeline, run.curve)
    iou = run.curve.at(threshold).iou
    lost = best_iou - iou
    if run.ended_by != "steps" or run.drop < SETTLED_DROP or best_iou < HIGH_IOU or lost < _THRESHOLD_LOSS:
        return
    yield Finding(
        "threshold_far", "error" if lost >= _THRESHOLD_RUIN else "warning",
        "the model has learned the batch, but the configured threshold hides it",
        {"threshold": threshold, "IoU there": iou, "best threshold": best_threshold, "best IoU": best_iou},
        f"set threshold: auto, or about {best_threshold:.2f}",
    )  # fmt: skip


def probe_learning_rate(evidence: Evidence, run: Overfit, start: Start) -> Iterator[Finding]:
    """Where the loss does not fall, find learning rates at which it does.

    Args:
        evidence: The pipeline and its batch.
        run: The result of overfitting the batch.
        start: The snapshot from before overfitting, restored before each attempt.
    """
    if is_learning(run):
        return
    pipeline = evidence.pipeline
    start.restore()
    rate = max(float(group.get("peak_lr", group["lr"])) for group in pipeline.step.optimizer.param_groups)
    numbers: dict[str, float | int | str] = {
        "optimizer.lr": rate, "loss before": run.initial_loss, "loss after": run.final_loss, "steps": len(run.losses)
    }  # fmt: skip
    best_iou = run.curve.best("iou")[1]
    has_exploded = run.ended_by == "diverged" or run.drop < -0.02
    for sign in (-1, 1) if has_exploded else (1, -1):
        working = _working_factors(evidence, start, [factor**sign for factor in _FACTORS])
        if not working:
            continue
        numbers |= {"lowest rate that works": rate * min(working), "highest": rate * max(working)}
        advice = f"set optimizer.lr to about {3 * rate * min(working):.0e}"
        yield from _too_high(run, numbers, advice) if sign < 0 else _too_low(pipeline, run, numbers, advice, working)
        return
    if run.ended_by != "time":
        yield Finding(
            "cannot_overfit", "warning", "one batch could not be overfitted, at this learning rate or any other",
            {**numbers, "best IoU": best_iou},
            "look at the picture: do the masks show what the images show? Then at model and loss",
        )  # fmt: skip


def _too_high(run: Overfit, numbers: dict[str, float | int | str], advice: str) -> Iterator[Finding]:
    is_certain = run.drop < 0 or run.curve.best("iou")[1] < _POOR_IOU
    yield Finding(
        "lr_too_high", "error" if is_certain else "warning",
        "the learning rate is far too high: the batch is not learned, and with a lower one it is" if is_certain
        else "the learning rate seems too high: with a lower one the batch is learned faster", numbers, advice,
    )  # fmt: skip


def _too_low(
    pipeline: Pipeline, run: Overfit, numbers: dict[str, float | int | str], advice: str, working: list[float]
) -> Iterator[Finding]:
    projected = run.drop / len(run.losses) * pipeline.total_steps
    if min(working) < _FAR or projected >= _WORTHWHILE_DROP:
        return
    is_certain = projected < _TRIAL_DROP
    yield Finding(
        "lr_too_low", "error" if is_certain else "warning",
        f"the learning rate is far too low: the run's {pipeline.total_steps} steps will not get anywhere" if is_certain
        else "the learning rate is very low: one a hundred times as high learns the batch at once",
        {**numbers, "share of the loss that the run would take away": max(0.0, projected)}, advice,
    )  # fmt: skip


def is_learning(run: Overfit) -> bool:
    """Whether the batch is being learned."""
    return run.ended_by == "overfitted" or run.drop >= LEARNING_DROP or run.curve.best("iou")[1] >= GOOD_IOU


def _working_factors(evidence: Evidence, start: Start, factors: list[float]) -> list[float]:
    """Factors of the learning rate at which the loss soon falls: the first one found, and lower ones that work too."""
    working: list[float] = []
    for factor in factors:
        if time.perf_counter() > evidence.deadline:
            break
        start.restore(factor)
        losses = take_steps(evidence.pipeline, evidence.batch, _TRIAL_STEPS)
        drop = (losses[0] - losses[-1]) / max(abs(losses[0]), 1e-12)
        if math.isfinite(drop) and drop >= _TRIAL_DROP:
            working.append(factor)
        if working and (factor > 1.0 or working[-1] != factor):
            break
    return working


TRAINING_PROBES: dict[str, TrainingProbe] = {
    "threshold": probe_threshold,
    "learning rate": probe_learning_rate,
}
"""Probes by what they examine, in the order in which they run."""
