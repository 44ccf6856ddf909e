import math
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher
from study_searchers import BASE, OBJECTIVE, SPACE, fail, new_searcher, reopen, report, result, stored, suggested

from search.schedulers.rungs import Promotions
from search.space.parse import apply
from search.study.observations import (
    FAILURE_ATTR,
    MEMORY_CONSTRAINT,
    PARAMS_ATTR,
    RAY_IDS_ATTR,
    curves_of,
    observations,
)


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


def test_the_searcher_has_nothing_to_save(url: str, tmp_path: Path) -> None:
    searcher = new_searcher(reopen(url))
    searcher.save(str(tmp_path / "state"))
    searcher.restore(str(tmp_path / "state"))
    assert suggested(searcher, "a")["number"] == 0
