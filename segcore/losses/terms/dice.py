"""Soft Dice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segcore.component import Component
from segcore.losses.terms.overlap import MIN_DENOMINATOR, SMOOTH, tversky_twin
from segcore.registries import LossTerm

if TYPE_CHECKING:
    from torch import Tensor

    from segcore.registries import Floats


def dice_loss(logits: Tensor, targets: Tensor, *, smooth: float = 1.0) -> Tensor:
    """One minus the soft Dice of each image and class, averaged over both.

    With I = sum(p t), the soft Dice is (2 I + smooth) / (sum(p) + sum(t) + smooth). An empty target gives
    sum(p) / (sum(p) + smooth): 0 once nothing is predicted, so false positives cost. With `smooth` 0 an
    empty target costs 1 whatever is predicted and has no gradient.

    Args:
        logits: `(N, C, H, W)` float.
        targets: `(N, C, H, W)` in {0, 1}.
        smooth: Added to numerator and denominator, in pixels.

    References:
        Milletari et al., "V-Net", 2016, arXiv:1606.04797.
    """
    probs = logits.sigmoid()
    intersection = (probs * targets).sum(dim=(2, 3))
    total = probs.sum(dim=(2, 3)) + targets.sum(dim=(2, 3))
    dice = (2.0 * intersection + smooth) / (total + smooth).clamp_min(MIN_DENOMINATOR)
    return 1.0 - dice.mean()


def dice_twin(logits: Floats, targets: Floats, *, smooth: float) -> float:
    """`dice_loss` in numpy, computed as the equivalent Tversky loss.

    Args:
        logits: `(N, H, W) float64`.
        targets: `(N, H, W) float64` in {0, 1}.
        smooth: Added to numerator and denominator of Dice, in pixels, 0 or more.
    """
    return tversky_twin(logits, targets, alpha=0.5, beta=0.5, smooth=smooth / 2.0)


COMPONENT = Component(
    "dice",
    "One minus the soft Dice of each image, averaged.",
    LossTerm(dice_loss, dice_twin, default_weight=1.0),
    options=(SMOOTH,),
    order=20,
)
