"""NAdam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from segcore.component import Component
from segcore.registries import OptimizerRule

if TYPE_CHECKING:
    import torch

    from segcore.registries import Floats


def build_nadam(
    groups: list[dict[str, Any]], *, lr: float, weight_decay: float, can_fuse: bool
) -> torch.optim.Optimizer:
    """Build NAdam: Adam with Nesterov's momentum and weight decay decoupled from the gradient.

    Args:
        groups: Parameter groups, each with `params`, `lr` and `weight_decay`.
        lr: Default learning rate, above 0.
        weight_decay: Default weight decay, 0 or more.
        can_fuse: Ignored: NAdam has no fused kernels.

    References:
        Dozat, "Incorporating Nesterov Momentum into Adam", 2016.
    """
    from torch.optim import NAdam

    return NAdam(groups, lr=lr, weight_decay=weight_decay, decoupled_weight_decay=True)


def nadam_twin(weights: Floats, gradients: Sequence[Floats], *, lr: float, weight_decay: float) -> Floats:
    """`build_nadam`'s steps in numpy, with torch's momentum decay 0.004; return the weights after them.

    Args:
        weights: `(P,) float64`, before the first step.
        gradients: The gradient of each step, `(P,) float64`.
        lr: Learning rate, above 0.
        weight_decay: Weight decay, 0 or more.
    """
    import numpy as np

    mean, square, product = np.zeros_like(weights), np.zeros_like(weights), 1.0
    for step, gradient in enumerate(gradients, start=1):
        weights = weights * (1 - lr * weight_decay)
        now, then = (0.9 * (1 - 0.5 * 0.96 ** (0.004 * number)) for number in (step, step + 1))
        product *= now
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        ahead = (1 - now) / (1 - product) * gradient + then / (1 - product * then) * mean
        weights = weights - lr * ahead / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return weights


COMPONENT = Component(
    "nadam",
    "Adam with Nesterov's momentum, and weight decay apart from the gradient.",
    OptimizerRule(
        build_nadam,
        nadam_twin,
        class_name="NAdam",
        momentum=lambda: (0.9, 0.999),
        num_states=lambda: 2,
    ),
    order=30,
)
