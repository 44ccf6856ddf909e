"""What a sampler gets to know of the trials so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from search.sampling.cube import Array
from segcore.params import ParamValue


@dataclass
class Past:
    """A trial as samplers see it: larger values are better, and a value is the best up to its epoch.

    A checkpoint is kept of a trial's best epoch, so a trial's value never falls. `failed` marks a trial that broke, of
    which nothing else is known. `cost`, where the search has a second metric, is what the trial's model costs; smaller
    is better.
    """

    number: int
    flat: Mapping[str, ParamValue]
    position: Array
    values: dict[int, float] = field(default_factory=dict)
    running: bool = True
    failed: bool = False
    origin: str = ""
    cost: float | None = None

    def report(self, epoch: int, value: float) -> None:
        """Takes a value, larger being better; one that is not a number is ignored."""
        if not np.isfinite(value):
            return
        self.values[epoch] = max([value, *(v for e, v in self.values.items() if e <= epoch)])
        for later in [e for e in self.values if e > epoch]:
            self.values[later] = max(self.values[later], value)

    @property
    def last(self) -> int:
        """The last epoch with a value, 0 without any."""
        return max(self.values, default=0)

    @property
    def best(self) -> float:
        """The best value; only for a trial that has one."""
        return self.values[self.last]


def with_values(trials: Sequence[Past]) -> list[Past]:
    """The trials that a model can learn from: those with a value, and those that failed."""
    return [trial for trial in trials if trial.values or trial.failed]
