"""What every scheduler is built from, besides its own options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search.schedulers.forks import Snapshots
from search.schedulers.rungs import Promotions

History = Mapping[int, Mapping[int, float]]
"""Trial number -> epoch -> value of the metric, of trials that ran before."""


@dataclass(frozen=True)
class Setting:
    """The search that a scheduler belongs to, and how far it has come."""

    metric: str
    mode: str
    max_epochs: int
    seed: int = 0
    history: History = field(default_factory=dict)
    unfinished: frozenset[int] = frozenset()
    snapshots: Snapshots | None = None
    promotions: Promotions | None = None
    second_metric: str | None = None

    @property
    def sign(self) -> float:
        """Times a value: larger is better."""
        return 1.0 if self.mode == "max" else -1.0

    def report_of(self, trial: Any, result: Mapping[str, Any]) -> tuple[int, int, float] | None:
        """`(number, epoch, value)` of a report, larger values being better; None when it holds no metric."""
        if "epoch" not in result or self.metric not in result:
            return None
        return int(trial.config["number"]), int(result["epoch"]), self.sign * float(result[self.metric])
