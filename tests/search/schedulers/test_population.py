"""A population: who loses, and that it neither stalls nor forgets."""

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from fork_space import EPOCHS, METRIC, OPTIONS, SPACE
from optuna.trial import FrozenTrial, TrialState
from ray.tune.schedulers import TrialScheduler

from search.config.tree import SchedulerConfig
from search.runs.paths import RunPaths, trial_dirname
from search.schedulers.forks import (
    PARENT_ATTR,
    Forks,
    Snapshots,
)
from search.schedulers.rules.pbt import population_of
from search.schedulers.setting import Setting
from search.study.observations import PARAMS_ATTR, curves_of
from search.tune.ray_scheduler import build_scheduler
from segcore.objective import Objective


@pytest.mark.parametrize(
    ("values", "losers"),
    [
        ([0.1, 0.2, 0.3], []),
        ([0.1, 0.2, 0.3, 0.4], [0]),
        ([0.3, 0.2, 0.1, 0.4], [2]),
        ([0.5, 0.5, 0.5, 0.5], []),
        ([0.1, 0.1, 0.3, 0.4], []),
        ([0.0, 0.2, 0.3, 0.1, 0.4], [3]),  # the population is of 4: the first trial is none of the youngest
    ],
)
def test_the_bottom_quarter_of_the_youngest_loses(values: list[float], losers: list[int]) -> None:
    population = population_of(OPTIONS, EPOCHS)
    known = dict(enumerate(values))
    assert [number for number in known if population.is_loser(number, known)] == losers


def test_a_larger_population_loses_more() -> None:
    population = population_of(OPTIONS.model_copy(update={"population": 8}), EPOCHS)
    known = {number: number / 10 for number in range(8)}
    assert [number for number in known if population.is_loser(number, known)] == [0, 1]


def test_the_points_lie_before_the_last_epoch() -> None:
    population = population_of(OPTIONS, EPOCHS)
    assert population.points == (2, 4)
    assert [population.point_at(epoch) for epoch in range(1, 7)] == [None, 2, 2, 4, 4, 4]


def new_study() -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1))


@dataclass
class World:
    """A searcher's and Ray's part of population based training, with checkpoints that are small files.

    A trial's metric rises with its epoch, faster the nearer its learning rate is to 0.01, from where its parent was.
    """

    root: Path
    num_samples: int
    workers: int
    study: optuna.Study = field(default_factory=new_study)
    options: SchedulerConfig = OPTIONS
    running: dict[int, int] = field(default_factory=dict)
    decisions: list[tuple[int, int, str]] = field(default_factory=list)
    fail: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self.root.mkdir(exist_ok=True)
        self.paths = RunPaths(self.root)
        self.snapshots = Snapshots(self.paths)
        population = population_of(self.options, EPOCHS)
        self.forks = Forks(population, SPACE, self.snapshots, Objective(METRIC), seed=5)
        unfinished = [t.number for t in self.trials if t.state == TrialState.RUNNING]
        self.running = {n: max(self.trials[n].intermediate_values, default=0) for n in unfinished}
        self.scheduler = build_scheduler(
            self.options,
            Setting(
                Objective(METRIC), EPOCHS, 5, curves_of(self.study), frozenset(unfinished), snapshots=self.snapshots
            ),
        )
        for number in unfinished:
            self.running[number] = max(self.running[number], self.start_of(number))

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def start_of(self, number: int) -> int:
        """The epoch of the checkpoint that a trial finds."""
        start = self.paths.fork_start(number)
        return int((start / "state").read_text()) if start.is_dir() else 0

    def suggest(self) -> bool:
        if len(self.trials) >= self.num_samples and not any(t.state == TrialState.WAITING for t in self.trials):
            return False
        if not self.forks.prepare(self.study):
            return False
        trial = self.study.ask()
        trial.set_user_attr(PARAMS_ATTR, SPACE.suggest(trial))
        self.running[trial.number] = self.start_of(trial.number)
        parent = trial.user_attrs.get(PARENT_ATTR)
        assert self.running[trial.number] == (parent[1] if parent else 0)
        return True

    def value(self, number: int, epoch: int) -> float:
        trial = self.trials[number]
        origin, start = trial.user_attrs.get(PARENT_ATTR, (None, 0))
        before = 0.0 if origin is None else self.value(origin, start)
        rate = 0.1 - 0.02 * abs(np.log10(trial.params["optimizer.lr"]) + 2)
        return float(before + rate * (epoch - start))

    def step(self) -> None:
        """One epoch of the trial whose turn it is."""
        while len(self.running) < self.workers and self.suggest():
            pass
        assert self.running, "nothing runs and nothing can start"
        number, epoch = next(iter(self.running.items()))
        del self.running[number]
        trial = SimpleNamespace(trial_id=f"ray-{number}", config={"number": number})
        epoch += 1
        if number in self.fail:
            self.scheduler.on_trial_error(None, trial)
            self.study.tell(number, state=TrialState.FAIL)
            return
        sessions = self.paths.tune / "session-1" / trial_dirname(number)
        checkpoint = sessions / f"checkpoint_{epoch:06d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state").write_text(str(epoch))
        result = {"number": number, "epoch": epoch, METRIC: self.value(number, epoch), "finished": epoch == EPOCHS}
        decision = str(self.scheduler.on_trial_result(None, trial, result))
        for older in sorted(sessions.iterdir())[:-1]:
            shutil.rmtree(older)
        handle = optuna.trial.Trial(self.study, self.trials[number]._trial_id)
        handle.report(result[METRIC], epoch)
        self.decisions.append((number, epoch, decision))
        if decision == TrialScheduler.STOP or result["finished"]:
            self.scheduler.on_trial_complete(None, trial, result)
            state = None if result["finished"] else TrialState.PRUNED
            self.study.tell(number, result[METRIC] if result["finished"] else None, state=state)
        else:
            self.running[number] = epoch

    @property
    def done(self) -> bool:
        ended = [trial for trial in self.trials if trial.state.is_finished()]
        return len(ended) >= self.num_samples

    def run(self, events: int = 1000) -> "World":
        for _ in range(events):
            if self.done:
                return self
            self.step()
        assert events < 1000, "the search does not come to its end"
        return self


def record(world: World) -> list[tuple[int, str, dict[str, Any], Any]]:
    return [(t.number, t.state.name, t.params, t.user_attrs.get(PARENT_ATTR)) for t in world.trials]


@pytest.mark.parametrize("workers", [1, 2, 4, 7])
def test_a_population_comes_to_its_end_with_forks_of_its_best(tmp_path: Path, workers: int) -> None:
    world = World(tmp_path / "run", 14, workers).run()
    states = Counter(trial.state for trial in world.trials)
    assert states[TrialState.COMPLETE] + states[TrialState.PRUNED] == 14
    assert workers == 1 or states[TrialState.PRUNED] > 0  # one alone may meet nobody that is better
    forks = [trial for trial in world.trials if PARENT_ATTR in trial.user_attrs]
    assert [trial.number for trial in world.trials if trial not in forks] == [0, 1, 2, 3]
    for fork in forks:
        number, epoch = fork.user_attrs[PARENT_ATTR]
        parent = world.trials[number]
        assert number < fork.number
        assert min(fork.intermediate_values) == epoch + 1
        assert epoch in parent.intermediate_values
        assert parent.params != fork.params
    completes = [trial.value for trial in world.trials if trial.state == TrialState.COMPLETE]
    fresh = [world.value(number, EPOCHS) for number in range(4)]
    assert max(completes) >= max(fresh)


def test_a_loser_gives_way_to_a_fork_at_the_same_epoch(tmp_path: Path) -> None:
    world = World(tmp_path / "run", 5, 4)
    while not world.decisions or world.decisions[-1][2] != TrialScheduler.STOP:
        world.step()
    loser, stopped_at, _ = world.decisions[-1]
    epoch = 2
    assert stopped_at in (2, 3)  # at 3, if the others came to epoch 2 after it
    world.step()
    fork = world.trials[4]
    others = {number: world.value(number, epoch) for number in range(4)}
    assert min(others, key=others.__getitem__) == loser
    assert fork.user_attrs[PARENT_ATTR] == [max(others, key=others.__getitem__), epoch]


@pytest.mark.parametrize("workers", [1, 3, 5])
def test_a_population_that_was_stopped_goes_on_the_same_way(tmp_path: Path, workers: int) -> None:
    whole = World(tmp_path / "whole", 10, workers).run()
    for stop in range(2, len(whole.decisions), 9):
        root = tmp_path / f"stopped-{stop}"
        first = World(root, 10, workers).run(stop)
        order = list(first.running)
        second = World(root, 10, workers, first.study)
        second.running = {number: second.running[number] for number in order}
        second.run()
        assert record(second) == record(whole)
        assert first.decisions + second.decisions == whole.decisions


def test_a_fork_that_was_killed_before_its_first_report_begins_where_its_parent_was(tmp_path: Path) -> None:
    world = World(tmp_path / "run", 8, 4)
    while not any(PARENT_ATTR in trial.user_attrs for trial in world.trials):
        world.step()
    fork = world.trials[-1]
    if fork.intermediate_values:
        pytest.fail("the fork has reported already")
    again = World(tmp_path / "run", 8, 4, world.study)
    assert again.running[fork.number] == fork.user_attrs[PARENT_ATTR][1] > 0
    again.run()


def test_a_fork_that_was_enqueued_and_not_asked_for_is_asked_first(tmp_path: Path) -> None:
    world = World(tmp_path / "run", 8, 4)
    while not (world.decisions and world.decisions[-1][2] == TrialScheduler.STOP):
        world.step()
    assert world.forks.prepare(world.study)
    assert world.trials[-1].state == TrialState.WAITING
    again = World(tmp_path / "run", 8, 4, world.study)
    again.step()
    assert len(again.trials) == 5
    assert again.trials[-1].state == TrialState.RUNNING


def test_more_workers_than_members_wait(tmp_path: Path) -> None:
    world = World(tmp_path / "run", 12, 9)
    world.step()
    assert len(world.trials) == 4
    assert not world.forks.prepare(world.study)


def test_a_population_that_fails_starts_afresh(tmp_path: Path) -> None:
    world = World(tmp_path / "run", 8, 2, fail=frozenset(range(5))).run()
    assert [trial.state for trial in world.trials[:5]] == [TrialState.FAIL] * 5
    assert len(world.trials) == 8


def test_only_the_best_are_kept_and_the_start_of_a_fork_until_it_ends(tmp_path: Path) -> None:
    world = World(tmp_path / "run", 14, 4).run()
    members = [trial.number for trial in world.trials if trial.state == TrialState.COMPLETE]
    for point in (2, 4):
        kept = [number for number in range(14) if world.snapshots.has(number, point)]
        values = {number: world.trials[number].intermediate_values.get(point, -1.0) for number in members}
        assert kept == [max(values, key=values.__getitem__)]
        assert (world.paths.snapshot(kept[0], point) / "state").read_text() == str(point)
    assert not any(world.paths.fork_start(number).exists() for number in range(14))


def test_one_that_left_makes_room_for_the_next_best(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    scheduler = build_scheduler(OPTIONS, Setting(Objective(METRIC), EPOCHS, snapshots=Snapshots(paths)))
    for number, value in enumerate([0.9, 0.5, 0.4]):
        checkpoint = paths.tune / "session-1" / trial_dirname(number) / "checkpoint_000001"
        checkpoint.mkdir(parents=True)
        trial = SimpleNamespace(trial_id=f"ray-{number}", config={"number": number})
        scheduler.on_trial_add(None, trial)
        scheduler.on_trial_result(None, trial, {"epoch": 2, METRIC: value})
        if number == 0:
            assert paths.snapshot(0, 2).is_dir()
            scheduler.on_trial_error(None, trial)
    assert [paths.snapshot(number, 2).is_dir() for number in range(3)] == [False, True, False]
