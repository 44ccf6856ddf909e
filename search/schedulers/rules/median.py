"""The median stopping rule."""

import math
from collections.abc import Mapping
from statistics import fmean, median
from typing import Any

from search.config.asked import Asked
from search.config.problems import Problem
from search.schedulers.grace_period import GRACE_PERIOD, grace_period_problems, longest_grace_period
from search.schedulers.rule import KEY, Judged, SchedulerRule
from search.schedulers.setting import Setting
from segcore.component import Component, Option


class MedianRule:
    """Stops a trial whose best epoch so far is below the median of the others' running means at the same epoch.

    A running mean begins with the grace period, and a trial counts once it has reached that epoch. Ray's own rule is
    not used: while too few trials have reached the epoch it pauses the trial, which throws away what a trial learned
    since its last checkpoint; it keeps its records by Ray's trial objects, so that a resumed search would begin without
    them; and the NaN of one trial may spare that trial forever. Here a value that is not a number is ignored, and a
    report that was seen before is not judged again.

    References:
        Golovin et al., Google Vizier, KDD 2017.
    """

    def __init__(self, setting: Setting, grace_period: int, min_samples: int) -> None:
        self._grace_period = grace_period
        self._min_samples = min_samples
        self._values: dict[int, dict[int, float]] = {}
        self._means: dict[int, dict[int, float]] = {}  # epoch -> trial -> mean from the grace period up to it
        for number, epochs in setting.history.items():
            for epoch, value in sorted(epochs.items()):
                self._record(number, epoch, setting.objective.sign * value)

    def begins(self, number: int) -> None:
        """Does nothing: a trial counts from its first report on."""

    def goes_on(self, report: Judged) -> bool:
        """Stops a trial, or lets it continue."""
        number, epoch = report.number, report.epoch
        if epoch in self._values.get(number, {}):
            return True
        self._record(number, epoch, report.value)
        means = [mean for other, mean in self._means.get(epoch, {}).items() if other != number and math.isfinite(mean)]
        if epoch < self._grace_period or len(means) < self._min_samples:
            return True
        numbers = [seen for seen in self._values[number].values() if not math.isnan(seen)]
        return max(numbers, default=-math.inf) >= median(means)

    def ends(self, number: int, *, is_finished: bool) -> None:
        """Does nothing: others are still compared with the trial's means."""

    def fails(self, number: int) -> None:
        """Does nothing: others are still compared with the trial's means."""

    def _record(self, number: int, epoch: int, value: float) -> None:
        own = self._values.setdefault(number, {})
        own[epoch] = value
        if epoch >= self._grace_period:
            seen = [value for at, value in own.items() if at >= self._grace_period and not math.isnan(value)]
            self._means.setdefault(epoch, {})[number] = fmean(seen) if seen else math.nan


def _limits(options: Any, asked: Asked) -> Mapping[str, int]:
    return {"grace_period": longest_grace_period(asked), "min_samples": max(1, asked.num_samples - 1)}


def _problems(options: Any, asked: Asked) -> list[Problem]:
    problems, found, trials = grace_period_problems(options, asked), options.min_samples, asked.num_samples
    if "min_samples" in asked.given and found >= max(trials, 2):
        message = f"found {found} other trials, but there are only search.num_samples={trials} in all"
        problems.append(Problem(f"{KEY}.min_samples", f"{message}; valid: 1 to {max(1, trials - 1)}"))
    return problems


RULE = SchedulerRule(
    does="from `grace_period` on, stops a trial whose best epoch is below the median of the others' running means, "
    "once `min_samples` others came as far",
    when="few trials; milder than `asha`",
    judge=lambda options, setting: MedianRule(setting, options.grace_period, options.min_samples),
    limits=_limits,
    problems=_problems,
)

COMPONENT = Component(
    "median",
    "stops those below the median",
    RULE,
    (
        GRACE_PERIOD,
        Option("min_samples", int, 5, "other trials that must have come as far before one is stopped.", ge=1),
    ),
    order=30,
)
