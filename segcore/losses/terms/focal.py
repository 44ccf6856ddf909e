"""The focal loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segcore.component import Component, Option
from segcore.registries import LossTerm

if TYPE_CHECKING:
    from torch import Tensor

    from segcore.registries import Floats


def focal_loss(logits: Tensor, targets: Tensor, *, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Mean over pixels of alpha_t (1 - p_t)^gamma times the cross entropy; an empty mask is not a special case.

    Args:
        logits: `(N, C, H, W)` float.
        targets: `(N, C, H, W)` in {0, 1}.
        gamma: How strongly easy pixels are down-weighted, 0 or more.
        alpha: Weight of foreground pixels, in [0, 1]; background pixels weigh 1 - alpha.

    References:
        Lin et al., "Focal Loss for Dense Object Detection", 2017, arXiv:1708.02002.
    """
    import torch
    from torch.nn import functional as F

    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # 1 - p_t = sigmoid(-z) with z the logit towards the true class: no cancellation near p_t = 1.
    # Its logarithm keeps the gradient finite where (1 - p_t)^gamma underflows.
    away = F.logsigmoid(logits * (1.0 - 2.0 * targets))
    weight = alpha * targets + (1.0 - alpha) * (1.0 - targets)
    return (weight * torch.exp(gamma * away) * cross_entropy).mean()


def focal_twin(logits: Floats, targets: Floats, *, gamma: float, alpha: float) -> float:
    """`focal_loss` in numpy.

    Args:
        logits: `(N, H, W) float64`.
        targets: `(N, H, W) float64` in {0, 1}.
        gamma: How strongly easy pixels are down-weighted, 0 or more.
        alpha: Weight of foreground pixels, in [0, 1]; background pixels weigh 1 - alpha.
    """
    import numpy as np

    right = 1.0 / (1.0 + np.exp(-logits * (2 * targets - 1)))
    weight = np.where(targets > 0, alpha, 1 - alpha)
    return float((-weight * (1 - right) ** gamma * np.log(right)).mean())


COMPONENT = Component(
    "focal",
    "Cross entropy that turns easy pixels down.",
    LossTerm(focal_loss, focal_twin),
    options=(
        Option("focal_gamma", float, 2.0, ge=0.0, argument="gamma"),
        Option(
            "focal_alpha", float, 0.25, "Weight of foreground pixels in the focal loss.",
            ge=0.0, le=1.0, argument="alpha",
        ),
    ),
    order=30,
)  # fmt: skip
