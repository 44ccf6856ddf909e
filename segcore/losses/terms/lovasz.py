"""The Lovász hinge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segcore.component import Component
from segcore.registries import LossTerm

if TYPE_CHECKING:
    from torch import Tensor

    from segcore.registries import Floats


def lovasz_hinge_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """The Lovász extension of the Jaccard loss over hinge errors, per image and class, averaged over both.

    An empty target costs the hinge error of its worst pixel, max(0, 1 + max logit). Sorts each image once.

    Args:
        logits: `(N, C, H, W)` float.
        targets: `(N, C, H, W)` in {0, 1}.

    References:
        Berman et al., "The Lovász-Softmax loss", 2018, arXiv:1705.08790, algorithm 1.
    """
    import torch

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


def lovasz_twin(logits: Floats, targets: Floats) -> float:
    """`lovasz_hinge_loss` in numpy, pixel by pixel."""
    import numpy as np

    costs = []
    for image, target in zip(logits.reshape(len(logits), -1), targets.reshape(len(targets), -1), strict=True):
        errors = 1 - image * (2 * target - 1)
        order = np.argsort(-errors, kind="stable")
        cost, before, wrong = 0.0, 0.0, np.zeros(len(order), bool)
        for pixel in order:
            wrong[pixel] = True
            union = ((target > 0) | wrong).sum()
            jaccard = 1 - ((target > 0) & ~wrong).sum() / union
            cost += max(errors[pixel], 0.0) * (jaccard - before)
            before = jaccard
        costs.append(cost)
    return float(np.mean(costs))


COMPONENT = Component(
    "lovasz",
    "The Lovász hinge: a convex stand-in for one minus the IoU of each image.",
    LossTerm(lovasz_hinge_loss, lovasz_twin),
    order=45,
)
