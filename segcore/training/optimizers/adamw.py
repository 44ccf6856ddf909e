"""AdamW."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from segcore.component import Component
from segcore.registries import OptimizerRule

if TYPE_CHECKING:
    import torch

    from segcore.registries import Floats


def build_adamw(
    groups: list[dict[str, Any]], *, lr: float, weight_decay: float, can_fuse: bool
) -> torch.optim.Optimizer:
    """Build AdamW: Adam with weight decay decoupled from the gradient, betas 0.9 and 0.999, eps 1e-8.

    Args:
        groups: Parameter groups, each with `params`, `lr` and `weight_decay`.
        lr: Default learning rate, above 0.
        weight_decay: Default weight decay, 0 or more.
        can_fuse: Whether all parameters allow fused kernels.

    References:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, arXiv:1711.05101.
    """
    from torch.optim import AdamW

    return AdamW(groups, lr=lr, weight_decay=weight_decay, fused=can_fuse)


def adamw_twin(weights: Floats, gradients: Sequence[Floats], *, lr: float, weight_decay: float) -> Floats:
    """`build_adamw`'s steps in numpy; return the weights after them, `(P,) float64`.

    Args:
        weights: `(P,) float64`, before the first step.
        gradients: The gradient of each step, `(P,) float64`.
        lr: Learning rate, above 0.
        weight_decay: Weight decay, 0 or more.
    """
    import numpy as np

    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    for step, gradient in enumerate(gradients, start=1):
        weights = weights * (1 - lr * weight_decay)
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        weights = weights - lr * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return weights


COMPONENT = Component(
    "adamw",
    "Adam with weight decay apart from the gradient.",
    OptimizerRule(
        build_adamw,
        adamw_twin,
        class_name="AdamW",
        momentum=lambda: (0.9, 0.999),
        num_states=lambda: 2,
    ),
    order=10,
)
