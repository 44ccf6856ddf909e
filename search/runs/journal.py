"""The run's journal: what happened, line by line, written before the study or anyone else is told.

One JSON object a line. `{"event": "epoch", "number", "epoch", "time", "metrics": {...}}` for each report,
`{"event": "error", "number", "time", "kind", "message"}` for a trial that failed, and `{"event": "interrupted",
"number", "epoch", "time", "message"}` for one whose worker died after `epoch` and that goes on; `"retried"`, with the
same keys, for one that ran out of its share's memory and goes on alone; `{"event": "dropped", "number", "time",
"bytes"}` for an ended one whose checkpoint goes; `{"event": "applied", "number", "time", "applied": {...}, "machine":
{...}}` for what was read back of a trial before it took its first step, and where it trains. A line cut off by a crash
is ignored; an epoch that was trained again after a crash counts once, as its last line says.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

OUT_OF_MEMORY = "out of memory"
WORKER_DIED = "worker died"
INTERRUPTED = "interrupted"
"""The worker died, which says nothing about the trial: it goes on from its newest checkpoint."""
RETRIED_ALONE = "out of memory beside others"
"""The trial's share of a GPU was too little: it goes on from its newest checkpoint, alone on a whole one."""
GOES_ON = (INTERRUPTED, RETRIED_ALONE)
"""The kinds after which a trial has not ended."""


class EventLog:
    """Appends to a journal; every line is flushed to the file before `append` returns.

    The file is opened at the first line, and not carried along when the object is pickled (Ray pickles its callbacks).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path, "_file": None}

    def epoch(self, number: int, epoch: int, metrics: dict[str, Any]) -> None:
        """Records one report of a trial."""
        self._append({"event": "epoch", "number": number, "epoch": epoch, "time": time.time(), "metrics": metrics})

    def applied(self, number: int, applied: dict[str, Any], machine: dict[str, Any]) -> None:
        """Records what was read back of a trial that begins or goes on, and where it trains."""
        record = {"event": "applied", "number": number, "time": time.time(), "applied": applied, "machine": machine}
        self._append(record)

    def error(self, number: int, kind: str, message: str) -> None:
        """Records why a trial failed."""
        self._append({"event": "error", "number": number, "time": time.time(), "kind": kind, "message": message})

    def interrupted(self, number: int, epoch: int, message: str) -> None:
        """Records that a trial's worker died, and how far the trial had come; it goes on."""
        self._goes_on("interrupted", number, epoch, message)

    def retried(self, number: int, epoch: int, message: str) -> None:
        """Records that a trial ran out of its share's memory, and how far it had come; it goes on alone."""
        self._goes_on("retried", number, epoch, message)

    def dropped(self, number: int, num_bytes: int) -> None:
        """Records that the checkpoint of a trial that has ended is deleted to save space."""
        self._append({"event": "dropped", "number": number, "time": time.time(), "bytes": num_bytes})

    def close(self) -> None:
        """Closes the file; the next line would open it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _goes_on(self, event: str, number: int, epoch: int, message: str) -> None:
        self._append({"event": event, "number": number, "epoch": epoch, "time": time.time(), "message": message})

    def _append(self, record: dict[str, Any]) -> None:
        if self._file is None:
            self._file = _open_at_line_start(self._path)
        self._file.write(json.dumps(record, allow_nan=True).encode() + b"\n")
        self._file.flush()


def _open_at_line_start(path: Path) -> BinaryIO:
    """Opens for appending and ends a line that a crash has cut off."""
    file = path.open("ab+")
    if file.tell() > 0:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


def read_events(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a journal, oldest first; empty when there is none."""
    if not path.exists():
        return []
    events = []
    for line in path.read_bytes().splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue  # the line that a crash has cut off
    return [event for event in events if isinstance(event, dict)]


def epochs_by_trial(events: list[dict[str, Any]]) -> dict[int, dict[int, dict[str, Any]]]:
    """`{number: {epoch: event}}`, the last line of each epoch winning, epochs in order."""
    trials: dict[int, dict[int, dict[str, Any]]] = {}
    for event in events:
        if event.get("event") == "epoch":
            trials.setdefault(event["number"], {})[event["epoch"]] = event
    return {number: dict(sorted(epochs.items())) for number, epochs in sorted(trials.items())}


def errors_by_trial(events: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """`{number: event}` of the last error of each trial."""
    return {event["number"]: event for event in events if event.get("event") == "error"}


def applied_by_trial(events: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """`{number: events}` of what was read back of each trial, one for each time that it began or went on."""
    found: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        if event.get("event") == "applied":
            found.setdefault(event["number"], []).append(event)
    return found


def retried_trials(events: list[dict[str, Any]]) -> frozenset[int]:
    """The trials that ran out of their share's memory once, and went on, or were to go on, alone."""
    return frozenset(event["number"] for event in events if event.get("event") == "retried")


def waiting_alone(events: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """`{number: event}` of the trials that were to go on alone and of which nothing was heard since."""
    last = {event["number"]: event for event in events if "number" in event}
    return {number: event for number, event in last.items() if event["event"] == "retried"}


def dropped_trials(events: list[dict[str, Any]]) -> frozenset[int]:
    """The trials whose checkpoints were deleted to save space."""
    return frozenset(event["number"] for event in events if event.get("event") == "dropped")


def is_finished(rows: Mapping[int, Mapping[str, Any]]) -> bool:
    """Whether a trial's epochs, as `epochs_by_trial` has them, hold its last one."""
    return any(row["metrics"].get("finished") for row in rows.values())
