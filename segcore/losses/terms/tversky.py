"""The Tversky loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segcore.component import Component, Option
from segcore.losses.terms.overlap import MIN_DENOMINATOR, SMOOTH, tversky_twin
from segcore.registries import LossTerm

if TYPE_CHECKING:
    from torch import Tensor


def tversky_loss(
    logits: Tensor, targets: Tensor, *, alpha: float = 0.5, beta: float = 0.5, smooth: float = 1.0
) -> Tensor:
    """One minus the Tversky index of each image and class, averaged over both.

    The index is (TP + smooth) / (TP + alpha FP + beta FN + smooth) with soft counts; alpha = beta = 0.5 is
    Dice with half its smooth. An empty target gives alpha FP / (alpha FP + smooth); with `smooth` 0 it costs 1
    whatever is predicted and has no gradient.

    Args:
        logits: `(N, C, H, W)` float.
        targets: `(N, C, H, W)` in {0, 1}.
        alpha: Weight of false positives, 0 or more.
        beta: Weight of false negatives, 0 or more.
        smooth: Added to numerator and denominator, in pixels.

    References:
        Salehi et al., "Tversky loss function for image segmentation", 2017, arXiv:1706.05721.
    """
    probs = logits.sigmoid()
    true_positive = (probs * targets).sum(dim=(2, 3))
    false_positive = probs.sum(dim=(2, 3)) - true_positive
    false_negative = targets.sum(dim=(2, 3)) - true_positive
    denominator = true_positive + alpha * false_positive + beta * false_negative + smooth
    return 1.0 - ((true_positive + smooth) / denominator.clamp_min(MIN_DENOMINATOR)).mean()


COMPONENT = Component(
    "tversky",
    "Dice with false positives and false negatives weighed apart.",
    LossTerm(tversky_loss, tversky_twin),
    options=(
        Option("tversky_alpha", float, 0.5, "Weight of false positives.", ge=0.0, argument="alpha"),
        Option("tversky_beta", float, 0.5, "Weight of false negatives.", ge=0.0, argument="beta"),
        SMOOTH,
    ),
    order=40,
)
