"""Between a scheduler's rule and Ray: a rule judges the study's trials, Ray asks about its own."""

from collections.abc import Mapping
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.config.tree import SchedulerConfig
from search.schedulers.build import build_judge
from search.schedulers.rule import Judge, Judged
from search.schedulers.setting import Setting
from segcore.objective import Objective
from segcore.spec import TrialReport, number_of


class JudgedTrials(FIFOScheduler):  # type: ignore[misc]
    """Ray's trials in the order in which they come, stopped where the judge stops the study's trial.

    Ray gives a trial that resumes a new id, so it is known by the study's number, which its config holds.
    """

    def __init__(self, judge: Judge, objective: Objective) -> None:
        super().__init__()
        self.judge = judge
        self._metric = objective.metric
        self._objective = objective

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Tells the judge."""
        self.judge.begins(number_of(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """Stops or continues the trial as the judge decides; a report without the metric is ignored.

        Args:
            tune_controller: Ray's loop; not used.
            trial: Ray's trial.
            result: Its report.
        """
        objective = self._objective
        if result.get("epoch") is None or result.get(objective.metric) is None:
            return str(TrialScheduler.CONTINUE)
        report = Judged(
            number_of(trial),
            int(result["epoch"]),
            objective.sign * float(result[objective.metric]),
            result.get(objective.second) if objective.second else None,
        )
        return str(TrialScheduler.CONTINUE if self.judge.goes_on(report) else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> None:
        """Tells the judge.

        Args:
            tune_controller: Ray's loop; not used.
            trial: Ray's trial.
            result: Its last report.
        """
        last = TrialReport.from_ray(result)
        self.judge.ends(number_of(trial), is_finished=last is not None and last.finished)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Tells the judge."""
        self.judge.fails(number_of(trial))


def build_scheduler(options: SchedulerConfig, setting: Setting) -> TrialScheduler:
    """The config's scheduler for Ray.

    Args:
        options: Its name and options.
        setting: The search, and how far it has come.
    """
    judge = build_judge(options, setting)
    return FIFOScheduler() if judge is None else JudgedTrials(judge, setting.objective)
