"""A model's scores on a split: one pass gives the loss, the exact threshold curve, and a few examples."""

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
    """The result of one pass over a split.

    Attributes:
        loss: Mean over images.
        curve: Scores over all thresholds.
        overlays: A few examples: `images` `(n, H, W, 3) uint8`, `targets` `(n, H, W) uint8` and `probs`
            `(n, H, W) float16`.
    """

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
    """Evaluate a model in one pass: mean loss, exact threshold curve, and `NUM_OVERLAYS` evenly spaced examples.

    Args:
        predictor: The model, which is put into eval mode, with its task and device.
        loader: The loader of the split.
        loss_fn: From logits and targets to the batch's loss, a mean over images.
        threshold: The configured threshold in [0, 1], counted exactly in addition to the curve's own; "auto" adds none.

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
    """The validation metrics at the threshold in use, and those that `auto` gives, by report key."""
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
