from pathlib import Path

from search.runs.events import (
    Applied,
    Began,
    Dropped,
    Ended,
    Enqueued,
    Epoch,
    Error,
    Interrupted,
    Resumed,
    Retried,
)
from search.runs.journal import EventLog, read_events
from search.runs.lives import TrialLife, lives_of

LR = {"optimizer.lr": 0.1}


def test_no_events_no_lives() -> None:
    assert lives_of([]) == {}


def test_a_life_from_its_beginning_to_its_end() -> None:
    applied, error = Applied(2, 3.0, {"model.depth": 2}, {"device": "cpu"}), Error(2, 8.0, "KeyError", "lr")
    first, again = Epoch(2, 1, 4.0, {"val/iou": 0.2, "cost": 9.0}), Epoch(2, 1, 6.0, {"val/iou": 0.3, "cost": 7.0})
    second = Epoch(2, 2, 7.0, {"val/iou": 0.1})
    events = [
        Began(2, 1.0, LR, "random", "ray-a"), applied, first, Interrupted(2, 1, 5.0, "died"), Resumed(2, 5.5, "ray-b"),
        again, second, error, Ended(2, 8.5, "failed", "KeyError"), Dropped(2, 9.0, 100),
    ]  # fmt: skip
    assert lives_of(events) == {
        2: TrialLife(
            2, "failed", LR, origin="random", began=1.0, ended=8.5, why="KeyError", ray_ids=("ray-a", "ray-b"),
            epochs={1: again, 2: second}, first=first.metrics, error=error, applied=(applied,), dropped=True,
        )
    }  # fmt: skip
    life = lives_of(events)[2]
    assert life.has_ended
    assert not life.is_finished
    assert life.values("val/iou") == {1: 0.3, 2: 0.1}
    assert life.values("val/dice") == {}
    assert life.cost("cost") == 9.0, "the first report's, which it was judged by, not that of a repeated epoch"
    assert life.cost("other") is None


def test_who_waits_begins_and_who_has_not_ended_runs() -> None:
    events = [
        Enqueued(0, 1.0, {"optimizer.lr": 0.1}), Enqueued(1, 1.0, {}, (0, 3)), Began(0, 2.0, LR, "fork", parent=(4, 2)),
        Retried(0, 1, 3.0, "no memory"),
    ]  # fmt: skip
    lives = lives_of(events)
    assert [(life.state, life.params, life.parent) for life in lives.values()] == [
        ("running", LR, (4, 2)), ("waiting", None, (0, 3)),
    ]  # fmt: skip
    assert (lives[0].retried, lives[1].retried) == (True, False)
    assert not lives[0].has_ended


def test_a_trial_ends_once() -> None:
    (life,) = lives_of([Began(0, 1.0, LR, ""), Ended(0, 2.0, "complete"), Ended(0, 3.0, "pruned")]).values()
    assert (life.state, life.ended) == ("complete", 2.0)


def test_lives_are_in_the_order_of_their_numbers_and_epochs() -> None:
    events = [Epoch(1, 2, 1.0, {}), Epoch(0, 1, 1.0, {}), Epoch(1, 1, 1.0, {"finished": True})]
    lives = lives_of(events)
    assert list(lives) == [0, 1]
    assert list(lives[1].epochs) == [1, 2]
    assert lives[1].is_finished


def test_a_journal_of_an_earlier_version_tells_of_reports_alone() -> None:
    (life,) = lives_of([Epoch(0, 1, 1.0, {"val/iou": 0.5}), Error(0, 2.0, "KeyError", "lr")]).values()
    assert (life.state, life.params, life.began) == ("running", None, None)
    assert life.error == Error(0, 2.0, "KeyError", "lr")


def test_what_the_log_writes_is_what_the_life_says(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.began(0, LR, "fork", ray_id="a", parent=(3, 2))
    log.resumed(0, "b")
    log.epoch(0, 1, {"val/iou": 0.5, "finished": True})
    log.ended(0, "complete")
    log.close()
    (life,) = lives_of(read_events(tmp_path / "events.jsonl")).values()
    assert (life.number, life.state, life.params, life.parent, life.ray_ids) == (0, "complete", LR, (3, 2), ("a", "b"))
    assert life.began is not None
    assert life.ended is not None
    assert life.began <= life.epochs[1].time <= life.ended
