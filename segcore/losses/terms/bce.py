"""Binary cross entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segcore.component import Component, Option
from segcore.registries import LossTerm

if TYPE_CHECKING:
    from torch import Tensor

    from segcore.registries import Floats


def bce_loss(logits: Tensor, targets: Tensor, *, pos_weight: float = 1.0) -> Tensor:
    """Mean binary cross entropy over all pixels; an empty mask is not a special case.

    Args:
        logits: `(N, C, H, W)` float.
        targets: `(N, C, H, W)` in {0, 1}.
        pos_weight: Weight of a foreground pixel, above 0.
    """
    from torch.nn import functional as F

    weight = logits.new_tensor(pos_weight) if pos_weight != 1.0 else None
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)


def bce_twin(logits: Floats, targets: Floats, *, pos_weight: float) -> float:
    """`bce_loss` in numpy.

    Args:
        logits: `(N, H, W) float64`.
        targets: `(N, H, W) float64` in {0, 1}.
        pos_weight: Weight of a foreground pixel, above 0.
    """
    import numpy as np

    cost = pos_weight * targets * np.logaddexp(0, -logits) + (1 - targets) * np.logaddexp(0, logits)
    return float(cost.mean())


COMPONENT = Component(
    "bce",
    "Binary cross entropy, the mean over all pixels.",
    LossTerm(bce_loss, bce_twin, default_weight=1.0),
    options=(
        Option("bce_pos_weight", float, 1.0, "Weight of a foreground pixel in BCE.", gt=0.0, argument="pos_weight"),
    ),
    order=10,
)
