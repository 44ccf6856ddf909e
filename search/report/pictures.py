"""The winner's best and worst stored validation images, as small PNGs."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segcore.checkpoint.examples import Overlays, read_overlays
from segcore.task import Layer

EACH_END = 2
_WIDEST = 256


def overlays(checkpoints: Sequence[Path]) -> dict[str, Any] | None:
    """Which of the stored images are shown, worst first, with the IoU of each; None where none are stored."""
    stored = read_newest(checkpoints)
    if stored is None:
        return None
    scores = [_iou(target > 0, pred > 0) for target, pred in zip(stored.targets, stored.preds, strict=True)]
    order = sorted(range(len(scores)), key=lambda index: scores[index])
    shown = order if len(order) <= 2 * EACH_END else [*order[:EACH_END], *order[-EACH_END:]]
    return {"stored": len(scores), "shown": [{"index": index, "iou": scores[index]} for index in shown]}


def pictures(checkpoints: Sequence[Path], shown: Sequence[int]) -> dict[int, list[str]]:
    """Image, mask and prediction of each shown index, as `data:` addresses.

    In the prediction, what was found is green, what was missed blue, and what is none red (`Task.compared`).
    """
    stored = read_newest(checkpoints)
    if stored is None:
        return {}
    found = {}
    for index in shown:
        image, target, pred = stored.images[index], stored.targets[index], stored.preds[index]
        with_mask = _tinted(image, stored.task.drawn(target))
        with_pred = _tinted(image, stored.task.compared(pred, target))
        found[index] = [_png(array) for array in (image, with_mask, with_pred)]
    return found


def read_newest(checkpoints: Sequence[Path]) -> Overlays | None:
    """The overlays of the newest checkpoint whose file is whole."""
    for folder in checkpoints:
        try:
            stored = read_overlays(folder)
        except ValueError:
            continue
        if stored is not None and len(stored.images):
            return stored
    return None


def _iou(target: np.ndarray, pred: np.ndarray) -> float:
    """1 where both are empty."""
    union = int((target | pred).sum())
    return int((target & pred).sum()) / union if union else 1.0


def _tinted(image: np.ndarray, layers: Sequence[Layer]) -> np.ndarray:
    tinted = image.astype(np.float32)
    for layer in layers:
        tinted[layer.where] = 0.45 * tinted[layer.where] + 0.55 * np.array(layer.color, dtype=np.float32)
    return tinted.round().astype(np.uint8)


def _png(array: np.ndarray) -> str:
    picture = Image.fromarray(array)
    picture.thumbnail((_WIDEST, _WIDEST))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
