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
from segcore.scores.threshold_curve import ThresholdCurve

NUM_OVERLAYS = 6


@dataclass(frozen=True)
class Evaluation:
    """One pass over a split: mean loss, the threshold curve, and a few images with their probabilities."""

    loss: float
    curve: CurveResult
    overlays: dict[str, np.ndarray] = field(default_factory=dict)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Loader,
    loss_fn: nn.Module,
    precision: torch.dtype,
    device: torch.device,
    threshold: float | Literal["auto"] = "auto",
) -> Evaluation:
    """One pass over a loader: mean loss, exact threshold curve, and `NUM_OVERLAYS` evenly spaced examples."""
    model.eval()
    curve = ThresholdCurve(device=device, thresholds=() if threshold == "auto" else (threshold,))
    total = torch.zeros((), dtype=torch.float64, device=device)
    wanted = set(np.linspace(0, loader.num_samples - 1, min(NUM_OVERLAYS, loader.num_samples)).round().astype(int))
    kept = []  # on the device, so that no batch is waited for
    position = 0
    for batch in loader:
        images = batch.images.to(device, non_blocking=True)
        targets = batch.targets.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=precision, enabled=precision is not torch.float32):
            logits = model(images)
        logits = logits.float()
        total += loss_fn(logits, targets).double() * len(images)
        probs = logits.sigmoid()  # (N, 1, H, W) float32
        curve.update(probs, targets)
        for offset in [i for i in range(len(images)) if position + i in wanted]:
            kept.append((images[offset].permute(1, 2, 0).clone(), targets[offset, 0].clone(), probs[offset, 0].half()))
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
        "val/loss": evaluation.loss,
        "val/iou": point.iou,
        "val/dice": point.dice,
        "val/iou_pooled": point.iou_pooled,
        "val/dice_pooled": point.dice_pooled,
        "val/threshold": point.threshold,
        "val/iou_auto": auto_iou,
        "val/threshold_auto": auto_threshold,
        "val/threshold_gap": gap,
    }
