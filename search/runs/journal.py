"""The run's journal, `events.jsonl`: what happened, line by line, written before the study or anything else is updated.

`search.runs.events` defines the lines; `search.runs.lives` gathers those of one trial. A line cut off by a crash is
ignored, and marked as such when the next one is written; other lines that cannot be read are counted, and all that
follow them are read. An epoch that was trained again after a crash counts once, as its last line says.
"""

import errno
import logging
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from search.errors import RunError
from search.runs.events import (
    Applied,
    Began,
    Dropped,
    Ended,
    EndState,
    Epoch,
    Error,
    Event,
    Facts,
    Interrupted,
    Metrics,
    Moved,
    Placed,
    Resumed,
    Retried,
    from_line,
    parse_line,
    to_line,
)
from segcore.params import Params

log = logging.getLogger("segsearch")

OUT_OF_MEMORY = "out of memory"
WORKER_DIED = "worker died"
INTERRUPTED = "interrupted"
"""The worker died, which says nothing about the trial: it continues from its newest checkpoint."""
RETRIED_ALONE = "out of memory beside others"
"""The trial's share of a GPU was too little: it continues from its newest checkpoint, alone on a whole one."""
NODE_AT_FAULT = "its node at fault"
"""A file that is missing there alone, or a GPU that is out of order: it says nothing about the trial's settings."""
MOVED = "moved to another node"
"""The same, and the trial continues from its newest checkpoint on a node that it has not failed on."""
GOES_ON = (INTERRUPTED, RETRIED_ALONE, MOVED)
"""The kinds of errors after which a trial continues."""
DISK = "disk"
"""A disk is full or at fault: the whole search stops, and the trial is as unfinished as before."""


_CUT = b" #cut"
"""Behind what a crash has left of a line."""
_MOST_NAMED = 5
_LONGEST_LINE = 1 << 20


class EventLog:
    """Appends to a journal; every line is flushed to the file before `append` returns.

    The file is opened at the first line, and is left out when the object is pickled (Ray pickles its callbacks).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None

    def __getstate__(self) -> dict[str, Path | None]:
        return {"_path": self._path, "_file": None}

    @property
    def path(self) -> Path:
        """The journal's file."""
        return self._path

    def append(self, event: Event) -> None:
        """Writes one event, whole or not at all.

        Raises:
            OSError: It cannot be written, as on a full disk.
        """
        if self._file is None:
            self._file = _open_at_line_start(self._path)
        line, end = to_line(event), os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise OSError(error.errno, error.strerror, str(self._path)) from error

    def began(
        self, number: int, params: Params, origin: str, *, ray_id: str = "", parent: tuple[int, int] | None = None
    ) -> None:
        """Records that a trial begins, and with what; see `Began`.

        Args:
            number: The trial.
            params: What it runs with, as flat dotted keys.
            origin: Who proposed it.
            ray_id: Ray's id of its first attempt.
            parent: Of a fork, number and epoch of the trial that it continues.
        """
        self.append(Began(number, time.time(), dict(params), origin, ray_id, parent))

    def resumed(self, number: int, ray_id: str) -> None:
        """Records another attempt of a trial."""
        self.append(Resumed(number, time.time(), ray_id))

    def epoch(self, number: int, epoch: int, metrics: Metrics) -> None:
        """Records one report of a trial.

        Args:
            number: The trial.
            epoch: The epoch, from 1.
            metrics: What the trial reported.
        """
        self.append(Epoch(number, epoch, time.time(), metrics))

    def applied(self, number: int, applied: Facts, machine: Facts) -> None:
        """Records what was read back of a trial that begins or continues, and where it trains.

        Args:
            number: The trial.
            applied: What was read back.
            machine: Where it trains.
        """
        self.append(Applied(number, time.time(), applied, machine))

    def error(self, number: int, kind: str, message: str) -> None:
        """Records why a trial failed.

        Args:
            number: The trial.
            kind: The kind of the failure.
            message: The error's message.
        """
        self.append(Error(number, time.time(), kind, message))

    def interrupted(self, number: int, epoch: int, message: str) -> None:
        """Records that a trial's worker died, and how far the trial had come; it continues.

        Args:
            number: The trial.
            epoch: The last epoch that it reported.
            message: What Ray said of the worker's death.
        """
        self.append(Interrupted(number, epoch, time.time(), message))

    def retried(self, number: int, epoch: int, message: str) -> None:
        """Records that a trial ran out of its share's memory, and how far it had come; it continues alone.

        Args:
            number: The trial.
            epoch: The last epoch that it reported.
            message: The error's message.
        """
        self.append(Retried(number, epoch, time.time(), message))

    def placed(self, number: int, node: str, address: str, host: str) -> None:
        """Records where an attempt of a trial starts.

        Args:
            number: The trial.
            node: Ray's id of the node.
            address: Its IP address.
            host: Its host name.
        """
        self.append(Placed(number, time.time(), node, address, host))

    def moved(self, number: int, epoch: int, node: str, message: str) -> None:
        """Records that a trial failed through a fault of its node, and how far it had come; it continues elsewhere.

        Args:
            number: The trial.
            epoch: The last epoch that it reported.
            node: Ray's id of the node.
            message: What failed there.
        """
        self.append(Moved(number, epoch, time.time(), node, message))

    def ended(self, number: int, state: EndState, why: str = "") -> None:
        """Records how a trial ended.

        Args:
            number: The trial.
            state: How it ended.
            why: The kind of the failure, if it failed.
        """
        self.append(Ended(number, time.time(), state, why))

    def dropped(self, number: int, num_bytes: int) -> None:
        """Records that the checkpoint of a trial that has ended is deleted to save space."""
        self.append(Dropped(number, time.time(), num_bytes))

    def close(self) -> None:
        """Closes the file; the next line would open it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _open_at_line_start(path: Path) -> FileIO:
    """Opens for appending, without a buffer that would be written later, and ends a line that a crash has cut off."""
    file = path.open("ab+", buffering=0)
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LONGEST_LINE))
    last = file.read().rpartition(b"\n")[2]
    if last:
        file.write(b"\n" if _is_whole(last) else _CUT + b"\n")
    return file


def _is_whole(line: bytes) -> bool:
    try:
        parse_line(line)
    except (ValueError, RecursionError):
        return False
    return True


def read_events(path: Path) -> list[Event]:
    """All whole lines of a journal, oldest first; empty when there is none."""
    return read_journal(path).events


@dataclass(frozen=True)
class Journal:
    """What a journal says.

    Attributes:
        path: Its file.
        events: Of all whole lines, oldest first.
        damaged: Numbers of the lines that cannot be read, from 1; not the one that is being written, nor those that a
            crash has cut off.
        num_lines: How many lines there are.
    """

    path: Path
    events: list[Event]
    damaged: tuple[int, ...]
    num_lines: int

    def warn(self) -> None:
        """Says how much is lost, if anything is."""
        if not self.damaged:
            return
        which = ", ".join(map(str, self.damaged[:_MOST_NAMED])) + (", ..." if len(self.damaged) > _MOST_NAMED else "")
        log.warning(
            "%s is damaged: %d of its %d lines cannot be read (lines %s), and what they said is missing; all others "
            "count. The file stays as it is: put a copy back, if there is one",
            self.path, len(self.damaged), self.num_lines, which,
        )  # fmt: skip


def read_journal(path: Path) -> Journal:
    """Reads a journal as far as it can be read; one without lines when there is none.

    Raises:
        RunError: It is there, and cannot be opened.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Journal(path, [], (), 0)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    *lines, last = content.split(b"\n")
    events, damaged = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = parse_line(line)
        except (ValueError, RecursionError):
            if not line.endswith(_CUT) or b"\0" in line:
                damaged.append(number)
            continue
        if event is not None:
            events.append(event)
    if b"\0" in last:  # as a power cut leaves the end of a file
        damaged.append(len(lines) + 1)
    elif last and (event := from_line(last)) is not None:  # all but its end
        events.append(event)
    return Journal(path, events, tuple(damaged), len(lines) + bool(last))


def epochs_by_trial(events: Iterable[Event]) -> dict[int, dict[int, Epoch]]:
    """`{number: {epoch: event}}`, the last line of each epoch winning, epochs in order."""
    trials: dict[int, dict[int, Epoch]] = {}
    for event in events:
        if isinstance(event, Epoch):
            trials.setdefault(event.number, {})[event.epoch] = event
    return {number: dict(sorted(epochs.items())) for number, epochs in sorted(trials.items())}


def errors_by_trial(events: Iterable[Event]) -> dict[int, Error]:
    """The last error of each trial, by its number."""
    return {event.number: event for event in events if isinstance(event, Error)}


def applied_by_trial(events: Iterable[Event]) -> dict[int, list[Applied]]:
    """What was read back of each trial, by its number: one record for each time that it began or continued."""
    found: dict[int, list[Applied]] = {}
    for event in events:
        if isinstance(event, Applied):
            found.setdefault(event.number, []).append(event)
    return found


def retried_trials(events: Iterable[Event]) -> frozenset[int]:
    """The trials that ran out of their share's memory once, and continued, or were to continue, alone."""
    return frozenset(event.number for event in events if isinstance(event, Retried))


def waiting_alone(events: Iterable[Event]) -> dict[int, Retried]:
    """The trials that were to continue alone and have not reported since, by number."""
    last = {event.number: event for event in events if not isinstance(event, Resumed | Placed)}
    return {number: event for number, event in last.items() if isinstance(event, Retried)}


def dropped_trials(events: Iterable[Event]) -> frozenset[int]:
    """The trials whose checkpoints were deleted to save space."""
    return frozenset(event.number for event in events if isinstance(event, Dropped))


def is_finished(rows: Mapping[int, Epoch]) -> bool:
    """Whether a trial's epochs, as `epochs_by_trial` has them, hold its last one."""
    return any(row.metrics.get("finished") for row in rows.values())
