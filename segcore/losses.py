"""Losses for binary and multilabel masks, and their weighted mix.

Every loss takes logits `(N, C, H, W)` and targets of the same shape with values in {0, 1}, is computed in
float32 whatever autocast says, and returns a scalar. A NaN logit makes every loss NaN: nothing is hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from segcore.config import LossConfig

Loss = Callable[[Tensor, Tensor], Tensor]

_MIN_DENOMINATOR = 1e-7
"""Keeps 0 / 0 away where `smooth` is 0 and both masks are empty."""


def bce_loss(logits: Tensor, targets: Tensor, *, pos_weight: float = 1.0) -> Tensor:
    """Mean binary cross entropy over all pixels; an empty mask is nothing special.

    Args:
        logits: `(N, C, H, W)` float.
        targets: `(N, C, H, W)` in {0, 1}.
        pos_weight: Weight of a foreground pixel, above 0.
    """
    weight = logits.new_tensor(pos_weight) if pos_weight != 1.0 else None
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight)


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
    dice = (2.0 * intersection + smooth) / (total + smooth).clamp_min(_MIN_DENOMINATOR)
    return 1.0 - dice.mean()


def focal_loss(logits: Tensor, targets: Tensor, *, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Mean over pixels of alpha_t (1 - p_t)^gamma times the cross entropy; an empty mask is nothing special.

    Args:
        logits: `(N, C, H, W)` float.
        targets: `(N, C, H, W)` in {0, 1}.
        gamma: How much easy pixels are turned down, 0 or more.
        alpha: Weight of foreground pixels, in [0, 1]; background pixels weigh 1 - alpha.

    References:
        Lin et al., "Focal Loss for Dense Object Detection", 2017, arXiv:1708.02002.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    # 1 - p_t = sigmoid(-z) with z the logit towards the true class: no cancellation near p_t = 1.
    # Its logarithm keeps the gradient finite where (1 - p_t)^gamma underflows.
    away = F.logsigmoid(logits * (1.0 - 2.0 * targets))
    weight = alpha * targets + (1.0 - alpha) * (1.0 - targets)
    return (weight * torch.exp(gamma * away) * cross_entropy).mean()


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
    return 1.0 - ((true_positive + smooth) / denominator.clamp_min(_MIN_DENOMINATOR)).mean()


def lovasz_hinge_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The Lovász extension of the Jaccard loss over hinge errors, per image and class, averaged over both.

    An empty target costs the hinge error of its worst pixel, max(0, 1 + max logit). One sort an image.

    Args:
        logits: `(N, C, H, W)` float.
        targets: `(N, C, H, W)` in {0, 1}.

    References:
        Berman et al., "The Lovász-Softmax loss", 2018, arXiv:1705.08790, algorithm 1.
    """
    scores, labels = logits.flatten(2), targets.flatten(2)  # (N, C, H*W)
    errors = 1.0 - scores * (2.0 * labels - 1.0)
    sorted_errors, order = errors.sort(dim=2, descending=True)
    with torch.no_grad():
        sorted_labels = labels.gather(2, order)
        num_foreground = sorted_labels.sum(dim=2, keepdim=True)
        intersection = num_foreground - sorted_labels.cumsum(dim=2)
        union = num_foreground + (1.0 - sorted_labels).cumsum(dim=2)
        jaccard = 1.0 - intersection / union
        weights = torch.diff(jaccard, dim=2, prepend=torch.zeros_like(jaccard[..., :1]))
    return (sorted_errors.relu() * weights).sum(dim=2).mean()


LOSSES: dict[str, Callable[..., Tensor]] = {
    "bce": bce_loss,
    "dice": dice_loss,
    "focal": focal_loss,
    "tversky": tversky_loss,
    "lovasz": lovasz_hinge_loss,
}


class WeightedLoss(nn.Module):
    """A weighted sum of losses. Weights are not normalised: they are what the config says."""

    def __init__(self, losses: Mapping[str, Loss], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.losses = dict(losses)
        self.weights = {name: float(weights[name]) for name in self.losses}

    def terms(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Return each loss on its own, before its weight, as float32 scalars with gradients.

        Raises:
            ValueError: The shapes differ.
        """
        if logits.shape != targets.shape:
            raise ValueError(
                f"logits and targets must have one shape, found {tuple(logits.shape)} and {tuple(targets.shape)}"
            )
        with torch.autocast(logits.device.type, enabled=False):
            logits, targets = logits.float(), targets.float()
            return {name: loss(logits, targets) for name, loss in self.losses.items()}

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the weighted sum as a float32 scalar.

        Args:
            logits: `(N, C, H, W)` float.
            targets: `(N, C, H, W)` uint8, bool or float in {0, 1}.
        """
        terms = self.terms(logits, targets)
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()


def build_loss(config: LossConfig) -> WeightedLoss:
    """Build the mix of a config; a loss whose weight is 0 is left out and not computed."""
    parameters: dict[str, dict[str, float]] = {
        "bce": {"pos_weight": config.bce_pos_weight},
        "dice": {"smooth": config.smooth},
        "focal": {"gamma": config.focal_gamma, "alpha": config.focal_alpha},
        "tversky": {"alpha": config.tversky_alpha, "beta": config.tversky_beta, "smooth": config.smooth},
        "lovasz": {},
    }
    weights = {name: float(getattr(config, name)) for name in LOSSES}
    losses: dict[str, Loss] = {
        name: partial(loss, **parameters[name]) for name, loss in LOSSES.items() if weights[name] > 0
    }
    return WeightedLoss(losses, weights)
