"""Reads the `.wandb` log files of runs: a 7-byte header, then LevelDB log blocks of protobuf records."""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEADER_BYTES = 7
BLOCK_BYTES = 32768
_TYPE_FULL, _TYPE_FIRST, _TYPE_LAST = 1, 2, 4


@dataclass
class LoggedRun:
    """What one log file holds."""

    run_id: str = ""
    group: str = ""
    display_name: str = ""
    job_type: str = ""
    project: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The rows that are reports of the trial, without its curve and overlays."""
        return [row for row in self.rows if "epoch" in row]


def read_logs(run_dir: Path) -> dict[str, LoggedRun]:
    """Every run below `run_dir/wandb`, by its display name; sessions of one run joined in order of their start."""
    found: dict[str, LoggedRun] = {}
    for path in sorted(
        (run_dir / "wandb").glob("*run-*/run-*.wandb"), key=lambda path: path.parent.name.split("run-", 1)[1]
    ):
        logged = read_log(path)
        if earlier := found.get(logged.display_name):
            logged.rows = earlier.rows + logged.rows
        found[logged.display_name] = logged
    return found


def read_log(path: Path) -> LoggedRun:
    """One log file, checksums verified."""
    from wandb.proto.wandb_internal_pb2 import Record

    logged = LoggedRun()
    for content in _records(path.read_bytes()):
        record = Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            logged.run_id, logged.group, logged.display_name = run.run_id, run.run_group, run.display_name
            logged.job_type, logged.project, logged.tags = run.job_type, run.project, list(run.tags)
            logged.config |= {item.key: json.loads(item.value_json) for item in run.config.update}
        elif kind == "history":
            logged.rows.append(_items(record.history.item))
        elif kind == "summary":
            logged.summary |= _items(record.summary.update)
        elif kind == "exit":
            logged.exit_code = record.exit.exit_code
    return logged


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[bytes]:
    position, parts = HEADER_BYTES, b""
    while position + 7 <= len(data):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < 7:
            position += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, position)
        content = data[position + 7 : position + 7 + length]
        if kind == 0 or len(content) < length:
            return
        assert checksum == zlib.crc32(bytes([kind]) + content), f"record at byte {position} is damaged"
        position += 7 + length
        parts = content if kind in (_TYPE_FULL, _TYPE_FIRST) else parts + content
        if kind in (_TYPE_FULL, _TYPE_LAST):
            yield parts
