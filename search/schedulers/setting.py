"""What every scheduler is built from, besides its own options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search.schedulers.forks import Snapshots
from search.schedulers.rungs import Promotions
from segcore.objective import Objective

History = Mapping[int, Mapping[int, float]]
"""Trial number -> epoch -> value of the metric, of trials that ran before."""


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

    def report_of(self, trial: Any, result: Mapping[str, Any]) -> tuple[int, int, float] | None:
        """`(number, epoch, value)` of a report, larger values being better; None when it holds no metric."""
        objective = self.objective
        if "epoch" not in result or objective.metric not in result:
            return None
        return int(trial.config["number"]), int(result["epoch"]), objective.sign * float(result[objective.metric])
