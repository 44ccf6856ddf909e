"""Population based training, the part that stops; `search.population` makes the forks."""

import math
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.population import Population
from search.schedulers.setting import Setting


class PopulationScheduler(FIFOScheduler):  # type: ignore[misc]
    """Stops a member that is among the worst of the population at a perturbation point, and keeps copies of the best.

    A member is compared with those of the population, finished ones included, that were at the same epoch before it.
    One that was stopped or has failed has left the population. Ray's `PopulationBasedTraining` is not used: it takes no
    searcher, and it changes the config of a running trial, so that no trial of the study would be what its parameters
    say. A value that is no number is the worst.

    References:
        Jaderberg et al., Population Based Training of Neural Networks, 2017, arXiv:1711.09846.
    """

    def __init__(self, setting: Setting, population: Population) -> None:
        super().__init__()
        self._metric = setting.metric
        self._setting = setting
        self._population = population
        self._values: dict[int, dict[int, float]] = {point: {} for point in population.points}
        for number, epochs in setting.history.items():
            if number not in setting.unfinished and max(epochs, default=0) < setting.max_epochs:
                continue
            for point in epochs.keys() & self._values.keys():
                self._values[point][number] = _comparable(setting.sign * epochs[point])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stops a member at a perturbation point, or lets it go on; none is judged twice at one."""
        report = self._setting.report_of(trial, result)
        if report is None or report[0] in self._values.get(report[1], {report[0]: 0.0}):
            return str(TrialScheduler.CONTINUE)
        number, epoch, value = report
        members = self._values[epoch]
        members[number] = _comparable(value)
        if self._population.is_loser(members[number], list(members.values())):
            self._leave(number)
            return str(TrialScheduler.STOP)
        self._keep_best(epoch, number)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A finished trial stays a member; one that was stopped, by whomever, does not."""
        number = int(trial.config["number"])
        if not result.get("finished"):
            self._leave(number)
        if self._setting.snapshots:
            self._setting.snapshots.drop_start(number)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A failed trial is no member any more; one that comes again needs what it began with."""
        self._leave(int(trial.config["number"]))

    def _leave(self, number: int) -> None:
        for epoch, members in self._values.items():
            members.pop(number, None)
            if self._setting.snapshots:
                self._setting.snapshots.drop(number, epoch)

    def _keep_best(self, epoch: int, newcomer: int) -> None:
        snapshots, members = self._setting.snapshots, self._values[epoch]
        if not snapshots:
            return
        best = self._population.best_of(members)
        if newcomer in best:
            snapshots.keep(newcomer, epoch)
        for number in members.keys() - best:
            snapshots.drop(number, epoch)


def _comparable(value: float) -> float:
    return -math.inf if math.isnan(value) else value
