"""What a search optimizes: which metric, in which direction, and which cost is kept low in addition."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Mode = Literal["max", "min"]


@dataclass(frozen=True)
class Objective:
    """Decides which values, epochs and trials are better.

    Attributes:
        metric: The report key that trials are compared by, e.g. `val/iou`.
        mode: Whether a larger or a smaller value is better.
        second: The report key of a cost to minimize in addition, e.g. `cost/parameters`; None for none.
    """

    metric: str
    mode: Mode = "max"
    second: str | None = None

    @property
    def sign(self) -> float:
        """1 or -1: a value of the metric times this is larger where it is better."""
        return 1.0 if self.mode == "max" else -1.0

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value beats another; NaN beats nothing, and everything else beats NaN and None."""
        if math.isnan(value):
            return False
        return than is None or math.isnan(than) or self.sign * value > self.sign * than

    def best(self, values: Iterable[float]) -> float | None:
        """The best value, ignoring NaN; None where no value is left."""
        known = [value for value in values if not math.isnan(value)]
        return max(known, key=lambda value: self.sign * value, default=None)

    def best_epoch(self, values: Mapping[int, float]) -> int | None:
        """The epoch with the best value, the earliest of equal ones; None where every value is NaN.

        Args:
            values: The metric by epoch.
        """
        known = {epoch: value for epoch, value in values.items() if not math.isnan(value)}
        return max(known, key=lambda epoch: (self.sign * known[epoch], -epoch), default=None)
