"""Asynchronous successive halving, in one bracket or several."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from search.schedulers.setting import Setting
from segcore.spec import number_of


def rungs(grace_period: int, reduction_factor: int, max_epochs: int) -> tuple[int, ...]:
    """The epochs of all rungs below the last epoch."""
    found = []
    rung = grace_period
    while rung < max_epochs:
        found.append(rung)
        rung *= reduction_factor
    return tuple(found)


class ResumableAsha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """Ray's ASHA over the study's numbers of trials, so that a trial that comes again is the one it was.

    ASHA compares each trial at a rung with all that reached the rung before it. A resumed search starts a new
    scheduler, so the rungs are filled by replaying the reports of earlier trials. One that goes on, under a new id of
    Ray's, counts once at each rung and is not judged there again. Ray draws a trial's bracket from numpy's global
    state; here it follows from the seed and the trial's number. A value that is no number is as bad as can be, and no
    measure for others.
    """

    def __init__(self, setting: Setting, grace_period: int, reduction_factor: int, brackets: int = 1) -> None:
        super().__init__(
            time_attr="epoch",
            metric=setting.objective.metric,
            mode=setting.objective.mode,
            max_t=setting.max_epochs,
            grace_period=min(grace_period, setting.max_epochs),
            reduction_factor=reduction_factor,
            brackets=brackets,
        )
        self._seed = setting.seed
        for number, epochs in setting.history.items():
            trial = SimpleNamespace(config={"number": number})
            self.on_trial_add(None, trial)
            for epoch, value in sorted(epochs.items()):
                self.on_trial_result(None, trial, {"epoch": epoch, setting.objective.metric: value})

    def bracket_of(self, number: int) -> int:
        """Which bracket a trial belongs to; earlier ones, which stop more trials, get more of them, as in Ray's own."""
        sizes = np.array([len(bracket._rungs) for bracket in self._brackets])
        shares = np.exp(sizes - sizes.max())
        rng = np.random.default_rng((self._seed % 2**64, number))
        return int(rng.choice(len(sizes), p=shares / shares.sum()))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Starts a trial, or goes on with one that was here before."""
        number = number_of(trial)
        self._trial_info[number] = self._brackets[self.bracket_of(number)]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stops a trial at a rung, or lets it go on."""
        number = number_of(trial)
        epoch, value = result.get("epoch"), result.get(self._metric)
        if epoch is None or value is None or epoch >= self._max_t or not math.isnan(value):
            return str(super().on_trial_result(tune_controller, SimpleNamespace(trial_id=number), result))
        for milestone, recorded in self._trial_info[number]._rungs:
            if epoch >= milestone:
                return str(TrialScheduler.STOP if recorded and number not in recorded else TrialScheduler.CONTINUE)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Keeps what the trial reported in its rungs; it needs nothing else."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """As at its end."""
