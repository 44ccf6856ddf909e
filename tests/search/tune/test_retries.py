"""Trials that come again: their worker died, or they need a whole GPU."""

from pathlib import Path

from optuna.trial import TrialState
from ray.tune.search import Searcher
from specs import new_spec
from study_searchers import fail, new_searcher, reopen, report, result, stored, suggested, unfinished

from search.reruns.searcher import Rerun
from search.runs.journal import INTERRUPTED, OUT_OF_MEMORY, RETRIED_ALONE, EventLog, read_events, retried_trials
from search.study.observations import (
    FAILURE_ATTR,
    MEMORY_CONSTRAINT,
    RAY_IDS_ATTR,
)
from search.tune.retries import Retries
from segcore.config import TrainConfig

ALONE = {"num_cpus": 2.0, "gpu_fraction": 1.0, "may_retry_alone": False}


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


def test_a_node_that_two_trials_failed_on_is_avoided_by_the_others_while_there_is_another() -> None:
    retries: Retries[Rerun] = Retries()
    reruns = [Rerun(number, "", TrainConfig()) for number in range(3)]

    def avoided(number: int, other_nodes: int = 2) -> tuple[str, ...]:
        return retries.told(new_spec(number, other_nodes=other_nodes)).avoid

    retries.moved(reruns[0], 1, "n1")
    assert (avoided(0), avoided(1), avoided(2)) == (("n1",), (), ())
    assert retries.told(new_spec(0, other_nodes=2)).reached == 1
    retries.moved(reruns[1], 0, "n1")
    assert avoided(2) == ("n1",)
    assert avoided(2, other_nodes=0) == ()
    for rerun in reruns[:2]:
        retries.moved(rerun, 1, "n2")
    assert (avoided(0), avoided(2)) == (("n1", "n2"), ("n1", "n2"))
    assert avoided(2, other_nodes=1) == ("n1",), "one node is left, whatever it did"
