"""Errors of disks are known in every library's words, and nothing else is taken for one."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from segcore.disk import disk_fault, room_at, shown_bytes


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_the_systems_errors_name_the_file(number: int) -> None:
    error = OSError(number, os.strerror(number), "results/a/run.json")
    assert disk_fault(error) == f"results/a/run.json: {os.strerror(number)}"


@pytest.mark.parametrize(
    "text",
    [
        "database or disk is full",
        "disk I/O error",
        "attempt to write a readonly database",
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/0: file write failed",
    ],
)
def test_the_words_of_libraries(text: str) -> None:
    assert disk_fault(RuntimeError(text)) == text


def test_an_error_that_another_one_hides() -> None:
    error = ValueError("the study cannot be written")
    error.__context__ = TypeError("in between")
    error.__context__.__cause__ = sqlite3.OperationalError("database or disk is full")
    assert disk_fault(error) == "database or disk is full"


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file"),
        PermissionError(errno.EACCES, "Permission denied"),
        RuntimeError("CUDA out of memory"),
        RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"),
    ],
)
def test_what_is_no_fault_of_a_disk(error: Exception) -> None:
    assert disk_fault(error) is None


def test_the_room_of_a_place_that_is_not_there_yet(tmp_path: Path) -> None:
    room = room_at(tmp_path / "results" / "birds")
    assert room is not None
    assert 0 < room.free <= room.total
    assert room.device == tmp_path.stat().st_dev


def test_bytes_for_people() -> None:
    assert [shown_bytes(count) for count in (1_250_000, 2_345_000_000)] == ["1.2 MB", "2.35 GB"]
