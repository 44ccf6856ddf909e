import json
import typing
from dataclasses import fields, replace
from pathlib import Path

import pytest

from search.runs import events
from search.runs.events import (
    Applied,
    Began,
    Dropped,
    Ended,
    Enqueued,
    Epoch,
    Error,
    Event,
    Interrupted,
    Moved,
    Placed,
    Resumed,
    Retried,
    from_line,
    to_line,
)
from search.runs.journal import read_events

ONE_OF_EACH: list[Event] = [
    Epoch(3, 1, 10.5, {"val/iou": 0.5, "finished": True}),
    Enqueued(3, 10.5, {"optimizer.lr": 0.1}, (1, 2)),
    Began(3, 10.5, {"model.decoder_channels": [8, 4], "threshold": "auto", "a": None}, "fork", "ray-3", (1, 2)),
    Resumed(3, 10.5, "ray-4"),
    Placed(3, 10.5, "ab12", "10.0.0.2", "box-2"),
    Applied(3, 10.5, {"model.depth": 2}, {"device": "cpu"}),
    Error(3, 10.5, "KeyError", "line\nbreak, \u2028 and Ж"),
    Interrupted(3, 1, 10.5, "died"),
    Retried(3, 1, 10.5, "no memory"),
    Moved(3, 1, 10.5, "ab12", "FileNotFoundError: x"),
    Ended(3, 10.5, "failed", "KeyError"),
    Dropped(3, 10.5, 1000),
]  # fmt: skip


def test_each_kind_is_here() -> None:
    assert {type(event) for event in ONE_OF_EACH} == set(typing.get_args(Event))
    assert len({event.KIND for event in ONE_OF_EACH}) == len(ONE_OF_EACH)


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: event.KIND)
def test_what_is_written_is_read(event: Event) -> None:
    line = to_line(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert json.loads(line)["event"] == event.KIND
    assert from_line(line) == event


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: event.KIND)
def test_no_part_of_a_line_is_an_event(event: Event) -> None:
    line = to_line(event).rstrip()
    assert [from_line(line[:length]) for length in range(len(line))] == [None] * len(line)


def test_a_line_that_lacks_a_field_is_passed_over() -> None:
    assert from_line(b'{"event": "epoch", "number": 0, "time": 1.0, "metrics": {}}') is None
    assert from_line(b'{"event": "ended", "number": 0, "time": 1.0}') is None


def test_what_only_a_newer_version_knows_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(
        '{"event": "cloned", "number": 0, "time": 1.0}\n'
        '{"event": "ended", "number": 0, "time": 1.0, "state": "complete", "why": "", "cost": 3}\n'
        '{"event": ["ended"], "number": 0}\n'
    )
    assert read_events(path) == [Ended(0, 1.0, "complete")]


def test_a_line_of_an_earlier_version_is_as_it_was() -> None:
    """Who reads the journal with other tools finds the same keys in the same order."""
    line = to_line(Epoch(0, 2, 1.5, {"val/iou": 0.25}))
    assert line == b'{"event": "epoch", "number": 0, "epoch": 2, "time": 1.5, "metrics": {"val/iou": 0.25}}\n'
    without_why = b'{"event": "ended", "number": 0, "time": 1.5, "state": "pruned"}'
    assert from_line(without_why) == replace(Ended(0, 1.5, "pruned"), why="")


def test_what_every_field_may_hold_is_known() -> None:
    """A field that is not there would make every line of its kind unreadable."""
    names = {field.name for kind in events._CLASSES.values() for field in fields(kind)}
    assert names <= set(events._IS_VALID)
