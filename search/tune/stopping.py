"""When a search has had enough: its target is reached, its time is up, or little more is to be expected.

The rules are pure functions of values; `SearchStopper` feeds them from Ray's reports.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from search.config.tree import SearchSettings
from search.runs.lives import TrialLife
from segcore.objective import Objective
from segcore.spec import RayResult, TrialReport, number_of

MIN_EXCESSES = 5


@dataclass(frozen=True)
class Stop:
    """Why a search ended before its last trial: the rule's key below `search`, and the numbers behind it."""

    rule: str
    detail: str


def expected_gain(values: Sequence[float], num_more: int, objective: Objective) -> float:
    """How much `num_more` further trials together are expected to improve on the best of `values`.

    The assumption: trials are independent draws of one distribution whose tail above the k-th best value,
    k = max(5, n/5), is exponential. That is the memoryless case between the tails that the theorem of peaks over a
    threshold allows; scores with an upper bound, such as IoU, have shorter tails, so the gain is rather over- than
    underestimated. The mean excess over the k-th best estimates the tail's scale without bias, since the spacings of
    ordered exponentials are independent (Renyi 1953), and the best of n exponentials is expected at scale * H_n, so

        E[gain] = mean_excess * (H_{n+m} - H_n),        H_n = 1 + 1/2 + ... + 1/n.

    A sampler that learns is better than independent draws as long as the search rises, which the excesses then show.

    Args:
        values: One value per trial, at least 2.
        num_more: How many further trials.
        objective: Says which is the best.

    Returns:
        The gain in the metric's own unit, 0 or more.

    Raises:
        ValueError: There are fewer than 2 values.

    References:
        Pickands, Statistical Inference Using Extreme Order Statistics, Annals of Statistics 1975.
        Balkema and de Haan, Residual Life Time at Great Age, Annals of Probability 1974.
        Renyi, On the Theory of Order Statistics, Acta Mathematica Hungarica 1953.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"needs at least 2 values, found {n}")
    k = min(n, max(MIN_EXCESSES, n // 5))
    top = sorted((objective.sign * value for value in values), reverse=True)[:k]
    mean_excess = sum(value - top[-1] for value in top[:-1]) / (k - 1)
    return mean_excess * sum(1.0 / i for i in range(n + 1, n + num_more + 1))


class SearchStopper(tune.Stopper, tune.Callback):  # type: ignore[misc]
    """Ends the whole search by the rules of `search`; never a single trial.

    Ray asks `stop_all` after each event, at least every few seconds, also while all trials are within an epoch. As a
    callback it learns which trials have ended, and which failed; a failed trial's values count for no rule.

    Args:
        settings: The config's `search` section.
        lives: The run's trials, for what earlier sessions found.
        used_s: Seconds that the search has taken so far, all sessions together.

    Attributes:
        stopped_by: The rule that ended the search, once one has.
    """

    def __init__(self, settings: SearchSettings, lives: Iterable[TrialLife], used_s: float = 0.0) -> None:
        self._settings = settings
        self._objective = settings.objective
        self._started = time.monotonic() - used_s
        self._best: dict[int, float] = {}
        self._ended: set[int] = set()
        self._gain: float | None = None
        self.stopped_by: Stop | None = None
        for life in lives:
            if life.state in ("failed", "waiting"):
                continue
            for value in life.values(settings.metric).values():
                self._note(life.number, value)
            if life.has_ended:
                self._ended.add(life.number)
        self._estimate()

    def __call__(self, trial_id: str, result: RayResult) -> bool:
        """Notes a report; no single trial is stopped."""
        report = TrialReport.from_ray(result)
        if report is not None:
            self._note(report.number, float(report.metrics[self._objective.metric]))
        return False

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Notes that a trial ended, or was stopped at a rung.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            **info: Whatever else Ray passes; not used.
        """
        self._ended.add(number_of(trial))
        self._estimate()

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Notes that a trial failed.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            **info: Whatever else Ray passes; not used.
        """
        self._best.pop(number_of(trial), None)
        self._estimate()

    def stop_all(self) -> bool:
        """Whether the search ends here; once it does, it stays so."""
        self.stopped_by = self.stopped_by or self.reason()
        return self.stopped_by is not None

    def reason(self) -> Stop | None:
        """The first rule that is met, if any."""
        return self._target() or self._time_budget() or self._plateau()

    def _target(self) -> Stop | None:
        target, metric = self._settings.target, self._settings.metric
        if target is None or not self._best:
            return None
        sign = self._objective.sign
        number, value = max(self._best.items(), key=lambda item: (sign * item[1], -item[0]))
        if sign * value < sign * target:
            return None
        return Stop("target", f"trial {number} has {metric} {value:.4f}, which reaches {target:g}")

    def _time_budget(self) -> Stop | None:
        budget = self._settings.time_budget_s
        if budget is None or time.monotonic() - self._started < budget:
            return None
        return Stop("time_budget_s", f"its {budget:g} s, all sessions together, are used up")

    def _plateau(self) -> Stop | None:
        plateau = self._settings.plateau
        if plateau is None or self._gain is None or self._gain >= plateau.floor:
            return None
        num_ended = len(self._ended & self._best.keys())
        return Stop(
            "plateau",
            f"after {num_ended} trials, the next {plateau.trials} together would be expected to gain "
            f"{self._gain:.2g} {self._settings.metric}, less than {plateau.floor:g}",
        )

    def _note(self, number: int, value: float) -> None:
        if not math.isfinite(value):
            return
        if self._objective.better(value, self._best.get(number)):
            self._best[number] = value

    def _estimate(self) -> None:
        plateau = self._settings.plateau
        values = [value for number, value in self._best.items() if number in self._ended]
        if plateau is None or len(values) < plateau.min_trials:
            self._gain = None
        else:
            self._gain = expected_gain(values, plateau.trials, self._objective)
