import math
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from places import ROOT
from ray.tune.search import Searcher
from specs import new_spec

from search.config.tree import SearchConfig
from search.errors import RunError
from search.runs.journal import INTERRUPTED, OUT_OF_MEMORY, RETRIED_ALONE, EventLog, read_events, retried_trials
from search.runs.lives import lives_of
from search.runs.tables import build_tables
from search.sampling.proposer import Proposer
from search.schedulers.rungs import Promotions
from search.space.parse import apply, parse_space
from search.space.search import Search
from search.study.endings import end_running
from search.study.lives import with_study
from search.study.mirror import catch_up
from search.study.observations import (
    FAILURE_ATTR,
    MEMORY_CONSTRAINT,
    PARAMS_ATTR,
    RAY_IDS_ATTR,
    curves_of,
    observations,
)
from search.study.storage import open_study, stored_trials
from search.tune.retries import Retries, WholeGpu
from search.tune.searcher import StudySearcher
from segcore.config import TrainConfig
from segcore.objective import Mode, Objective

METRIC = "val/iou"
OBJECTIVE = Objective(METRIC)
ALONE = {"num_cpus": 2.0, "gpu_fraction": 1.0, "may_retry_alone": False}
BASE = TrainConfig()
SPACE = parse_space(
    {
        "optimizer.lr": {"loguniform": [1e-5, 1e-1]},
        "lr_scheduler": {"choice": {"plateau": {"patience": {"int": [1, 50]}}, "cosine": {}}},
    },
    BASE,
)


@pytest.fixture(scope="module")
def empty_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with its tables made, which takes longer than copying it."""
    path = tmp_path_factory.mktemp("study") / "study.db"
    open_study(f"sqlite:///{path}", "birds", mode="max", sampler=None)
    return path


@pytest.fixture
def url(empty_db: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(empty_db, tmp_path / 'study.db')}"


def reopen(url: str) -> optuna.Study:
    """The study as a new process finds it."""
    return open_study(url, "birds", mode="max", sampler=None)


def journal_of(study: optuna.Study) -> EventLog:
    return EventLog(Path(study._storage._backend.engine.url.database).with_name("events.jsonl"))  # type: ignore


def unfinished(study: optuna.Study) -> list[FrozenTrial]:
    """Brings the study up to the journal beside it."""
    events = journal_of(study)
    return catch_up(study, lives_of(read_events(events.path)), OBJECTIVE, events)


def new_searcher(
    study: optuna.Study,
    *,
    num_samples: int = 10,
    mode: Mode = "max",
    requeue: list[FrozenTrial] | None = None,
    alone: Collection[int] = (),
    promotions: Promotions | None = None,
) -> StudySearcher:
    config = SearchConfig.model_validate({"name": "birds", "search": {"num_samples": num_samples}})
    return StudySearcher(
        study, Search(config, BASE, SPACE, Objective(METRIC, mode)), new_spec,
        Proposer(SPACE, "random", seed=0, num_samples=10, max_epochs=5, objective=Objective(METRIC, mode)),
        journal_of(study),
        retries=Retries(requeue or [], alone, WholeGpu(2.0)), promotions=promotions,
    )  # fmt: skip


def suggested(searcher: StudySearcher, trial_id: str) -> dict[str, Any]:
    spec = searcher.suggest(trial_id)
    assert isinstance(spec, dict)
    return spec


def result(epoch: int, value: float, *, finished: bool = False) -> dict[str, Any]:
    return {"number": 0, "epoch": epoch, METRIC: value, "finished": finished}


def fail(searcher: StudySearcher, trial_id: str, kind: str) -> None:
    """As Ray and the journal's callback tell it."""
    searcher.on_trial_complete(trial_id, None, error=True)
    searcher.fail(trial_id, kind)


def report(searcher: StudySearcher, trial_id: str, *values: float) -> None:
    for epoch, value in enumerate(values, start=1):
        searcher.on_trial_result(trial_id, result(epoch, value))


def stored(url: str) -> list[FrozenTrial]:
    return stored_trials(url, "birds")


def test_the_spec_is_the_base_with_the_suggested_keys(url: str) -> None:
    searcher = new_searcher(reopen(url))
    specs = [suggested(searcher, f"ray-{i}") for i in range(6)]
    assert [spec["number"] for spec in specs] == list(range(6))
    assert [searcher.number_of(f"ray-{i}") for i in range(6)] == list(range(6))
    for spec, trial in zip(specs, stored(url), strict=True):
        params = trial.user_attrs[PARAMS_ATTR]
        assert spec["train"]["optimizer"]["lr"] == params["optimizer.lr"] == trial.params["optimizer.lr"]
        assert spec["train"]["lr_scheduler"]["name"] == params["lr_scheduler.name"]
        if params["lr_scheduler.name"] == "plateau":
            assert spec["train"]["lr_scheduler"]["patience"] == params["lr_scheduler.patience"]
        else:
            assert "lr_scheduler.patience" not in params
        assert trial.user_attrs[RAY_IDS_ATTR] == [f"ray-{trial.number}"]
        assert trial.state == TrialState.RUNNING
    assert {spec["train"]["lr_scheduler"]["name"] for spec in specs} == {"plateau", "cosine"}


def test_a_complete_trial_is_told_its_best_epoch(url: str) -> None:
    searcher = new_searcher(reopen(url))
    searcher.suggest("a")
    report(searcher, "a", 0.2, 0.72)
    searcher.on_trial_complete("a", result(3, 0.18, finished=True))
    (trial,) = stored(url)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.72)
    assert trial.intermediate_values == {1: 0.2, 2: 0.72, 3: 0.18}


def test_in_mode_min_the_best_epoch_is_the_lowest(url: str) -> None:
    study = optuna.create_study(storage=url, study_name="low", direction="minimize")
    searcher = new_searcher(study, mode="min")
    searcher.suggest("a")
    report(searcher, "a", 0.5, 0.2)
    searcher.on_trial_complete("a", result(3, 0.4, finished=True))
    assert study.trials[0].value == 0.2


def test_a_stopped_trial_is_pruned_and_keeps_every_report(url: str) -> None:
    """The report that it is stopped at reaches the searcher with the end alone, as Ray tells it."""
    searcher = new_searcher(reopen(url))
    searcher.suggest("a")
    report(searcher, "a", 0.2)
    searcher.on_trial_complete("a", result(2, 0.3))
    (trial,) = stored(url)
    assert trial.state == TrialState.PRUNED
    assert trial.intermediate_values == {1: 0.2, 2: 0.3}


def test_a_trial_with_an_error_fails_whatever_it_reported(url: str) -> None:
    searcher = new_searcher(reopen(url))
    searcher.suggest("a")
    report(searcher, "a", 0.2, 0.3)
    fail(searcher, "a", "KeyError")
    searcher.suggest("b")
    fail(searcher, "b", "worker died")
    searcher.suggest("c")
    report(searcher, "c", 0.9)
    fail(searcher, "c", "out of memory")
    trials = stored(url)
    assert [trial.state for trial in trials] == [TrialState.FAIL] * 3
    assert [trial.user_attrs[FAILURE_ATTR] for trial in trials] == ["KeyError", "worker died", "out of memory"]
    assert trials[0].intermediate_values == {1: 0.2, 2: 0.3}


def test_only_a_trial_that_ran_out_of_memory_breaks_the_constraint(url: str) -> None:
    searcher = new_searcher(reopen(url))
    for trial_id in "abcd":
        searcher.suggest(trial_id)
    searcher.on_trial_complete("a", result(1, 0.5, finished=True))
    searcher.on_trial_complete("b", result(1, 0.4))
    fail(searcher, "c", "KeyError")
    report(searcher, "d", 0.1)
    fail(searcher, "d", "out of memory")
    study = reopen(url)
    assert [trial.constraints for trial in study.trials] == [{MEMORY_CONSTRAINT: value} for value in (-1, -1, -1, 1)]
    assert study.best_trial.number == 0
    seen = observations(study)
    assert [(o.number, o.state.name, o.out_of_memory) for o in seen] == [
        (0, "COMPLETE", False), (1, "PRUNED", False), (2, "FAIL", False), (3, "FAIL", True)
    ]  # fmt: skip
    assert [o.values for o in seen] == [{1: 0.5}, {1: 0.4}, {}, {1: 0.1}]
    assert seen[0].params == study.trials[0].user_attrs[PARAMS_ATTR]


def test_a_trial_with_a_value_that_is_no_number_fails(url: str) -> None:
    searcher = new_searcher(reopen(url))
    searcher.suggest("a")
    report(searcher, "a", 0.2, math.nan)
    searcher.on_trial_complete("a", result(3, 0.4, finished=True))
    (trial,) = stored(url)
    assert (trial.state, trial.user_attrs[FAILURE_ATTR]) == (TrialState.FAIL, "not a number")
    assert math.isnan(trial.intermediate_values[2])


def test_a_trial_whose_worker_died_goes_on_under_its_number(url: str) -> None:
    searcher = new_searcher(reopen(url), num_samples=1)
    first = suggested(searcher, "a")
    report(searcher, "a", 0.2, 0.3)
    fail(searcher, "a", "interrupted")
    assert stored(url)[0].state == TrialState.RUNNING
    again = suggested(searcher, "b")
    assert again == {**first, "strikes": 1, "reached": 2}
    assert searcher.suggest("c") is None
    searcher.on_trial_result("b", result(2, 0.35))
    searcher.on_trial_complete("b", result(3, 0.4, finished=True))
    (trial,) = stored(url)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.4)
    assert trial.intermediate_values == {1: 0.2, 2: 0.35, 3: 0.4}
    assert trial.user_attrs[RAY_IDS_ATTR] == ["a", "b"]
    assert searcher.suggest("c") == Searcher.FINISHED


def test_a_worker_that_dies_without_progress_is_counted_and_progress_counts_anew(url: str) -> None:
    searcher = new_searcher(reopen(url))
    seen = []
    for attempt, epochs in enumerate([0, 0, 1, 1, 1, 2]):
        spec = suggested(searcher, f"ray-{attempt}")
        seen.append((spec["strikes"], spec["reached"] or 0))
        report(searcher, f"ray-{attempt}", *[0.5] * epochs)
        fail(searcher, f"ray-{attempt}", "interrupted")
    assert seen == [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (3, 1)]
    assert suggested(searcher, "last")["strikes"] == 1


def test_a_trial_that_waits_comes_again_when_it_may_and_is_pruned_when_nobody_comes_any_more(url: str) -> None:
    study = reopen(url)
    promotions = Promotions([1], 2, OBJECTIVE)
    searcher = new_searcher(study, num_samples=2, promotions=promotions)
    assert [suggested(searcher, f"ray-{i}")["number"] for i in range(2)] == [0, 1]
    for number, value in enumerate([0.5, 0.3]):
        assert not promotions.goes_on(number, 1, value)
        searcher.on_trial_result(f"ray-{number}", result(1, value))
        searcher.on_trial_complete(f"ray-{number}", result(1, value))
    assert [searcher.is_waiting(number) for number in range(2)] == [True, True]
    assert [trial.state for trial in stored(url)] == [TrialState.RUNNING] * 2
    spec = suggested(searcher, "ray-2")
    assert (spec["number"], spec["reached"]) == (0, 1)
    assert spec["train"] == apply(BASE, stored(url)[0].user_attrs[PARAMS_ATTR]).model_dump(mode="json")
    assert searcher.suggest("ray-3") is None  # number 0 may lose its worker yet
    searcher.on_trial_complete("ray-2", result(5, 0.9, finished=True))
    assert searcher.suggest("ray-4") == Searcher.FINISHED
    assert [trial.state for trial in stored(url)] == [TrialState.COMPLETE, TrialState.PRUNED]
    assert stored(url)[0].value == 0.9
    assert stored(url)[0].user_attrs[RAY_IDS_ATTR] == ["ray-0", "ray-2"]


def test_a_trial_that_has_to_wait_is_not_called_before_ray_has_ended_it(url: str) -> None:
    promotions = Promotions([1], 2, OBJECTIVE)
    searcher = new_searcher(reopen(url), num_samples=2, promotions=promotions)
    for number, value in enumerate([0.5, 0.3]):
        suggested(searcher, f"ray-{number}")
        assert not promotions.goes_on(number, 1, value)  # Ray is told first, and may ask for more before it acts
    assert searcher.suggest("ray-2") is None
    for number, value in enumerate([0.5, 0.3]):
        searcher.on_trial_complete(f"ray-{number}", result(1, value))
    spec = suggested(searcher, "ray-2")
    assert (spec["number"], spec["reached"]) == (0, 1)


def test_a_trial_that_waited_in_an_earlier_session_and_is_never_called_is_pruned(url: str) -> None:
    first = Promotions([1], 2, OBJECTIVE)
    searcher = new_searcher(reopen(url), num_samples=2, promotions=first)
    for number, value in enumerate([0.5, 0.3]):
        suggested(searcher, f"ray-{number}")
        assert not first.goes_on(number, 1, value)
        searcher.on_trial_result(f"ray-{number}", result(1, value))
        searcher.on_trial_complete(f"ray-{number}", result(1, value))
    study = reopen(url)
    promotions = Promotions([1], 2, OBJECTIVE)
    promotions.replay(curves_of(study), unfinished=[0, 1])
    searcher = new_searcher(study, num_samples=2, promotions=promotions)
    assert suggested(searcher, "again-0")["number"] == 0
    searcher.on_trial_complete("again-0", result(5, 0.9, finished=True))
    assert searcher.suggest("again-1") == Searcher.FINISHED
    assert [trial.state for trial in stored(url)] == [TrialState.COMPLETE, TrialState.PRUNED]


def test_no_more_trials_run_than_were_allowed(url: str) -> None:
    searcher = new_searcher(reopen(url))
    assert searcher.set_max_concurrency(2)
    suggested(searcher, "a")
    suggested(searcher, "b")
    assert searcher.suggest("c") is None
    fail(searcher, "a", "KeyError")
    assert suggested(searcher, "c")["number"] == 2
    assert searcher.live == {"b", "c"}


@pytest.mark.parametrize("last", [None, {}, {"trial_id": "a", "done": True}])
def test_a_trial_that_ends_without_a_report_fails(url: str, last: dict[str, Any] | None) -> None:
    searcher = new_searcher(reopen(url))
    searcher.suggest("a")
    searcher.on_trial_complete("a", last)
    assert stored(url)[0].state == TrialState.FAIL


@pytest.mark.parametrize("finished", [True, False])
def test_an_end_that_is_told_twice_counts_once(url: str, finished: bool) -> None:
    searcher = new_searcher(reopen(url))
    searcher.suggest("a")
    report(searcher, "a", 0.2)
    end = result(2, 0.3, finished=finished)
    searcher.on_trial_complete("a", end)
    first = stored(url)
    searcher.on_trial_complete("a", end)
    fail(searcher, "a", "KeyError")
    assert [(t.state, t.value, t.intermediate_values) for t in stored(url)] == [
        (t.state, t.value, t.intermediate_values) for t in first
    ]


def test_a_report_that_is_told_twice_counts_once(url: str) -> None:
    searcher = new_searcher(reopen(url))
    searcher.suggest("a")
    report(searcher, "a", 0.2, 0.3)
    report(searcher, "a", 0.2, 0.3)
    searcher.on_trial_complete("a", result(2, 0.3))
    assert stored(url)[0].intermediate_values == {1: 0.2, 2: 0.3}


def test_no_more_than_num_samples_are_suggested(url: str) -> None:
    searcher = new_searcher(reopen(url), num_samples=3)
    for i in range(3):
        suggested(searcher, f"ray-{i}")
    assert searcher.suggest("one more") is None, "one of the three may yet lose its worker and go on"
    for i in range(3):
        searcher.on_trial_complete(f"ray-{i}", result(1, 0.5))
    assert searcher.suggest("one more") == Searcher.FINISHED
    assert len(stored(url)) == 3


def test_trials_of_earlier_sessions_count(url: str) -> None:
    first = new_searcher(reopen(url), num_samples=2)
    for i in range(2):
        suggested(first, f"ray-{i}")
        first.on_trial_complete(f"ray-{i}", result(1, 0.5, finished=True))
    assert new_searcher(reopen(url), num_samples=2).suggest("x") == Searcher.FINISHED
    second = new_searcher(reopen(url), num_samples=3)
    assert suggested(second, "x")["number"] == 2
    assert second.suggest("y") is None


def test_an_enqueued_trial_is_the_first_and_is_counted_once(url: str) -> None:
    study = reopen(url)
    study.enqueue_trial(SPACE.to_params({"optimizer.lr": 0.01, "lr_scheduler.name": "cosine"}))
    searcher = new_searcher(study, num_samples=2)
    spec = suggested(searcher, "a")
    assert (spec["number"], spec["train"]["optimizer"]["lr"]) == (0, 0.01)
    assert suggested(searcher, "b")["number"] == 1
    assert searcher.suggest("c") is None


def test_the_same_seed_suggests_the_same_and_a_continued_study_nothing_twice(url: str, tmp_path: Path) -> None:
    other = f"sqlite:///{shutil.copy(tmp_path / 'study.db', tmp_path / 'other.db')}"
    rates: list[list[float]] = []
    for storage in (url, other):
        rates.append([])
        for session in range(2):
            searcher = new_searcher(reopen(storage), num_samples=20)
            for i in range(3):
                spec = suggested(searcher, f"{session}-{i}")
                searcher.on_trial_complete(f"{session}-{i}", result(1, 0.5, finished=True))
                rates[-1].append(spec["train"]["optimizer"]["lr"])
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == 6


def killed_in_the_middle(url: str, journal: Path) -> None:
    """Leaves behind what a driver that was killed leaves: six trials, the journal ahead of the study.

    0 complete. 1 running, with an epoch that only the journal has. 2 running, its last epoch only in the journal.
    3 running, no report. 4 asked for, and killed before its parameters were settled. 5 running, and never told its end
    by the study.
    """
    study = reopen(url)
    searcher = new_searcher(study)
    log = EventLog(journal)
    for i in range(4):
        searcher.suggest(f"ray-{i}")
    study.ask()
    searcher.suggest("ray-5")
    for number, epoch, value in [(0, 1, 0.4), (1, 1, 0.3), (1, 2, 0.5), (2, 1, 0.8), (5, 1, 0.1)]:
        log.epoch(number, epoch, result(epoch, value))
        searcher.on_trial_result(f"ray-{number}", result(epoch, value))
    log.epoch(0, 2, result(2, 0.3, finished=True))
    searcher.on_trial_complete("ray-0", result(2, 0.3, finished=True))
    log.epoch(1, 3, result(3, 0.6))
    log.epoch(2, 2, result(2, 0.7, finished=True))
    searcher.on_trial_result("ray-5", result(2, 0.2, finished=True))
    log.epoch(5, 2, result(2, 0.2, finished=True))
    log.close()


def test_after_a_kill_the_study_is_brought_up_to_the_journal(url: str, tmp_path: Path) -> None:
    killed_in_the_middle(url, tmp_path / "events.jsonl")
    study = reopen(url)
    requeue = unfinished(study)
    assert [trial.number for trial in requeue] == [1, 3, 4]
    assert requeue[0].intermediate_values == {1: 0.3, 2: 0.5, 3: 0.6}
    trials = stored(url)
    assert [trial.state.name for trial in trials] == [
        "COMPLETE",
        "RUNNING",
        "COMPLETE",
        "RUNNING",
        "RUNNING",
        "COMPLETE",
    ]
    assert [trials[n].value for n in (0, 2, 5)] == [0.4, 0.8, 0.2]
    assert trials[2].intermediate_values == {1: 0.8, 2: 0.7}
    assert curves_of(study) == {
        0: {1: 0.4, 2: 0.3},
        1: {1: 0.3, 2: 0.5, 3: 0.6},
        2: {1: 0.8, 2: 0.7},
        5: {1: 0.1, 2: 0.2},
    }


def test_to_reconcile_again_changes_nothing(url: str, tmp_path: Path) -> None:
    killed_in_the_middle(url, tmp_path / "events.jsonl")
    unfinished(reopen(url))
    first = [(t.state, t.value, t.intermediate_values) for t in stored(url)]
    assert [t.number for t in unfinished(reopen(url))] == [1, 3, 4]
    assert [(t.state, t.value, t.intermediate_values) for t in stored(url)] == first


def test_trials_that_go_on_come_first_under_their_number_and_with_what_they_were(url: str, tmp_path: Path) -> None:
    killed_in_the_middle(url, tmp_path / "events.jsonl")
    before = stored(url)
    study = reopen(url)
    requeue = unfinished(study)
    searcher = new_searcher(study, num_samples=7, requeue=requeue)
    specs = [suggested(searcher, f"again-{i}") for i in range(4)]
    assert [spec["number"] for spec in specs] == [1, 3, 4, 6]
    assert [spec["reached"] for spec in specs] == [3, 0, 0, None]
    assert searcher.suggest("again-4") is None
    assert stored(url)[4].user_attrs[PARAMS_ATTR]["optimizer.lr"] == specs[2]["train"]["optimizer"]["lr"]
    for spec in specs[:2]:
        params = before[spec["number"]].user_attrs[PARAMS_ATTR]
        assert spec["train"]["optimizer"]["lr"] == params["optimizer.lr"]
    assert stored(url)[1].user_attrs[RAY_IDS_ATTR] == ["ray-1", "again-0"]

    # Trial 1 goes on from its checkpoint of epoch 2: epoch 3 is trained and told again.
    searcher.on_trial_result("again-0", result(3, 0.6))
    searcher.on_trial_complete("again-0", result(4, 0.55, finished=True))
    searcher.on_trial_complete("again-1", result(1, 0.2))
    searcher.on_trial_complete("again-2", result(1, 0.9, finished=True))
    fail(searcher, "again-3", "KeyError")
    trials = stored(url)
    assert [trial.state.name for trial in trials] == [
        "COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "COMPLETE", "COMPLETE", "FAIL"
    ]  # fmt: skip
    assert trials[1].value == 0.6
    assert trials[1].intermediate_values == {1: 0.3, 2: 0.5, 3: 0.6, 4: 0.55}


@pytest.mark.slow
def test_a_killed_process_leaves_a_study_that_can_go_on(url: str, tmp_path: Path) -> None:
    """A real process that is killed while it reports."""
    code = (
        "import os, sys, pathlib\n"
        "sys.path.insert(0, sys.argv[3])\n"
        "import importlib.util\n"
        "spec = importlib.util.spec_from_file_location('test_study', sys.argv[4])\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "module.killed_in_the_middle(sys.argv[1], pathlib.Path(sys.argv[2]))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    arguments = [url, str(tmp_path / "events.jsonl"), str(ROOT), __file__]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=False)
    assert done.returncode == -9
    study = reopen(url)
    assert [t.number for t in unfinished(study)] == [1, 3, 4]
    lives = with_study(lives_of(read_events(tmp_path / "events.jsonl")), stored(url))
    tables = build_tables(lives.values(), OBJECTIVE)
    assert [row["number"] for row in tables.trials] == [0, 1, 2, 3, 4, 5]
    assert len(tables.epochs) == 9


def test_a_time_budget_ends_what_is_running(url: str) -> None:
    study = reopen(url)
    searcher = new_searcher(study)
    for trial_id in ("a", "b", "c"):
        searcher.suggest(trial_id)
    searcher.on_trial_complete("a", result(1, 0.5, finished=True))
    searcher.on_trial_result("b", result(1, 0.4))
    searcher.flush()
    assert end_running(study, journal_of(study), OBJECTIVE) == 2
    assert [trial.state.name for trial in stored(url)] == ["COMPLETE", "PRUNED", "FAIL"]
    assert end_running(study, journal_of(study), OBJECTIVE) == 0


def test_a_file_that_is_no_study_is_told(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("not a database, whatever its name says" * 50)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(RunError, match=r"study\.db cannot be opened as an Optuna study: file is not a database$"):
        open_study(url, "birds", mode="max", sampler=None)
    with pytest.raises(RunError, match=r"study\.db cannot be opened as an Optuna study: file is not a database$"):
        stored_trials(url, "birds")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be opened as an Optuna study: unable to open database file$"):
        open_study(f"sqlite:///{tmp_path / 'absent' / 'study.db'}", "birds", mode="max", sampler=None)


@pytest.mark.parametrize("begun", ["empty file", "tables, no study"])
def test_a_study_that_was_never_begun_has_no_trials(tmp_path: Path, begun: str) -> None:
    """Killed while the file was being made; the next session opens it as if it were new."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    (tmp_path / "study.db").touch()
    if begun == "tables, no study":
        optuna.storages.RDBStorage(url)
    assert stored_trials(url, "birds") == []
    assert open_study(url, "birds", mode="max", sampler=None).trials == []


def test_the_searcher_has_nothing_to_save(url: str, tmp_path: Path) -> None:
    searcher = new_searcher(reopen(url))
    searcher.save(str(tmp_path / "state"))
    searcher.restore(str(tmp_path / "state"))
    assert suggested(searcher, "a")["number"] == 0


def test_a_trial_that_needs_a_whole_gpu_comes_when_nothing_else_can_start(url: str) -> None:
    searcher = new_searcher(reopen(url), num_samples=3)
    for trial_id in ("a", "b"):
        searcher.suggest(trial_id)
    report(searcher, "a", 0.3)
    fail(searcher, "a", RETRIED_ALONE)
    fail(searcher, "b", RETRIED_ALONE)
    assert suggested(searcher, "c")["number"] == 2, "a new trial goes first"
    alone = suggested(searcher, "a again")
    assert (alone["number"], alone["reached"]) == (0, 1)
    assert {key: alone[key] for key in ALONE} == ALONE
    assert stored(url)[0].state == TrialState.RUNNING
    searcher.on_trial_complete("c", result(1, 0.5, finished=True))
    fail(searcher, "a again", OUT_OF_MEMORY)
    assert suggested(searcher, "b again")["gpu_fraction"] == 1.0
    fail(searcher, "b again", INTERRUPTED)
    again = suggested(searcher, "b for a third time")
    assert (again["number"], again["gpu_fraction"], again["strikes"]) == (1, 1.0, 1)
    searcher.on_trial_complete("b for a third time", result(1, 0.4, finished=True))
    assert searcher.suggest("nobody") == Searcher.FINISHED
    states = [(t.state, t.constraints[MEMORY_CONSTRAINT]) for t in stored(url)]
    assert states == [(TrialState.FAIL, 1.0), (TrialState.COMPLETE, -1.0), (TrialState.COMPLETE, -1.0)]


def test_a_driver_that_was_killed_knows_from_the_journal_who_goes_on_alone(url: str, tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    first = new_searcher(reopen(url), num_samples=3)
    for trial_id in ("a", "b", "c"):
        first.suggest(trial_id)
    for number in (0, 1):
        log.retried(number, 0, "CUDA out of memory")
    log.error(1, OUT_OF_MEMORY, "CUDA out of memory")
    log.close()

    study, events = reopen(url), read_events(tmp_path / "events.jsonl")
    requeue = unfinished(study)
    assert [trial.number for trial in requeue] == [0, 2]
    assert stored(url)[1].user_attrs[FAILURE_ATTR] == OUT_OF_MEMORY
    again = new_searcher(study, num_samples=3, requeue=requeue, alone=retried_trials(events))
    assert (shared := suggested(again, "c again"))["gpu_fraction"] == 0.0
    alone = suggested(again, "a again")
    assert (shared["number"], alone["number"], alone["gpu_fraction"]) == (2, 0, 1.0)
    assert again.suggest("nobody") is None

    no_gpu = Retries(requeue, retried_trials(events), None)
    assert [no_gpu.next_shared().number for _ in range(2)] == [0, 2]  # type: ignore[union-attr]
    assert no_gpu.next_alone() is None
