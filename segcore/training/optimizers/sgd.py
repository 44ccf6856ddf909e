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
    """SGD, Nesterov's with momentum above 0; its decay is L2, a part of the gradient."""
    from torch.optim import SGD

    return SGD(
        groups, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=momentum > 0, fused=can_fuse
    )  # fmt: skip


def sgd_twin(
    weights: Floats, gradients: Sequence[Floats], *, lr: float, weight_decay: float, momentum: float
) -> Floats:
    """`build_sgd`'s steps in numpy; its buffer begins with the first gradient, as there is no dampening."""
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
