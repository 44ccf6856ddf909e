"""Asynchronous successive halving, whose trials wait at a rung or are stopped there."""

from typing import Any

from search.schedulers.grace_period import (
    GRACE_PERIOD,
    REDUCTION_FACTOR,
    grace_period_problems,
    longest_grace_period,
)
from search.schedulers.halving import Halving
from search.schedulers.rule import Judge, Judged, SchedulerRule
from search.schedulers.rungs import Promotions, rungs
from search.schedulers.setting import Setting
from segcore.component import Component, Option


class Waiting:
    """Ends Ray's trial at a rung where the study's trial has to wait; the searcher brings it back when it may resume.

    For Ray, each stay between two rungs is a trial of its own, which starts from the last one's checkpoint; with reused
    actors that costs a fraction of a second, and no worker ever waits.
    """

    def __init__(self, setting: Setting, promotions: Promotions) -> None:
        self._setting = setting
        self._promotions = promotions

    def begins(self, number: int) -> None:
        """Does nothing: the promotions know a trial from its first report on."""

    def goes_on(self, report: Judged) -> bool:
        """Pauses a trial at a rung, or lets it continue."""
        if report.epoch >= self._setting.max_epochs:
            return True
        value = self._setting.objective.sign * report.value  # in the metric's own direction
        return self._promotions.goes_on(report.number, report.epoch, value, report.cost)

    def ends(self, number: int, *, is_finished: bool) -> None:
        """Does nothing: the promotions know whether the trial waits."""

    def fails(self, number: int) -> None:
        """Does nothing: the trial's values stay in the rungs."""


def decision_epochs(options: Any, max_epochs: int) -> tuple[int, ...]:
    """The rungs below the last epoch."""
    return rungs(options.grace_period, options.reduction_factor, max_epochs)


def _judge(options: Any, setting: Setting) -> Judge:
    if setting.promotions is not None:
        return Waiting(setting, setting.promotions)
    return Halving(setting, options.grace_period, options.reduction_factor)


def _promotions(options: Any, setting: Setting) -> Promotions | None:
    if not options.promote:
        return None
    promotions = Promotions(decision_epochs(options, setting.max_epochs), options.reduction_factor, setting.objective)
    promotions.replay(setting.history, setting.unfinished, setting.costs)
    return promotions


RULE = SchedulerRule(
    does="at rungs, the epochs `grace_period`, times `reduction_factor`, and so on, only the best 1 / "
    "`reduction_factor` of those that came so far continue; the others wait there, and resume from their checkpoint if "
    "they come to be among the best; with `promote: false` they are stopped for good",
    when="the default: many trials, and the first epochs tell good from bad",
    judge=_judge,
    decision_epochs=decision_epochs,
    promotions=_promotions,
    limits=lambda options, asked: {"grace_period": longest_grace_period(asked)},
    problems=grace_period_problems,
    weighs_cost=True,
    weighs_cost_if="promote",
)
"""Asynchronous successive halving.

References:
    Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020.
"""

PROMOTE = Option(
    "promote", bool, True, "trials wait at a rung and continue once they are good enough; false: they are stopped."
)

COMPONENT = Component("asha", "lets the best pass at rungs", RULE, (GRACE_PERIOD, REDUCTION_FACTOR, PROMOTE), order=10)
