from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from search.schedulers import History, build_scheduler

METRIC = "val/iou"


def build(history: History, *, unfinished: Iterable[int] = (), **options: Any) -> TrialScheduler:
    settings = {
        "metric": METRIC, "mode": "max", "max_epochs": 9, "grace_period": 1, "reduction_factor": 3,
        "history": history, "unfinished": unfinished, **options,
    }  # fmt: skip
    return build_scheduler("asha", **settings)


def add(scheduler: TrialScheduler, number: int) -> SimpleNamespace:
    """What Ray does when it starts a trial."""
    trial = SimpleNamespace(trial_id=f"ray-{number}", config={"number": number})
    scheduler.on_trial_add(None, trial)
    return trial


def report(scheduler: TrialScheduler, trial: SimpleNamespace, epoch: int, value: float) -> str:
    return str(scheduler.on_trial_result(None, trial, {"epoch": epoch, METRIC: value}))


def run(scheduler: TrialScheduler, number: int, values: list[float]) -> list[float]:
    """Runs a trial until it is stopped; the values that it came to report."""
    trial = add(scheduler, number)
    for epoch, value in enumerate(values, start=1):
        if report(scheduler, trial, epoch, value) == TrialScheduler.STOP:
            return values[:epoch]
    return values


def curves(count: int, seed: int = 0) -> list[list[float]]:
    """Learning curves of 9 epochs that rise, with noise."""
    rng = np.random.default_rng(seed)
    return [
        (rng.uniform(0.3, 0.9) * (1 - 0.7 ** np.arange(1, 10)) + rng.normal(0, 0.02, 9)).tolist() for _ in range(count)
    ]


def rungs(scheduler: TrialScheduler) -> dict[int, list[float]]:
    """Milestone -> recorded values, sorted; the last epoch stops a trial whatever its value and is left out."""
    (bracket,) = scheduler._brackets  # type: ignore[attr-defined]
    return {int(milestone): sorted(recorded.values()) for milestone, recorded in bracket._rungs if milestone < 9}


def test_a_replayed_history_decides_as_the_scheduler_that_saw_the_trials() -> None:
    first = build({})
    history: dict[int, dict[int, float]] = {}
    for number, curve in enumerate(curves(12)):
        history[number] = dict(enumerate(run(first, number, curve), start=1))
    assert len({len(epochs) for epochs in history.values()}) > 1  # some were stopped, some not
    second = build(history)
    assert rungs(second) == rungs(first)
    for number, curve in enumerate(curves(20, seed=1), start=12):
        assert run(second, number, curve) == run(first, number, curve)


def test_a_history_in_any_order_of_epochs_gives_the_same_rungs() -> None:
    history = {0: {1: 0.1, 2: 0.2, 3: 0.3}, 1: {1: 0.4, 2: 0.5, 3: 0.6}}
    backwards = {number: dict(reversed(epochs.items())) for number, epochs in history.items()}
    assert rungs(build(backwards)) == rungs(build(history)) == {3: [0.3, 0.6], 1: [0.1, 0.4]}


def test_a_trial_that_goes_on_counts_once_at_each_rung() -> None:
    """Trial 1 stood at epoch 4 when the driver was killed; its passes of the rungs 1 and 3 are in the history."""
    history = {0: {1: 0.3, 2: 0.4, 3: 0.5}, 1: {1: 0.6, 2: 0.7, 3: 0.8, 4: 0.85}}
    scheduler = build(history, unfinished=[1])
    before = rungs(scheduler)
    trial = add(scheduler, 1)
    for epoch, value in [(5, 0.86), (6, 0.87), (7, 0.88), (8, 0.89)]:
        assert report(scheduler, trial, epoch, value) == TrialScheduler.CONTINUE
    assert rungs(scheduler) == before
    assert report(scheduler, trial, 9, 0.9) == TrialScheduler.STOP  # its last epoch
    assert rungs(scheduler) == before == {3: [0.5, 0.8], 1: [0.3, 0.6]}


def test_a_trial_that_goes_on_is_not_judged_again_at_a_rung_that_it_passed() -> None:
    """At epoch 3 it was good enough; what later trials reached there must not stop it at epoch 4."""
    history = {0: {1: 0.5, 2: 0.5, 3: 0.5}, 1: {1: 0.9, 2: 0.9, 3: 0.9}, 2: {1: 0.9, 2: 0.9, 3: 0.9}}
    scheduler = build(history, unfinished=[0])
    trial = add(scheduler, 0)
    assert report(scheduler, trial, 4, 0.5) == TrialScheduler.CONTINUE


def test_a_trial_that_goes_on_from_an_earlier_checkpoint_keeps_its_rung() -> None:
    """Its checkpoint is of epoch 2, its report of epoch 3 is in the history: epoch 3 is trained and told again."""
    scheduler = build({0: {1: 0.5, 2: 0.6, 3: 0.7}}, unfinished=[0])
    trial = add(scheduler, 0)
    assert report(scheduler, trial, 3, 0.7) == TrialScheduler.CONTINUE
    assert rungs(scheduler) == {3: [0.7], 1: [0.5]}


def test_a_new_trial_is_judged_against_the_history() -> None:
    scheduler = build({number: {1: 0.5 + number / 100} for number in range(9)})
    assert report(scheduler, add(scheduler, 9), 1, 0.1) == TrialScheduler.STOP
    assert report(scheduler, add(scheduler, 10), 1, 0.9) == TrialScheduler.CONTINUE


def test_lower_is_better_in_mode_min() -> None:
    scheduler = build({number: {1: 0.5 + number / 100} for number in range(9)}, mode="min")
    assert report(scheduler, add(scheduler, 9), 1, 0.9) == TrialScheduler.STOP
    assert report(scheduler, add(scheduler, 10), 1, 0.1) == TrialScheduler.CONTINUE


def test_the_grace_period_spares_a_trial() -> None:
    history = {number: dict.fromkeys(range(1, 5), 0.9) for number in range(5)}
    scheduler = build(history, grace_period=4)
    trial = add(scheduler, 5)
    assert [report(scheduler, trial, epoch, 0.1) for epoch in (1, 2, 3)] == [TrialScheduler.CONTINUE] * 3
    assert report(scheduler, trial, 4, 0.1) == TrialScheduler.STOP


@pytest.mark.parametrize("max_epochs", [1, 2])
def test_a_grace_period_beyond_the_last_epoch_stops_nobody_early(max_epochs: int) -> None:
    history = {number: {max_epochs: 0.9} for number in range(5)}
    scheduler = build(history, grace_period=5, max_epochs=max_epochs)
    trial = add(scheduler, 5)
    for epoch in range(1, max_epochs):
        assert report(scheduler, trial, epoch, 0.0) == TrialScheduler.CONTINUE
    assert report(scheduler, trial, max_epochs, 0.0) == TrialScheduler.STOP


def test_none_stops_nobody() -> None:
    scheduler = build_scheduler(
        "none", metric=METRIC, mode="max", max_epochs=9, grace_period=1, reduction_factor=3,
        history={0: {1: 0.9}}, unfinished=[],
    )  # fmt: skip
    assert isinstance(scheduler, FIFOScheduler)
    assert scheduler.on_trial_result(None, None, {"epoch": 1, METRIC: 0.0}) == TrialScheduler.CONTINUE


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_a_value_that_is_no_number_does_not_break_a_rung() -> None:
    scheduler = build({0: {1: float("nan")}, 1: {1: 0.5}, 2: {1: 0.6}})
    assert report(scheduler, add(scheduler, 3), 1, 0.9) == TrialScheduler.CONTINUE
    assert report(scheduler, add(scheduler, 4), 1, 0.1) == TrialScheduler.STOP
