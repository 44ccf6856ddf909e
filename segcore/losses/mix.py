"""The loss of a training run: a weighted mix of terms.

Every term takes logits `(N, C, H, W)` and targets of the same shape with values in {0, 1}, is computed in
float32 even under autocast, and returns a scalar. A NaN logit makes every loss NaN: nothing is hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from segcore.registries import LOSSES

if TYPE_CHECKING:
    from segcore.config import LossConfig

Loss = Callable[[Tensor, Tensor], Tensor]


class WeightedLoss(nn.Module):
    """A weighted sum of losses, with the config's weights as they are (not normalised)."""

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
    weights = {term.name: float(getattr(config, term.name)) for term in LOSSES}
    losses: dict[str, Loss] = {
        term.name: partial(term.build.loss, **term.arguments(config)) for term in LOSSES if weights[term.name] > 0
    }
    return WeightedLoss(losses, weights)
