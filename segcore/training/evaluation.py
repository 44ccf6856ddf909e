"""A model's scores on a split: one pass gives the loss, the exact curve over all thresholds, and a few examples."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import nn

from segcore.data.loader import Loader
from segcore.errors import NonFiniteLossError
from segcore.scores.curve import CurveResult
from segcore.scores.scorer import IMAGE_SCORERS, LOSS
from segcore.scores.threshold_curve import curve_of
from segcore.sealed.predictor import Predictor

NUM_OVERLAYS = 6


@dataclass(frozen=True)
class Evaluation:
    """One pass over a split: mean loss, the threshold curve, and a few images with their probabilities."""

    loss: float
    curve: CurveResult
    overlays: dict[str, np.ndarray] = field(default_factory=dict)


@torch.inference_mode()
def evaluate(
    predictor: Predictor,
    loader: Loader,
    loss_fn: nn.Module,
    threshold: float | Literal["auto"] = "auto",
) -> Evaluation:
    """One pass over a loader: mean loss, exact threshold curve, and `NUM_OVERLAYS` evenly spaced examples.

    Args:
        predictor: The model, which is put into eval mode, and what it means.
        loader: The split.
        loss_fn: The mean over images of a batch's loss, from logits and targets.
        threshold: The configured one, counted exactly beside the curve's own.

    Raises:
        NonFiniteLossError: The loss became NaN or infinite.
    """
    predictor.model.eval()
    task, device = predictor.task, predictor.device
    curve = curve_of(task, device=device, threshold=threshold)
    total = torch.zeros((), dtype=torch.float64, device=device)
    wanted = set(np.linspace(0, loader.num_samples - 1, min(NUM_OVERLAYS, loader.num_samples)).round().astype(int))
    kept = []  # on the device, so that no batch is waited for
    position = 0
    for batch in loader:
        images = batch.images.to(device, non_blocking=True)
        masks = batch.targets.to(device, non_blocking=True)
        logits = predictor.logits(images)
        total += loss_fn(logits, task.targets(masks)).double() * len(images)
        probs = task.probs(logits)  # (N, C, H, W) float32
        curve.update(probs, masks)
        for offset in [i for i in range(len(images)) if position + i in wanted]:
            kept.append((images[offset].permute(1, 2, 0).clone(), masks[offset, 0].clone(), probs[offset, 0].half()))
        position += len(images)
    if not math.isfinite(total.item()):
        raise NonFiniteLossError(f"the validation loss became {total.item()}")
    columns = (torch.stack(column).cpu().numpy() for column in zip(*kept, strict=True))
    overlays = dict(zip(("images", "targets", "probs"), columns, strict=True))
    return Evaluation(total.item() / max(position, 1), curve.compute(), overlays)


def score(evaluation: Evaluation, threshold: float | Literal["auto"]) -> dict[str, float]:
    """The validation metrics at the threshold that applies, beside what `auto` gives."""
    curve = evaluation.curve
    auto_threshold, auto_iou, gap = curve.best("iou")
    applied = auto_threshold if threshold == "auto" else threshold
    point = curve.at(applied)
    return {
        LOSS.key: evaluation.loss,
        **{scorer.key: float(getattr(point, name)) for name, scorer in IMAGE_SCORERS.items()},
        "val/threshold": point.threshold,
        "val/iou_auto": auto_iou,
        "val/threshold_auto": auto_threshold,
        "val/threshold_gap": gap,
    }
