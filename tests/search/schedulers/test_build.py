from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from search.config.tree import SchedulerConfig
from search.schedulers.build import decision_epochs
from search.schedulers.halving import Halving
from search.schedulers.setting import Curves, Setting
from search.tune.ray_scheduler import JudgedTrials, build_scheduler
from segcore.objective import Mode, Objective

METRIC = "val/iou"


def build(
    history: Curves,
    *,
    unfinished: Iterable[int] = (),
    mode: Mode = "max",
    max_epochs: int = 9,
    seed: int = 0,
    **options: Any,
) -> TrialScheduler:
    config = SchedulerConfig(**{"name": "asha", "grace_period": 1, "reduction_factor": 3, **options})
    setting = Setting(Objective(METRIC, mode), max_epochs, seed, history, frozenset(unfinished))
    return build_scheduler(config, setting)


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


def judge_of(scheduler: TrialScheduler) -> Halving:
    assert isinstance(scheduler, JudgedTrials)
    assert isinstance(scheduler.judge, Halving)
    return scheduler.judge


def rungs(scheduler: TrialScheduler) -> dict[int, list[float]]:
    """Milestone -> recorded values, sorted; the last epoch stops a trial whatever its value and is left out."""
    (bracket,) = judge_of(scheduler).brackets
    return {epoch: sorted(values.values()) for epoch, values in bracket.rungs if epoch < 9}


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
    scheduler = build({0: {1: 0.9}}, name="none")
    assert isinstance(scheduler, FIFOScheduler)
    assert scheduler.on_trial_result(None, None, {"epoch": 1, METRIC: 0.0}) == TrialScheduler.CONTINUE


@pytest.mark.filterwarnings("error")
def test_a_value_that_is_no_number_is_stopped_at_a_rung_and_is_no_measure_for_others() -> None:
    nan = float("nan")
    scheduler = build({0: {1: nan}})
    assert report(scheduler, add(scheduler, 1), 1, nan) == TrialScheduler.CONTINUE  # there is nothing to compare with
    assert report(scheduler, add(scheduler, 2), 1, 0.5) == TrialScheduler.CONTINUE
    assert report(scheduler, add(scheduler, 3), 1, 0.6) == TrialScheduler.CONTINUE
    assert report(scheduler, add(scheduler, 4), 1, nan) == TrialScheduler.STOP
    assert report(scheduler, add(scheduler, 5), 1, 0.1) == TrialScheduler.STOP
    assert report(scheduler, add(scheduler, 6), 1, 0.9) == TrialScheduler.CONTINUE
    assert rungs(scheduler)[1] == [0.1, 0.5, 0.6, 0.9]


def test_a_trial_that_lost_its_worker_and_comes_again_counts_once() -> None:
    scheduler = build({})
    first = add(scheduler, 0)
    report(scheduler, first, 1, 0.5)
    scheduler.on_trial_error(None, first)
    again = SimpleNamespace(trial_id="another id", config={"number": 0})
    scheduler.on_trial_add(None, again)
    assert [report(scheduler, again, epoch, 0.5) for epoch in (1, 2, 3)] == [TrialScheduler.CONTINUE] * 3
    assert rungs(scheduler) == {3: [0.5], 1: [0.5]}


def hyperband(history: Curves | None = None, **options: Any) -> TrialScheduler:
    return build(history or {}, name="hyperband", max_epochs=27, **options)


def test_each_bracket_of_hyperband_begins_later() -> None:
    milestones = [sorted(epoch for epoch, _ in bracket.rungs) for bracket in judge_of(hyperband()).brackets]
    assert milestones == [[1, 3, 9, 27], [3, 9, 27], [9, 27]]


def test_a_bracket_follows_from_seed_and_number_and_survives_a_resume() -> None:
    brackets = [judge_of(hyperband()).bracket_of(number) for number in range(300)]
    np.random.seed(5)
    resumed = hyperband({number: {1: 0.5} for number in range(9)}, unfinished=[3])
    for number in range(300):
        add(resumed, number)
    assert [judge_of(resumed).bracket_of(number) for number in range(300)] == brackets
    assert [judge_of(hyperband(seed=-1)).bracket_of(number) for number in range(300)] != brackets
    shares = np.bincount(brackets) / 300
    assert np.allclose(shares, [0.665, 0.245, 0.09], atol=0.06)


def test_a_trial_is_compared_within_its_bracket_alone() -> None:
    scheduler = hyperband()
    by_bracket = {b: [n for n in range(60) if judge_of(scheduler).bracket_of(n) == b] for b in range(3)}
    for number in by_bracket[0][:6]:
        report(scheduler, add(scheduler, number), 1, 0.9)
    assert report(scheduler, add(scheduler, by_bracket[0][6]), 1, 0.1) == TrialScheduler.STOP
    late = add(scheduler, by_bracket[2][0])
    assert [report(scheduler, late, epoch, 0.1) for epoch in range(1, 10)] == [TrialScheduler.CONTINUE] * 9
    assert [report(scheduler, add(scheduler, by_bracket[2][1]), 9, 0.0)] == [TrialScheduler.STOP]


@pytest.mark.parametrize(
    ("options", "max_epochs", "expected"),
    [
        ({"name": "asha", "grace_period": 2, "reduction_factor": 3}, 25, (2, 6, 18)),
        ({"name": "asha", "grace_period": 2, "reduction_factor": 3}, 18, (2, 6)),
        ({"name": "asha", "grace_period": 5}, 5, ()),
        ({"name": "hyperband", "grace_period": 1, "reduction_factor": 3}, 28, (1, 3, 9, 27)),
        ({"name": "pbt", "perturbation_interval": 4}, 12, (4, 8)),
        ({"name": "median"}, 25, ()),
        ({"name": "none"}, 25, ()),
    ],
)
def test_the_epochs_that_are_worth_a_checkpoint(
    options: dict[str, Any], max_epochs: int, expected: tuple[int, ...]
) -> None:
    assert decision_epochs(SchedulerConfig(**options), max_epochs) == expected


@pytest.mark.parametrize("grace_period", [1, 2, 4, 9])
@pytest.mark.parametrize("reduction_factor", [2, 3, 4])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_asha_decides_as_rays_own(grace_period: int, reduction_factor: int, mode: Mode) -> None:
    """Trials side by side, in an order of chance."""
    theirs = AsyncHyperBandScheduler(
        time_attr="epoch", metric=METRIC, mode=mode, max_t=9, grace_period=grace_period,
        reduction_factor=reduction_factor,
    )  # fmt: skip
    ours = build({}, mode=mode, grace_period=grace_period, reduction_factor=reduction_factor, promote=False)
    rng = np.random.default_rng(grace_period)
    live = {number: [add(theirs, number), add(ours, number), 0] for number in range(40)}
    values, decisions = curves(40), []
    while live:
        number = int(rng.choice(list(live)))
        their_trial, our_trial, epoch = live[number]
        live[number][2] = epoch + 1
        told = [report(*each, epoch + 1, values[number][epoch]) for each in ((theirs, their_trial), (ours, our_trial))]
        assert told[0] == told[1]
        decisions.append(told[0])
        if told[0] == TrialScheduler.STOP:
            del live[number]
    assert set(decisions) == {TrialScheduler.STOP, TrialScheduler.CONTINUE} or grace_period == 9
