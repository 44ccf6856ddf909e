"""Stochastic gradient descent with Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from segcore.component import Component, Option
from segcore.registries import OptimizerRule

if TYPE_CHECKING:
    import torch

    from segcore.registries import Floats


def build_sgd(
    groups: list[dict[str, Any]], *, lr: float, weight_decay: float, can_fuse: bool, momentum: float
) -> torch.optim.Optimizer:
    """Build SGD, with Nesterov's momentum where it is above 0; weight decay is L2, added to the gradient.

    Args:
        groups: Parameter groups, each with `params`, `lr` and `weight_decay`.
        lr: Default learning rate, above 0.
        weight_decay: Default weight decay, 0 or more.
        can_fuse: Whether all parameters allow fused kernels.
        momentum: Share of the last step that is kept, in [0, 1).
    """
    from torch.optim import SGD

    return SGD(
        groups, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=momentum > 0, fused=can_fuse
    )  # fmt: skip


def sgd_twin(
    weights: Floats, gradients: Sequence[Floats], *, lr: float, weight_decay: float, momentum: float
) -> Floats:
    """`build_sgd`'s steps in numpy; return the weights after them, `(P,) float64`.

    The momentum buffer starts with the first gradient, since there is no dampening.

    Args:
        weights: `(P,) float64`, before the first step.
        gradients: The gradient of each step, `(P,) float64`.
        lr: Learning rate, above 0.
        weight_decay: Weight decay, 0 or more.
        momentum: Share of the last step that is kept, in [0, 1).
    """
    buffer = 0.0 * weights
    for gradient in gradients:
        gradient = gradient + weight_decay * weights
        buffer = momentum * buffer + gradient
        weights = weights - lr * (gradient + momentum * buffer)
    return weights


COMPONENT = Component(
    "sgd",
    "Stochastic gradient descent with Nesterov's momentum; its decay is L2.",
    OptimizerRule(
        build_sgd,
        sgd_twin,
        class_name="SGD",
        momentum=lambda momentum: (momentum, "nesterov" if momentum > 0 else "plain"),
        num_states=lambda momentum: 1 if momentum > 0 else 0,
    ),
    options=(Option("momentum", float, 0.9, "share of the last step that is kept.", ge=0.0, lt=1.0),),
    order=20,
)
