"""Validation images with predicted and true masks, as wandb draws them."""

from typing import Any

import numpy as np
from PIL import Image

from segcore.checkpoint.examples import Overlays

Image.init()  # wandb would load it lazily, and from two threads at once that leaves Pillow without its formats


def overlay_images(overlays: Overlays) -> list[Any]:
    """Images for wandb with a prediction and a target mask each, captioned with their IoU (1 when both are empty)."""
    import wandb

    class_labels = {label.value: label.name for label in overlays.task.labels}
    shown = []
    for image, target, pred in zip(overlays.images, overlays.targets, overlays.preds, strict=True):
        union = int(np.logical_or(target, pred).sum())
        iou = int(np.logical_and(target, pred).sum()) / union if union else 1.0
        masks = {
            "prediction": {"mask_data": pred, "class_labels": class_labels},
            "target": {"mask_data": target, "class_labels": class_labels},
        }
        shown.append(wandb.Image(image, masks=masks, caption=f"IoU {iou:.3f}"))
    return shown
