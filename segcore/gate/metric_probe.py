"""The probe of the metric: it is called on predictions whose score is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from segcore.gate.evidence import Evidence
from segcore.gate.report import Finding


def probe_metric(evidence: Evidence) -> Iterator[Finding]:
    """The metric must give the right IoU (or Dice) for cases whose score is known."""
    pipeline = evidence.pipeline
    threshold = 0.5 if pipeline.threshold == "auto" else pipeline.threshold
    cases = [_bars(0, 8, 0, 8), _bars(4, 12, 0, 8), _bars(0, 8, 0, 2), _bars(0, 6, 0, 8)]
    overlaps = [(8, 8), (4, 12), (2, 8), (6, 8)]  # intersection and union, in columns
    iou = [inter / union for inter, union in overlaps]
    dice = [2 * value / (1 + value) for value in iou]
    found = [_answer(pipeline.metric, logits, targets, threshold) for logits, targets in cases]
    if any(np.allclose(found, known, atol=0.02) for known in (iou, dice)):
        return
    swapped = [_answer(pipeline.metric, targets, logits, threshold) for logits, targets in cases]
    numbers: dict[str, float | int | str] = {
        f"IoU {known:.3g} came out as": value for known, value in zip(iou, found, strict=True)
    }
    if any(np.allclose(swapped, known, atol=0.02) for known in (iou, dice)):
        yield Finding(
            "metric_swapped", "error", "the metric is called with prediction and mask in each other's place", numbers,
            "pass the logits first and the mask second",
        )  # fmt: skip
        return
    yield Finding(
        "metric_wrong", "error", "the metric gives neither the IoU nor the Dice of predictions that are known", numbers,
        "compare it with segcore.scores.threshold_curve.ThresholdCurve",
    )  # fmt: skip


def _bars(first: int, last: int, mask_first: int, mask_last: int) -> tuple[Tensor, Tensor]:
    """Logits and target, `(1, 1, 16, 16) float32` each, that are foreground in the given columns."""
    logits = torch.full((1, 1, 16, 16), -12.0)
    logits[..., first:last] = 12.0
    targets = torch.zeros(1, 1, 16, 16)
    targets[..., mask_first:mask_last] = 1.0
    return logits, targets


def _answer(metric: Callable[[Tensor, Tensor, float], float], first: Tensor, second: Tensor, threshold: float) -> float:
    """The metric's value; NaN where it raises an error."""
    try:
        return float(metric(first, second, threshold))
    except Exception:  # a user's metric may raise anything
        return float("nan")
