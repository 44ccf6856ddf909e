"""What a run's journal can say: one frozen record for each kind of line.

A line is one JSON object: its kind under `event`, then the fields of the record below that has this kind. A line of a
kind that only a newer version knows is ignored, and so is a field that only a newer version writes, so that an older
version still reads what it can. A line that is not a whole object, or lacks a field, is damage.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Literal

from segcore.params import Params

Facts = dict[str, Any]
"""What was read back of a training, as JSON; see `segcore.applied`."""
Metrics = dict[str, float]
"""What a trial reports of an epoch: `val/iou` and the like, `lr`, `best_epoch`, and `finished` on the last one."""
MOST = 10_000_000
"""Trials and epochs have numbers below it; a larger one is damage."""
EndState = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True)
class Epoch:
    """A trial reported an epoch, counted from 1."""

    KIND: ClassVar = "epoch"
    number: int
    epoch: int
    time: float
    metrics: Metrics


@dataclass(frozen=True)
class Enqueued:
    """A point waits in the study to be tried; `params` has the study's names and values, perhaps not all."""

    KIND: ClassVar = "enqueued"
    number: int
    time: float
    params: Params
    parent: tuple[int, int] | None = None


@dataclass(frozen=True)
class Began:
    """A trial got its number and what it runs with; the study learns of it after this line.

    Attributes:
        number: The trial's number, from 0.
        time: Unix time in seconds.
        params: What it runs with.
        origin: Who proposed it: config, enqueued, start, prior, fork, or a sampler's name.
        ray_id: Ray's id of its first attempt; empty where there is none.
        parent: Of a fork, the number and the epoch of the trial that it continues.
    """

    KIND: ClassVar = "began"
    number: int
    time: float
    params: Params
    origin: str
    ray_id: str = ""
    parent: tuple[int, int] | None = None


@dataclass(frozen=True)
class Resumed:
    """A trial that has begun earlier gets another attempt, with an id of its own in Ray."""

    KIND: ClassVar = "resumed"
    number: int
    time: float
    ray_id: str


@dataclass(frozen=True)
class Placed:
    """An attempt of a trial starts on a node of the cluster: Ray's id of it, its IP address and its host name."""

    KIND: ClassVar = "placed"
    number: int
    time: float
    node: str
    address: str
    host: str


@dataclass(frozen=True)
class Applied:
    """What was read back of a trial before its first step of an attempt, and the machine that it trains on."""

    KIND: ClassVar = "applied"
    number: int
    time: float
    applied: Facts
    machine: Facts


@dataclass(frozen=True)
class Error:
    """A trial failed: the kind, e.g. `out of memory` or an exception's name, and the message."""

    KIND: ClassVar = "error"
    number: int
    time: float
    kind: str
    message: str


@dataclass(frozen=True)
class Interrupted:
    """A trial's worker died after `epoch`; the trial continues."""

    KIND: ClassVar = "interrupted"
    number: int
    epoch: int
    time: float
    message: str


@dataclass(frozen=True)
class Retried:
    """A trial ran out of its share's memory after `epoch`; it continues alone."""

    KIND: ClassVar = "retried"
    number: int
    epoch: int
    time: float
    message: str


@dataclass(frozen=True)
class Moved:
    """A trial failed after `epoch` through a fault of the node with Ray's id `node`; it continues elsewhere."""

    KIND: ClassVar = "moved"
    number: int
    epoch: int
    time: float
    node: str
    message: str


@dataclass(frozen=True)
class Ended:
    """A trial ended for good; the study learns of it after this line. `why` is the kind of a failure, else empty."""

    KIND: ClassVar = "ended"
    number: int
    time: float
    state: EndState
    why: str = ""


@dataclass(frozen=True)
class Dropped:
    """The checkpoint of a trial that has ended, of size `bytes`, is deleted to save space."""

    KIND: ClassVar = "dropped"
    number: int
    time: float
    bytes: int


Event = Epoch | Enqueued | Began | Resumed | Placed | Applied | Error | Interrupted | Retried | Moved | Ended | Dropped

_CLASSES: dict[str, type[Event]] = {
    kind.KIND: kind
    for kind in (Epoch, Enqueued, Began, Resumed, Placed, Applied, Error, Interrupted, Retried, Moved, Ended, Dropped)
}
_FIELDS = {kind: fields(record) for kind, record in _CLASSES.items()}
_DEFAULTS: Mapping[str, Any] = {"time": 0.0}
"""Values of fields that hand-written lines of earlier versions may lack."""


def to_line(event: Event) -> bytes:
    """The event as one line of the journal, its end included."""
    return json.dumps({"event": event.KIND, **vars(event)}, allow_nan=True).encode() + b"\n"


def from_line(line: bytes) -> Event | None:
    """The event of a line; None for one that this version cannot read as a whole event."""
    try:
        return parse_line(line)
    except (ValueError, RecursionError):
        return None


def parse_line(line: bytes) -> Event | None:
    """The event of a line; None for one of a kind that only a newer version knows.

    Raises:
        ValueError: It is not a whole event.
    """
    row = json.loads(line)
    if not isinstance(row, dict) or not isinstance(row.get("event"), str):
        raise ValueError("no event")
    record = _CLASSES.get(row["event"])
    if record is None:
        return None
    found = {}
    for field in _FIELDS[record.KIND]:
        if field.name in row:
            found[field.name] = row[field.name]
            if not _IS_VALID[field.name](row[field.name]):
                raise ValueError(f"{field.name}: {row[field.name]!r}")
        elif field.default is MISSING:
            found[field.name] = _DEFAULTS.get(field.name)
            if found[field.name] is None:
                raise ValueError(f"no {field.name}")
    if found.get("parent") is not None:
        found["parent"] = (int(found["parent"][0]), int(found["parent"][1]))
    return record(**found)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_parent(value: object) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 2 and all(map(_is_count, value)))


_IS_VALID: Mapping[str, Callable[[Any], bool]] = {
    "number": _is_count,
    "epoch": _is_count,
    "time": _is_number,
    "metrics": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    "params": _is_object,
    "parent": _is_parent,
    "origin": _is_text,
    "ray_id": _is_text,
    "node": _is_text,
    "address": _is_text,
    "host": _is_text,
    "applied": _is_object,
    "machine": _is_object,
    "kind": _is_text,
    "message": _is_text,
    "state": lambda value: value in ("complete", "pruned", "failed"),
    "why": _is_text,
    "bytes": lambda value: isinstance(value, int),
}
"""What a field may hold; anything else is damage."""
