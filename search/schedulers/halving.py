"""Asynchronous successive halving that stops for good, in one bracket or several."""

import math

import numpy as np

from search.schedulers.rule import Judged
from search.schedulers.setting import Setting


class Bracket:
    """Rungs, and the values of the trials that reached each.

    Attributes:
        rungs: `(epoch, trial -> value)`, the latest first; the last epoch of a trial may be one of them.
    """

    def __init__(self, first: int, reduction_factor: int, max_epochs: int, place: int) -> None:
        self._share = (1 - 1 / reduction_factor) * 100
        count = int(math.log(max_epochs / first) / math.log(reduction_factor) - place + 1)
        self.rungs: list[tuple[int, dict[int, float]]] = [
            (first * reduction_factor ** (rung + place), {}) for rung in reversed(range(count))
        ]

    def passes(self, number: int, epoch: int, value: float) -> bool:
        """Records a value at the latest rung reached, once per trial and rung; returns whether it passes there.

        A value that is not a number is not recorded; it passes only where the rung has no trial yet, or has this one
        already.

        Args:
            number: The trial.
            epoch: The epoch that it has ended.
            value: Its metric, larger being better.
        """
        for rung, values in self.rungs:
            if epoch < rung:
                continue
            if math.isnan(value):
                return number in values or not values
            if number not in values:
                passes = not values or value >= np.percentile(list(values.values()), self._share)
                values[number] = value
                return bool(passes)
        return True


class Halving:
    """Stops each trial that is not among the best 1/reduction_factor of those that reached a rung before.

    Each trial is compared with all that reached the rung of its bracket before it. A resumed search starts a new judge,
    so the rungs are filled by replaying the reports of earlier trials. A trial that resumes counts once at each rung
    and is not judged there again.

    Args:
        setting: The search.
        grace_period: Epoch of the first bracket's first rung.
        reduction_factor: One of this number of trials passes a rung, and each rung is this number of times later.
        brackets: Each has its first rung `reduction_factor` times later than the one before.
    """

    def __init__(self, setting: Setting, grace_period: int, reduction_factor: int, brackets: int = 1) -> None:
        self._setting = setting
        first = min(grace_period, setting.max_epochs)
        self.brackets = [Bracket(first, reduction_factor, setting.max_epochs, place) for place in range(brackets)]
        for number, epochs in setting.history.items():
            for epoch, value in sorted(epochs.items()):
                self.goes_on(Judged(number, epoch, setting.objective.sign * value))

    def bracket_of(self, number: int) -> int:
        """Which bracket a trial belongs to, from the seed and its number; earlier ones, with more rungs, get more."""
        if len(self.brackets) == 1:
            return 0
        sizes = np.array([len(bracket.rungs) for bracket in self.brackets])
        shares = np.exp(sizes - sizes.max())
        rng = np.random.default_rng((self._setting.seed % 2**64, number))
        return int(rng.choice(len(sizes), p=shares / shares.sum()))

    def begins(self, number: int) -> None:
        """Does nothing: a trial's bracket follows from its number."""

    def goes_on(self, report: Judged) -> bool:
        """Stops a trial at a rung or at its last epoch, or lets it continue."""
        if report.epoch >= self._setting.max_epochs:
            return False
        bracket = self.brackets[self.bracket_of(report.number)]
        return bracket.passes(report.number, report.epoch, report.value)

    def ends(self, number: int, *, is_finished: bool) -> None:
        """Does nothing: the trial's values stay in the rungs."""

    def fails(self, number: int) -> None:
        """Does nothing: the trial's values stay in the rungs."""
