"""When Ray stops a trial early."""

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

History = Mapping[int, Mapping[int, float]]
"""Trial number -> epoch -> value of the metric, of trials that ran before."""


def build_scheduler(
    name: str,
    *,
    metric: str,
    mode: str,
    max_epochs: int,
    grace_period: int,
    reduction_factor: float,
    history: History,
    unfinished: Iterable[int] = (),
) -> TrialScheduler:
    """The scheduler of that name, as if it had seen `history` itself.

    ASHA compares each trial at a rung with all that reached the rung before it. A resumed search starts a new
    scheduler, so the rungs are filled by replaying the reports of finished trials; those of `unfinished` trials,
    which go on, are replayed too: their values at the rungs that they passed count once, and they are not judged there
    again.

    References:
        Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020 (ASHA).
    """
    if name == "none":
        return FIFOScheduler()
    scheduler = ResumableAsha(
        time_attr="epoch",
        metric=metric,
        mode=mode,
        max_t=max_epochs,
        grace_period=min(grace_period, max_epochs),
        reduction_factor=reduction_factor,
    )
    finished = set(history) - set(unfinished)
    for number, epochs in history.items():
        trial = SimpleNamespace(trial_id=_replayed_id(number), config={})
        scheduler.on_trial_add(None, trial)
        for epoch, value in sorted(epochs.items()):
            scheduler.on_trial_result(None, trial, {"epoch": epoch, metric: value})
        if number in finished:
            scheduler.on_trial_remove(None, trial)
    return scheduler


class ResumableAsha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA in which a trial that goes on takes over the records of its replayed history.

    Ray knows trials by their ids, and a trial that goes on gets a new one.
    """

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Starts a trial; its `config["number"]` says which trial of the history it is, if any."""
        super().on_trial_add(tune_controller, trial)
        replayed = _replayed_id(trial.config.get("number"))
        if self._trial_info.pop(replayed, None) is None:
            return
        for bracket in self._brackets:
            for _, recorded in bracket._rungs:
                if replayed in recorded:
                    recorded[trial.trial_id] = recorded.pop(replayed)


def _replayed_id(number: int | None) -> str:
    return f"history-{number}"
