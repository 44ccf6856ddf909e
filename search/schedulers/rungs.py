"""Successive halving that pauses and promotes: which trials wait at which rung, and which continues next.

A trial that reaches a rung pauses there unless it is among the best 1/reduction_factor that reached it; when it is, it
continues from its checkpoint. A trial that is stopped for good is judged once, by those that came before it, so the
first ones pass whatever their value; one that waits is judged again each time another trial reaches the rung.

Where trials have a cost beside their value, the best are the first by Pareto order: a cheap model then passes though
its value is a little lower, and where all cost the same, the order is that of the values.

References:
    Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, arXiv:1810.05934 (algorithm 2).
    Schmucker et al., Multi-objective Asynchronous Successive Halving, 2021, arXiv:2106.12639 (with a cost).
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from search.runs.pareto import pareto_order
from segcore.objective import Objective


def rungs(grace_period: int, reduction_factor: int, max_epochs: int) -> tuple[int, ...]:
    """The epochs of all rungs below the last epoch.

    Args:
        grace_period: Epoch of the first rung.
        reduction_factor: Each rung is this many times later than the one before.
        max_epochs: The last epoch of a trial.
    """
    found = []
    rung = grace_period
    while rung < max_epochs:
        found.append(rung)
        rung *= reduction_factor
    return tuple(found)


class Promotions:
    """The rungs of a search.

    Args:
        rungs: Their epochs, ascending, below the last epoch.
        reduction_factor: One of this number of trials continues from each rung.
        objective: What trials are compared by; with a cost, one whose cost is unknown counts as the most expensive.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: int, objective: Objective) -> None:
        self._factor = reduction_factor
        self._has_cost = objective.second is not None
        self._costs: dict[int, float] = {}
        self._sign = objective.sign
        self._best: dict[int, float] = {}
        self._values: dict[int, dict[int, float]] = {rung: {} for rung in rungs}
        self._passed: dict[int, set[int]] = {rung: set() for rung in rungs}
        self._waiting: dict[int, int] = {}

    def replay(
        self,
        history: Mapping[int, Mapping[int, float]],
        unfinished: Iterable[int],
        costs: Mapping[int, float] | None = None,
    ) -> None:
        """Takes over the reports of earlier sessions; those of the `unfinished` that were at a rung wait.

        Args:
            history: Trial -> epoch -> value, in the metric's own direction.
            unfinished: Trials that have not ended.
            costs: Trial -> cost, in a search with a second metric.
        """
        unfinished = frozenset(unfinished)
        self._costs.update(costs or {})
        for number, epochs in history.items():
            last = max(epochs)
            for epoch, value in sorted(epochs.items()):
                self._note(number, epoch, value)
                if epoch in self._passed and (epoch < last or number not in unfinished):
                    self._passed[epoch].add(number)
            if number in unfinished and last in self._values:
                self._waiting[number] = last

    def goes_on(self, number: int, epoch: int, value: float, cost: float | None = None) -> bool:
        """Records a report; returns whether the trial continues rather than waits at this epoch's rung.

        A trial's first cost is the one that counts.

        Args:
            number: The trial.
            epoch: The epoch that it has ended.
            value: Its metric, in the metric's own direction.
            cost: What its model costs; None where that is unknown or does not count.
        """
        if cost is not None:
            self._costs.setdefault(number, cost)
        self._note(number, epoch, value)
        if epoch not in self._values or number in self._passed[epoch]:
            return True
        if number in self._best_of(epoch, self._share(epoch)):
            self._passed[epoch].add(number)
            return True
        self._waiting[number] = epoch
        return False

    @property
    def waiting(self) -> frozenset[int]:
        """The trials that wait at a rung."""
        return frozenset(self._waiting)

    def next(self, *, is_last_call: bool, leaving: Collection[int] = ()) -> int | None:
        """The trial to continue now, from the highest rung that has one; None if none may.

        Args:
            is_last_call: No new trial will come, so one continues even if it is the only one of its rung.
            leaving: Trials that have been told to wait but have not left their worker yet; they are skipped.
        """
        for rung in sorted(self._values, reverse=True):
            for number in self._best_of(rung, self._share(rung, is_last_call)):
                if self._waiting.get(number) == rung and number not in leaving:
                    del self._waiting[number]
                    self._passed[rung].add(number)
                    return number
        return None

    def _share(self, rung: int, is_last_call: bool = False) -> int:
        """How many of a rung may continue: a share of those that reached it, rounded to the nearest, at the end up.

        Rounded down, as in the paper, a search of a few dozen trials would hardly finish one before its last trial has
        begun, and nothing would be known of late epochs; rounded up, too many would be trained to the end.
        """
        share = len(self._values[rung]) / self._factor
        return math.ceil(share) if is_last_call else math.ceil(share - 0.5)

    def _note(self, number: int, epoch: int, value: float) -> None:
        value = -math.inf if math.isnan(value) else self._sign * value
        self._best[number] = max(value, self._best.get(number, -math.inf))
        if epoch in self._values:
            self._values[epoch].setdefault(number, self._best[number])

    def _best_of(self, rung: int, count: int) -> list[int]:
        """The given number of best trials that reached a rung, best first; the earlier trial wins a tie."""
        values = self._values[rung]
        if self._has_cost:
            return pareto_order({n: (value, self._log_cost(n)) for n, value in values.items()})[:count]
        return sorted(values, key=lambda number: (-values[number], number))[:count]

    def _log_cost(self, number: int) -> float:
        return math.log(max(self._costs[number], 1e-12)) if number in self._costs else math.inf
