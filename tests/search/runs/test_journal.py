import errno
import io
import json
import math
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.runs.events import Epoch, Error
from search.runs.journal import (
    EventLog,
    epochs_by_trial,
    errors_by_trial,
    read_events,
    retried_trials,
    waiting_alone,
)


def epochs_in(path: Path) -> list[int]:
    return [event.epoch for event in read_events(path) if isinstance(event, Epoch)]


def test_what_is_told_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    before = time.time()
    log.epoch(3, 1, {"val/iou": 0.5, "finished": False})
    log.error(4, "ValueError", "line\nbreak, \u2028 and Ж")
    log.close()
    epoch, error = read_events(path)
    assert before <= epoch.time <= error.time <= time.time()
    assert epoch == Epoch(3, 1, epoch.time, {"val/iou": 0.5, "finished": False})
    assert error == Error(4, error.time, "ValueError", "line\nbreak, \u2028 and Ж")


def test_no_journal_has_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "absent.jsonl") == []
    (tmp_path / "empty.jsonl").touch()
    assert read_events(tmp_path / "empty.jsonl") == []


def test_a_log_that_was_told_nothing_leaves_no_file(tmp_path: Path) -> None:
    EventLog(tmp_path / "events.jsonl").close()
    assert not (tmp_path / "events.jsonl").exists()


def test_a_line_is_in_the_file_before_the_call_returns(tmp_path: Path) -> None:
    """A process that ends without closing anything, as after SIGKILL."""
    path = tmp_path / "events.jsonl"
    code = (
        "import os, sys, pathlib\n"
        "from search.runs.journal import EventLog\n"
        "log = EventLog(pathlib.Path(sys.argv[1]))\n"
        "log.epoch(0, 1, {'val/iou': 0.5})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert epochs_in(path) == [1]


def test_every_cut_of_the_last_line_loses_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.epoch(0, 1, {"val/iou": 0.5})
    first = path.stat().st_size
    log.epoch(0, 2, {"val/iou": 0.6})
    log.close()
    whole = path.read_bytes()
    for length in range(first, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert epochs_in(path) == [1]
        again = EventLog(path)
        again.epoch(0, 3, {"val/iou": 0.7})
        again.close()
        assert epochs_in(path) == [1, 3]
    path.write_bytes(whole[:-1])  # only the line's end is lost
    again = EventLog(path)
    again.epoch(0, 3, {"val/iou": 0.7})
    again.close()
    assert epochs_in(path) == [1, 2, 3]


def test_rubbish_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    good = json.dumps({"event": "epoch", "number": 0, "epoch": 1, "metrics": {}}).encode()
    path.write_bytes(b"\n".join([b"", b"\x00" * 40, b"12", b"[1]", b"\xff\xfe{", b"null", good, b"\x00\x00"]))
    assert epochs_in(path) == [1]


def test_an_epoch_that_was_trained_twice_counts_as_its_last_line_says(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for number, epoch, iou in [(1, 2, 0.2), (0, 1, 0.1), (1, 1, 0.3), (1, 2, 0.4)]:
        log.epoch(number, epoch, {"val/iou": iou})
    log.close()
    journal = epochs_by_trial(read_events(tmp_path / "events.jsonl"))
    values = {n: {epoch: event.metrics["val/iou"] for epoch, event in rows.items()} for n, rows in journal.items()}
    assert values == {0: {1: 0.1}, 1: {1: 0.3, 2: 0.4}}
    assert list(journal) == [0, 1]
    assert list(journal[1]) == [1, 2]


def test_the_last_error_of_a_trial_counts(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.error(0, "KeyError", "first")
    log.epoch(0, 1, {})
    log.error(0, "out of memory", "second")
    log.close()
    errors = errors_by_trial(read_events(tmp_path / "events.jsonl"))
    assert errors.keys() == {0}
    assert (errors[0].kind, errors[0].message) == ("out of memory", "second")


def test_values_that_are_no_numbers_come_back(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.epoch(0, 1, {"val/loss": float("nan"), "val/iou": float("-inf")})
    log.close()
    metrics = epochs_by_trial(read_events(tmp_path / "events.jsonl"))[0][1].metrics
    assert math.isnan(metrics["val/loss"])
    assert metrics["val/iou"] == -math.inf


def test_a_pickled_log_goes_on_with_the_same_file(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.epoch(0, 1, {})
    copy = pickle.loads(pickle.dumps(log))
    copy.epoch(0, 2, {})
    log.epoch(0, 3, {})
    copy.close()
    log.close()
    assert epochs_in(tmp_path / "events.jsonl") == [1, 2, 3]


def test_a_closed_log_opens_again(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.close()
    for epoch in (1, 2):
        log.epoch(0, epoch, {})
        log.close()
        log.close()
    assert epochs_in(tmp_path / "events.jsonl") == [1, 2]
    assert os.listdir(tmp_path) == ["events.jsonl"]  # noqa: PTH208


def test_who_was_to_go_on_alone_and_was_not_heard_of_since(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for number in range(5):
        log.epoch(number, 1, {"val/iou": 0.5})
    for number in (1, 2, 3):
        log.retried(number, 1, f"no memory for {number}")
    log.epoch(2, 2, {"val/iou": 0.6})
    log.error(3, "out of memory", "again")
    log.interrupted(4, 1, "worker died")
    log.close()
    events = read_events(tmp_path / "events.jsonl")
    assert retried_trials(events) == {1, 2, 3}
    assert {number: event.message for number, event in waiting_alone(events).items()} == {1: "no memory for 1"}
    assert retried_trials([]) == frozenset()
    assert waiting_alone([]) == {}


class Full(io.FileIO):
    """A file whose disk has room for a few more bytes."""

    room = 30

    def write(self, data: object) -> int:
        written = super().write(bytes(data)[: self.room])  # type: ignore[call-overload]
        self.room -= written
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written


@pytest.mark.parametrize("room", [0, 30])
def test_a_line_that_finds_no_room_leaves_no_part_of_itself(tmp_path: Path, room: int) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.epoch(0, 1, {"val/iou": 0.5})
    before = path.read_bytes()
    full = Full(path, "ab+")
    full.room = room
    log._file = full
    with pytest.raises(OSError, match=r"No space left on device: '.*events\.jsonl'"):
        log.epoch(0, 2, {"val/iou": 0.6})
    assert path.read_bytes() == before
    full.room = 1000
    log.epoch(0, 2, {"val/iou": 0.6})
    assert epochs_in(path) == [1, 2]
