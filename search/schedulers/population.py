"""The rules of population based training: which members are among the worst, and which may be copied."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Population:
    """The rules: how many members, compared when, and which share is replaced."""

    size: int
    points: tuple[int, ...]
    quantile: float = 0.25
    resample_probability: float = 0.25

    def point_at(self, epoch: int) -> int | None:
        """The last perturbation point up to an epoch."""
        return max((point for point in self.points if point <= epoch), default=None)

    def is_loser(self, number: int, values: Mapping[int, float]) -> bool:
        """Whether a trial's value is below the share that stays, larger being better; a tie spares.

        Only the youngest `size` trials of `values` are judged.
        """
        members = sorted(values, reverse=True)[: self.size]
        cutoff = int(len(members) * self.quantile)
        return number in members and values[number] < sorted(values[member] for member in members)[cutoff]

    def best_of(self, values: Mapping[int, float]) -> set[int]:
        """The members that may be copied: as many as the top share of a full population, the earlier first in a tie."""
        most = max(1, int(self.size * self.quantile))
        sound = [number for number, value in values.items() if np.isfinite(value)]
        return set(sorted(sound, key=lambda number: (-values[number], number))[:most])
