"""The list of trainings as Ray asks for it: in order, with retries, until nothing is left."""

from pathlib import Path
from typing import Any

from ray.tune.search import Searcher
from specs import new_spec

from search.reruns.searcher import Rerun, RerunSearcher
from search.runs.journal import INTERRUPTED, RETRIED_ALONE
from search.tune.retries import WholeGpu
from segcore.config import TrainConfig
from segcore.objective import Objective

ALONE = WholeGpu(2.0)


def new_searcher(*reruns: Rerun, **options: Any) -> RerunSearcher:
    return RerunSearcher(reruns, new_spec, Objective("val/iou"), **options)


def rerun(number: int, **values: float) -> Rerun:
    return Rerun(number, f"trial {number}", TrainConfig(), {int(k[1:]): v for k, v in values.items()})


def test_each_is_suggested_once_in_order_and_no_more_than_fit() -> None:
    searcher = new_searcher(rerun(3), rerun(5), rerun(4))
    searcher.set_max_concurrency(2)
    first = new_spec(3, label="trial 3", strikes=0, reached=0)
    assert searcher.suggest("a") == first.to_ray()
    assert searcher.suggest("b")["number"] == 5  # type: ignore[index]
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", {"number": 3, "epoch": 1})
    assert searcher.suggest("c")["number"] == 4  # type: ignore[index]
    searcher.on_trial_complete("b")
    assert searcher.suggest("d") is None  # the last one may lose its worker and come back
    searcher.on_trial_complete("c")
    assert searcher.suggest("d") == Searcher.FINISHED
    assert searcher.live == frozenset()


def test_one_of_an_earlier_session_knows_how_far_it_was() -> None:
    searcher = new_searcher(rerun(0, e1=0.2, e2=0.3))
    assert searcher.suggest("a")["reached"] == 2  # type: ignore[index]


def test_one_that_lost_its_worker_goes_on_and_one_that_failed_does_not() -> None:
    searcher = new_searcher(rerun(0), rerun(1))
    searcher.suggest("a")
    searcher.on_trial_result("a", {"number": 0, "epoch": 1, "val/iou": 0.4})
    searcher.fail("a", INTERRUPTED)
    again = searcher.suggest("b")
    assert (again["number"], again["reached"], again["strikes"]) == (1, 0, 0)  # type: ignore[index]
    again = searcher.suggest("c")
    assert (again["number"], again["reached"], again["strikes"]) == (0, 1, 1)  # type: ignore[index]
    searcher.fail("b", "NonFiniteLossError")
    searcher.fail("b", "NonFiniteLossError")  # told twice
    searcher.on_trial_complete("c")
    assert searcher.suggest("d") == Searcher.FINISHED


def test_one_that_ran_out_of_memory_goes_on_alone_after_the_others() -> None:
    searcher = new_searcher(rerun(0), rerun(1), rerun(2), whole_gpu=ALONE)
    searcher.suggest("a")
    searcher.fail("a", RETRIED_ALONE)
    assert [searcher.suggest(name)["number"] for name in "bcd"] == [1, 2, 0]  # type: ignore[index]
    later = new_searcher(rerun(0), whole_gpu=ALONE, alone=frozenset({0}))
    assert later.suggest("a")["gpu_fraction"] == 1.0  # type: ignore[index]


def test_its_state_is_the_journal(tmp_path: Path) -> None:
    searcher = new_searcher(rerun(0))
    searcher.save(str(tmp_path / "state"))
    searcher.restore(str(tmp_path / "state"))
    searcher.flush_if_due()
    assert not searcher.is_waiting(0)
    assert "events.jsonl" in (tmp_path / "state").read_text()
