"""Successive halving whose trials wait at rungs, the part that pauses; `search.schedulers.rungs` says who goes on."""

from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.schedulers.rungs import Promotions
from search.schedulers.setting import Setting


class PromotingAsha(FIFOScheduler):  # type: ignore[misc]
    """Ends Ray's trial at a rung where the study's trial has to wait; the searcher brings it back when it may go on.

    For Ray, each stay between two rungs is a trial of its own, which starts from the last one's checkpoint; with reused
    actors that costs a fraction of a second, and no worker ever waits.
    """

    def __init__(self, setting: Setting, promotions: Promotions) -> None:
        super().__init__()
        self._metric = setting.objective.metric
        self._setting = setting
        self._promotions = promotions

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Pauses a trial at a rung, or lets it go on."""
        report = self._setting.report_of(trial, result)
        if report is None or report.epoch >= self._setting.max_epochs:
            return str(TrialScheduler.CONTINUE)
        value = self._setting.objective.sign * report.value
        goes_on = self._promotions.goes_on(report.number, report.epoch, value, report.cost)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)
