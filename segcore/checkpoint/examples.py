"""Reads the examples in a checkpoint folder: the threshold curve, and some validation images with masks.

The trial writes the files: `curve.json` (lists of equal length, one of them the thresholds) and `overlays.npz`
(`images`, `targets`, `probs`, `threshold`). Drawing code may silently accept wrong shapes and truncate float masks to
integers, so everything is checked here first.
"""

import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segcore.task import BINARY, Task

CURVE_FILE = "curve.json"
OVERLAYS_FILE = "overlays.npz"
MAX_IMAGES = 8
MAX_PIXELS = 512 * 512
"""A larger image is subsampled; a panel shows it smaller than that anyway."""


@dataclass(frozen=True)
class Curve:
    """Scores at increasing thresholds: `thresholds` in [0, 1], and one list of the same length per score."""

    thresholds: list[float]
    scores: dict[str, list[float]]

    def rows(self) -> list[dict[str, float]]:
        """One row per threshold: `curve/threshold`, and `curve/<score>` for each score."""
        columns = {
            "curve/threshold": self.thresholds,
            **{f"curve/{key}": values for key, values in self.scores.items()},
        }
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@dataclass(frozen=True)
class Overlays:
    """Validation images with masks.

    Attributes:
        images: `(K, H, W, 3) uint8`.
        targets: `(K, H, W) uint8`, the masks; each byte is one of the task's labels.
        preds: `(K, H, W) uint8`, the predictions, likewise.
        task: What masks and predictions mean.
    """

    images: npt.NDArray[np.uint8]
    targets: npt.NDArray[np.uint8]
    preds: npt.NDArray[np.uint8]
    task: Task = BINARY


def read_curve(folder: Path) -> Curve | None:
    """The threshold curve in a checkpoint folder; None when the file is absent.

    Raises:
        ValueError: The file breaks its format.
    """
    path = folder / CURVE_FILE
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(record).__name__}")
    thresholds = record.get("threshold", record.get("thresholds"))
    if not _is_series(thresholds) or not thresholds:
        raise ValueError(f"{path}: `threshold` must be a non-empty list of finite numbers")
    scores = {
        name: [float(value) for value in values]
        for name, values in record.items()
        if name not in ("threshold", "thresholds") and _is_series(values) and len(values) == len(thresholds)
    }
    if not scores:
        raise ValueError(f"{path}: no list as long as `threshold` ({len(thresholds)})")
    return Curve([float(value) for value in thresholds], scores)


def read_overlays(folder: Path, task: Task = BINARY) -> Overlays | None:
    """The overlays in a checkpoint folder, with predictions decided at the threshold.

    Args:
        folder: The checkpoint's folder.
        task: What its masks mean.

    Returns:
        None when the file is absent.

    Raises:
        ValueError: The file is damaged, or an array has a wrong shape, dtype or value.
    """
    path = folder / OVERLAYS_FILE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, targets, probs = arrays["images"], arrays["targets"], arrays["probs"]
            threshold = float(arrays["threshold"]) if "threshold" in arrays.files else 0.5
    except (OSError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or 0 in images.shape:
        raise ValueError(f"{path}: images must be (K, H, W, 3) uint8, found {images.shape} {images.dtype}")
    for name, array in (("targets", targets), ("probs", probs)):
        if array.shape != images.shape[:3]:
            raise ValueError(f"{path}: {name} must be {images.shape[:3]} like the images, found {array.shape}")
    values = [label.value for label in task.labels]
    if not np.isin(targets, values).all():
        known = " or ".join(map(str, values))
        raise ValueError(f"{path}: targets must be {known}, found {np.unique(targets)[:5].tolist()}")
    if not np.isfinite(probs).all() or probs.min() < 0 or probs.max() > 1:
        raise ValueError(f"{path}: probs must lie in [0, 1], found {probs.min()} to {probs.max()}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"{path}: threshold must lie in [0, 1], found {threshold}")
    stride = max(1, math.ceil(math.sqrt(images.shape[1] * images.shape[2] / MAX_PIXELS)))
    keep = np.s_[:MAX_IMAGES, ::stride, ::stride]
    preds = task.decide(probs[keep][:, None], threshold)
    return Overlays(images[keep], targets[keep].astype(np.uint8), preds, task)


def _is_series(values: object) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in values
    )
