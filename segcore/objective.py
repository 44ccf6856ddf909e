"""What a search is about: which metric is searched, in which direction, and which cost is kept low beside it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Mode = Literal["max", "min"]


@dataclass(frozen=True)
class Objective:
    """The one owner of what is better.

    Attributes:
        metric: Key of the reports that trials are compared by, e.g. `val/iou`.
        mode: Whether a larger or a smaller value is better.
        second: Key of a cost that is always kept low beside it, e.g. `cost/parameters`; None: there is none.
    """

    metric: str
    mode: Mode = "max"
    second: str | None = None

    @property
    def sign(self) -> float:
        """Times a value of the metric: larger is better."""
        return 1.0 if self.mode == "max" else -1.0

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value beats another; NaN beats nothing, and everything else beats NaN and None."""
        if math.isnan(value):
            return False
        return than is None or math.isnan(than) or self.sign * value > self.sign * than

    def best(self, values: Iterable[float]) -> float | None:
        """The best of the values that are numbers; None where none is one."""
        known = [value for value in values if not math.isnan(value)]
        return max(known, key=lambda value: self.sign * value, default=None)

    def best_epoch(self, values: Mapping[int, float]) -> int | None:
        """The epoch with the best value, of equal ones the earliest; None where no value is a number.

        Args:
            values: The metric by epoch.
        """
        known = {epoch: value for epoch, value in values.items() if not math.isnan(value)}
        return max(known, key=lambda epoch: (self.sign * known[epoch], -epoch), default=None)
