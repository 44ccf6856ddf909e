"""What the overlap losses Dice and Tversky share: their smoothing, and the numpy twin of the general form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segcore.component import Option

if TYPE_CHECKING:
    from segcore.registries import Floats

SMOOTH = Option("smooth", float, 1.0, "Added to numerator and denominator of Dice and Tversky.", ge=0.0, order=90)

MIN_DENOMINATOR = 1e-7
"""Avoids 0 / 0 where `smooth` is 0 and both masks are empty."""


def tversky_twin(logits: Floats, targets: Floats, *, alpha: float, beta: float, smooth: float) -> float:
    """One minus the Tversky index of each image, averaged, in numpy.

    Args:
        logits: `(N, H, W) float64`.
        targets: `(N, H, W) float64` in {0, 1}.
        alpha: Weight of false positives, 0 or more.
        beta: Weight of false negatives, 0 or more.
        smooth: Added to numerator and denominator, in pixels, 0 or more.
    """
    import numpy as np

    probs = 1.0 / (1.0 + np.exp(-logits))
    hit = (probs * targets).sum((1, 2))
    false_positive, missed = (probs * (1 - targets)).sum((1, 2)), ((1 - probs) * targets).sum((1, 2))
    below = np.maximum(hit + alpha * false_positive + beta * missed + smooth, 1e-7)
    return float((1 - (hit + smooth) / below).mean())
