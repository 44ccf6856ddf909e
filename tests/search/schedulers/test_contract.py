"""What every scheduler of the registry keeps, shown in a simulated event loop that calls it as Ray does."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from search.config.choices import SCHEDULERS
from search.config.tree import SchedulerConfig
from search.schedulers.setting import Curves, Setting
from search.tune.ray_scheduler import build_scheduler
from segcore.objective import Mode, Objective

METRIC = "val/iou"
NUM_TRIALS, MAX_EPOCHS = 20, 9
OPTIONS: dict[str, dict[str, Any]] = {
    "asha": {"grace_period": 1, "reduction_factor": 3},
    "hyperband": {"grace_period": 1, "reduction_factor": 2, "brackets": 3},
    "median": {"grace_period": 2, "min_samples": 3},
    "pbt": {"population": 4, "perturbation_interval": 2},
    "none": {},
}
STOPPING = [name for name in SCHEDULERS.names if name != "none"]
Decision = tuple[int, int, str]
each = pytest.mark.parametrize("name", SCHEDULERS.names)


def test_the_registry_the_config_and_these_tests_name_the_same_schedulers() -> None:
    named = get_args(SchedulerConfig.model_fields["name"].annotation)
    assert set(SCHEDULERS.names) == set(OPTIONS) == set(named)
    assert set(SCHEDULERS.options) == set(SchedulerConfig.model_fields) - {"name"}


def build(name: str, history: Curves, unfinished: Iterable[int] = (), mode: Mode = "max") -> TrialScheduler:
    setting = Setting(Objective(METRIC, mode), MAX_EPOCHS, 3, history, frozenset(unfinished))
    return build_scheduler(SchedulerConfig(name=name, **OPTIONS[name]), setting)


@dataclass
class FakeTrial:
    trial_id: str
    config: dict[str, Any]
    status: str = Trial.PENDING
    epoch: int = 0


@dataclass
class Loop:
    """Trials of recorded curves on some workers; `fail` maps a trial to the epoch at which it has an error."""

    scheduler: TrialScheduler
    curves: np.ndarray
    workers: int
    session: int = 0
    fail: dict[int, int] = field(default_factory=dict)
    history: dict[int, dict[int, float]] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    live: list[FakeTrial] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    waiting: list[int] = field(default_factory=lambda: list(range(NUM_TRIALS)))

    def get_trials(self) -> list[FakeTrial]:
        return self.live

    get_live_trials = get_trials

    def start(self) -> None:
        while len(self.live) < self.workers and self.waiting:
            number = self.waiting.pop(0)
            trial = FakeTrial(f"session-{self.session}-{number}", {"number": number})
            trial.epoch = max(self.history.get(number, {}), default=0)
            self.live.append(trial)
            self.scheduler.on_trial_add(self, trial)
            chosen = self.scheduler.choose_trial_to_run(self)
            assert chosen is trial, "a trial that is there does not get the free worker"
            trial.status = Trial.RUNNING

    def step(self) -> None:
        """One epoch of the trial whose turn it is."""
        self.start()
        trial = self.live.pop(0)
        number = trial.config["number"]
        trial.epoch += 1
        if self.fail.get(number) == trial.epoch:
            trial.status = Trial.ERROR
            self.scheduler.on_trial_error(self, trial)
            self.ended.add(number)
            return
        value = float(self.curves[number, trial.epoch - 1])
        finished = trial.epoch == MAX_EPOCHS
        result = {"epoch": trial.epoch, METRIC: value, "number": number, "finished": finished}
        decision = self.scheduler.on_trial_result(self, trial, dict(result))
        assert decision in (TrialScheduler.CONTINUE, TrialScheduler.STOP), "a paused function would start anew"
        self.history.setdefault(number, {})[trial.epoch] = value
        if finished and decision == TrialScheduler.CONTINUE:  # the function returned: Ray tells its last report again
            again = self.scheduler.on_trial_result(self, trial, {**result, "done": True})
            assert again in (TrialScheduler.CONTINUE, TrialScheduler.STOP)
        self.decisions.append((number, trial.epoch, "end" if finished else str(decision)))
        if finished or decision == TrialScheduler.STOP:
            trial.status = Trial.TERMINATED
            self.scheduler.on_trial_complete(self, trial, {**result, "done": True})
            self.ended.add(number)
        else:
            self.live.append(trial)

    def run(self, events: int = NUM_TRIALS * MAX_EPOCHS) -> "Loop":
        for _ in range(events):
            if not self.live and not self.waiting:
                break
            self.step()
        return self

    def resumed(self, name: str, mode: Mode = "max") -> "Loop":
        """The same search in a new session: a new scheduler, new ids, the live trials first and in their order."""
        running = [trial.config["number"] for trial in self.live]
        history = {number: dict(epochs) for number, epochs in self.history.items()}
        scheduler = build(name, history, running, mode)
        return Loop(
            scheduler, self.curves, self.workers, self.session + 1, self.fail, history, [], [], set(self.ended),
            [*running, *self.waiting],
        )  # fmt: skip


def curves(seed: int = 0) -> np.ndarray:
    """Rising learning curves with noise, (NUM_TRIALS, MAX_EPOCHS); every value is distinct."""
    rng = np.random.default_rng(seed)
    rise = 1 - 0.7 ** np.arange(1, MAX_EPOCHS + 1)
    return rng.uniform(0.3, 0.9, (NUM_TRIALS, 1)) * rise + rng.normal(0, 0.02, (NUM_TRIALS, MAX_EPOCHS))


@each
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_trial_comes_to_its_end(name: str, workers: int) -> None:
    loop = Loop(build(name, {}), curves(), workers, fail={2: 1, 5: 4, 11: 9}).run()
    assert loop.ended == set(range(NUM_TRIALS))
    stopped = [decision for decision in loop.decisions if decision[2] == TrialScheduler.STOP]
    assert bool(stopped) == (name != "none")
    assert any(decision == "end" for *_, decision in loop.decisions)


@each
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_resumed_search_decides_as_one_that_was_never_stopped(name: str, workers: int) -> None:
    for seed in range(3):
        whole = Loop(build(name, {}), curves(seed), workers).run().decisions
        for stop in range(1, len(whole), 7):
            first = Loop(build(name, {}), curves(seed), workers).run(stop)
            second = first.resumed(name).run()
            assert first.decisions + second.decisions == whole
            assert second.ended == set(range(NUM_TRIALS))


@pytest.mark.parametrize("name", STOPPING)
def test_a_search_that_is_stopped_again_and_again_decides_the_same(name: str) -> None:
    whole = Loop(build(name, {}), curves(), 4).run().decisions
    loop, decisions = Loop(build(name, {}), curves(), 4).run(5), []
    for _ in range(len(whole)):
        decisions += loop.decisions
        loop = loop.resumed(name).run(5)
    assert decisions == whole


@each
def test_lower_is_better_in_mode_min(name: str) -> None:
    most = Loop(build(name, {}), curves(), 2).run().decisions
    least = Loop(build(name, {}, mode="min"), -curves(), 2).run().decisions
    assert least == most
    wrong_way = Loop(build(name, {}, mode="min"), curves(), 2).run().decisions
    assert (wrong_way != most) == (name != "none")


@pytest.mark.parametrize("name", STOPPING)
def test_the_best_trial_is_never_stopped_and_the_worst_is(name: str) -> None:
    values = np.linspace(0.2, 0.9, NUM_TRIALS)[np.random.default_rng(1).permutation(NUM_TRIALS), None]
    loop = Loop(build(name, {}), values * np.linspace(0.9, 1.0, MAX_EPOCHS), 4).run()
    stopped = {number for number, _, decision in loop.decisions if decision == TrialScheduler.STOP}
    assert int(values[:, 0].argmax()) not in stopped
    assert values[sorted(stopped), 0].mean() < values[sorted(set(range(NUM_TRIALS)) - stopped), 0].mean()


@each
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_values_that_are_no_numbers_break_nothing(name: str, share: float) -> None:
    values = curves()
    values[np.random.default_rng(0).random(values.shape) < share] = math.nan
    values[3] = math.nan
    whole = Loop(build(name, {}), values, 2).run()
    assert whole.ended == set(range(NUM_TRIALS))
    if name != "none" and share < 1.0:
        assert (3, MAX_EPOCHS, "end") not in whole.decisions
    first = Loop(build(name, {}), values, 2).run(31)
    assert first.decisions + first.resumed(name).run().decisions == whole.decisions


@each
def test_a_report_without_the_metric_is_passed_over(name: str) -> None:
    loop = Loop(build(name, {}), curves(), 1)
    loop.start()
    assert loop.scheduler.on_trial_result(loop, loop.live[0], {"done": True}) == TrialScheduler.CONTINUE


@each
def test_a_trial_that_lost_its_worker_goes_on_under_a_new_id(name: str) -> None:
    loop = Loop(build(name, {}), curves(), 2).run(20)
    trial = loop.live[0]
    loop.scheduler.on_trial_error(loop, trial)
    loop.live.remove(trial)
    loop.session += 1
    loop.waiting.insert(0, trial.config["number"])
    assert loop.run().ended == set(range(NUM_TRIALS))
