"""What every scheduler is built from, besides its own options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from search.schedulers.forks import Snapshots
from search.schedulers.rungs import Promotions
from segcore.objective import Objective
from segcore.spec import number_of

History = Mapping[int, Mapping[int, float]]
"""Trial number -> epoch -> value of the metric, of trials that ran before."""


class Judged(NamedTuple):
    """What a scheduler reads of a report: larger values are better, and `cost` is the second metric's."""

    number: int
    epoch: int
    value: float
    cost: float | None


@dataclass(frozen=True)
class Setting:
    """The search that a scheduler belongs to, and how far it has come."""

    objective: Objective
    max_epochs: int
    seed: int = 0
    history: History = field(default_factory=dict)
    unfinished: frozenset[int] = frozenset()
    snapshots: Snapshots | None = None
    promotions: Promotions | None = None

    def report_of(self, trial: Any, result: Mapping[str, Any]) -> Judged | None:
        """What a report is judged by; None when it holds no metric."""
        metric, second = self.objective.metric, self.objective.second
        if "epoch" not in result or metric not in result:
            return None
        value = self.objective.sign * float(result[metric])
        return Judged(number_of(trial), int(result["epoch"]), value, result.get(second) if second else None)
