"""What a scheduler is: how it judges trials, and what it declares for the config, the checks and the docs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from search.config.asked import Asked
from search.config.problems import Problem
from search.schedulers.population import Population
from search.schedulers.rungs import Promotions
from search.schedulers.setting import Setting

KEY = "search.scheduler"


@dataclass(frozen=True)
class Judged:
    """What a trial is judged by: what it reported of one epoch.

    Attributes:
        number: The trial.
        epoch: The epoch that it has ended, from 1.
        value: The metric times the objective's sign: larger is better; NaN where it is not a number.
        cost: What its model costs, in a search with a second metric.
    """

    number: int
    epoch: int
    value: float
    cost: float | None = None


class Judge(Protocol):
    """A scheduler at work. It keeps its records by the study's numbers of trials, so that a search can be resumed."""

    def begins(self, number: int) -> None:
        """Notes a trial that starts or resumes."""

    def goes_on(self, report: Judged) -> bool:
        """Records a report; returns whether the trial continues."""

    def ends(self, number: int, *, is_finished: bool) -> None:
        """Notes a trial that ended: it reached its last epoch, or was stopped by a scheduler or otherwise."""

    def fails(self, number: int) -> None:
        """Notes a trial that failed; it may start again."""


@dataclass(frozen=True)
class SchedulerRule:
    """How one scheduler is built, and what the rest of the program has to know about it.

    Its functions take its options as the config holds them: an object with an attribute for each.

    Attributes:
        does: What it does, for the docs.
        when: When it is the right one, for the docs.
        judge: Builds it with the setting's history replayed; None: no trial is ever judged.
        decision_epochs: Epochs below the last, of the given number, at which trials are judged: a checkpoint is saved
        there. Empty for a scheduler that judges at every epoch, or at none.
        promotions: Builds the record of which trials wait at which rung; None where trials do not wait.
        population: The population that forks are made in; None where there are no forks. A trial whose settings change
            while it trains cannot be confirmed, explained or made again.
        limits: The largest values that options can have in a search of that size.
        problems: Options set in the file that cannot work in that search.
        weighs_cost: Whether it suits a search with a second metric: it weighs the cost, or stops no trial.
        weighs_cost_if: The option that has to be true for that, if there is one.
    """

    does: str
    when: str
    judge: Callable[[Any, Setting], Judge | None]
    decision_epochs: Callable[[Any, int], tuple[int, ...]] = lambda options, max_epochs: ()
    promotions: Callable[[Any, Setting], Promotions | None] = lambda options, setting: None
    population: Callable[[Any, int], Population] | None = None
    limits: Callable[[Any, Asked], Mapping[str, int]] = lambda options, asked: {}
    problems: Callable[[Any, Asked], Sequence[Problem]] = lambda options, asked: ()
    weighs_cost: bool = False
    weighs_cost_if: str = ""
