from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from search.config.tree import SchedulerConfig
from search.schedulers.setting import Curves, Setting
from search.tune.ray_scheduler import build_scheduler
from segcore.objective import Objective

METRIC = "val/iou"
GO_ON, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def build(history: Curves, **options: Any) -> TrialScheduler:
    config = SchedulerConfig(**{"name": "median", "grace_period": 2, "min_samples": 3, **options})
    return build_scheduler(config, Setting(Objective(METRIC), 9, history=history))


def report(scheduler: TrialScheduler, number: int, epoch: int, value: float) -> str:
    trial = SimpleNamespace(trial_id=f"ray-{number}", config={"number": number})
    return str(scheduler.on_trial_result(None, trial, {"epoch": epoch, METRIC: value}))


OTHERS = {0: {1: 0.0, 2: 0.2, 3: 0.4}, 1: {1: 0.0, 2: 0.4, 3: 0.6}, 2: {1: 0.0, 2: 0.6, 3: 0.8}}
"""Running means from epoch 2 on: 0.2, 0.4, 0.6 at epoch 2, and 0.3, 0.5, 0.7 at epoch 3."""


@pytest.mark.parametrize(("value", "decision"), [(0.39, STOP), (0.4, GO_ON), (0.41, GO_ON)])
def test_a_trial_is_stopped_strictly_below_the_median_of_the_running_means(value: float, decision: str) -> None:
    assert report(build(OTHERS), 3, 2, value) == decision


def test_the_best_epoch_counts_and_the_means_grow_with_the_epochs() -> None:
    scheduler = build(OTHERS)
    assert [report(scheduler, 3, epoch, value) for epoch, value in [(1, 0.49), (2, 0.1), (3, 0.1)]] == [
        GO_ON, GO_ON, STOP,
    ]  # fmt: skip


def test_the_grace_period_spares_a_trial() -> None:
    assert report(build(OTHERS, grace_period=4), 3, 3, 0.0) == GO_ON


def test_too_few_others_at_an_epoch_stop_nobody() -> None:
    scheduler = build({**OTHERS, 2: {1: 0.0, 2: 0.6}})
    assert report(scheduler, 3, 3, 0.0) == GO_ON
    assert report(scheduler, 4, 2, 0.0) == STOP


def test_a_trial_is_no_sample_of_its_own() -> None:
    scheduler = build({number: OTHERS[number] for number in (0, 1)})
    assert [report(scheduler, 2, epoch, 0.0) for epoch in (1, 2, 3)] == [GO_ON] * 3


def test_an_epoch_that_is_told_again_is_not_judged_again() -> None:
    scheduler = build({})
    assert report(scheduler, 9, 2, 0.0) == GO_ON
    for number, epochs in OTHERS.items():
        report(scheduler, number, 2, epochs[2])
    assert report(scheduler, 9, 2, 0.0) == GO_ON
    assert report(scheduler, 8, 2, 0.0) == STOP


def test_a_value_that_is_no_number_is_stopped_and_counts_for_nothing() -> None:
    nan = float("nan")
    scheduler = build({**OTHERS, 7: {1: nan, 2: nan}, 8: {1: 0.0, 2: nan, 3: 0.5}})
    assert report(scheduler, 3, 2, 0.4) == GO_ON  # the median is that of the three numbers
    assert report(scheduler, 4, 2, nan) == STOP
    assert report(scheduler, 5, 2, 0.39) == STOP
