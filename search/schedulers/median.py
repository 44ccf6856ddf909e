"""The median stopping rule."""

import math
from statistics import fmean, median
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.schedulers.setting import Setting


class MedianRule(FIFOScheduler):  # type: ignore[misc]
    """Stops a trial whose best epoch so far is below the median of the others' running means at the same epoch.

    A running mean begins with the grace period, and a trial counts once it has come as far. Ray's own rule is not used:
    while too few trials have come as far it pauses, which throws away what a trial learned since its last checkpoint;
    it keeps its records by Ray's trial objects, so that a resumed search would begin without them; and the NaN of one
    trial may spare that trial for ever. Here a value that is no number counts for nothing.

    References:
        Golovin et al., Google Vizier, KDD 2017.
    """

    def __init__(self, setting: Setting, grace_period: int, min_samples: int) -> None:
        super().__init__()
        self._metric = setting.objective.metric
        self._setting = setting
        self._grace_period = grace_period
        self._min_samples = min_samples
        self._values: dict[int, dict[int, float]] = {}
        self._means: dict[int, dict[int, float]] = {}  # epoch -> trial -> mean from the grace period up to it
        for number, epochs in setting.history.items():
            for epoch, value in sorted(epochs.items()):
                self._record(number, epoch, setting.objective.sign * value)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stops a trial, or lets it go on; a report that was told before is not judged again."""
        report = self._setting.report_of(trial, result)
        if report is None or report.epoch in self._values.get(report.number, {}):
            return str(TrialScheduler.CONTINUE)
        number, epoch, value, _ = report
        self._record(number, epoch, value)
        means = [mean for other, mean in self._means.get(epoch, {}).items() if other != number and math.isfinite(mean)]
        if epoch < self._grace_period or len(means) < self._min_samples:
            return str(TrialScheduler.CONTINUE)
        numbers = [seen for seen in self._values[number].values() if not math.isnan(seen)]
        is_poor = max(numbers, default=-math.inf) < median(means)
        return str(TrialScheduler.STOP if is_poor else TrialScheduler.CONTINUE)

    def _record(self, number: int, epoch: int, value: float) -> None:
        own = self._values.setdefault(number, {})
        own[epoch] = value
        if epoch >= self._grace_period:
            seen = [value for at, value in own.items() if at >= self._grace_period and not math.isnan(value)]
            self._means.setdefault(epoch, {})[number] = fmean(seen) if seen else math.nan
