"""Population based training, the part that stops; `search.schedulers.forks` makes the forks."""

import math
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.schedulers.forks import Population
from search.schedulers.setting import Setting
from segcore.spec import TrialReport, number_of


class PopulationScheduler(FIFOScheduler):  # type: ignore[misc]
    """Stops a member that is among the worst of the population at a perturbation point, and keeps copies of the best.

    The population at a point are the youngest so many trials that came to it, whatever became of them later. Members do
    not wait for each other, so one is judged at a point and at each report up to the next point, by its value at the
    point, as more of the others come to it. Ray's `PopulationBasedTraining` is not used: it takes no searcher, and it
    changes the config of a running trial, so that no trial of the study would be what its parameters say. A value that
    is no number is the worst.

    References:
        Jaderberg et al., Population Based Training of Neural Networks, 2017, arXiv:1711.09846.
    """

    def __init__(self, setting: Setting, population: Population) -> None:
        super().__init__()
        self._metric = setting.objective.metric
        self._setting = setting
        self._population = population
        self._values: dict[int, dict[int, float]] = {point: {} for point in population.points}
        self._left: set[int] = set()
        for number, epochs in setting.history.items():
            if number not in setting.unfinished and max(epochs, default=0) < setting.max_epochs:
                self._left.add(number)
            for point in epochs.keys() & self._values.keys():
                self._values[point][number] = _comparable(setting.objective.sign * epochs[point])

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Starts a member, or goes on with one that was here before."""
        self._left.discard(number_of(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stops a member by its last perturbation point, or lets it go on."""
        report = self._setting.report_of(trial, result)
        point = self._population.point_at(report.epoch) if report else None
        if report is None or point is None or report.epoch >= self._setting.max_epochs:
            return str(TrialScheduler.CONTINUE)
        number = report.number
        values = self._values[point]
        is_new = report.epoch == point and number not in values
        if is_new:
            values[number] = _comparable(report.value)
        if self._population.is_loser(number, values):
            self._leave(number)
            return str(TrialScheduler.STOP)
        if is_new:
            self._keep_best(point, number)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A finished trial can still be copied; one that was stopped, by whomever, cannot."""
        number, last = number_of(trial), TrialReport.from_ray(result)
        if last is None or not last.finished:
            self._leave(number)
        if self._setting.snapshots:
            self._setting.snapshots.drop_start(number)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A failed trial is not copied; one that comes again needs what it began with."""
        self._leave(number_of(trial))

    def _leave(self, number: int) -> None:
        self._left.add(number)
        if self._setting.snapshots:
            for point in self._population.points:
                self._setting.snapshots.drop(number, point)

    def _keep_best(self, point: int, newcomer: int) -> None:
        snapshots = self._setting.snapshots
        if not snapshots:
            return
        members = {number: value for number, value in self._values[point].items() if number not in self._left}
        best = self._population.best_of(members)
        if newcomer in best:
            snapshots.keep(newcomer, point)
        for number in members.keys() - best:
            snapshots.drop(number, point)


def _comparable(value: float) -> float:
    return -math.inf if math.isnan(value) else value
