"""What Ray's own code writes to the terminal goes to a file: lines of its C++ parts, and last words of a dead part.

Ray's workers write to files of their own; this is about the process that drives them.
"""

import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray._private import worker

log = logging.getLogger("segsearch")

_STDERR = 2


@contextmanager
def raw_lines_held() -> Iterator[None]:
    """Hides from the user what is written to the process's stderr; it is logged for debugging."""
    with tempfile.TemporaryFile() as file:
        try:
            with _stderr_to(file.fileno()):
                yield
        finally:
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines():
                log.debug("ray: %s", line)


@contextmanager
def raw_lines_to(path: Path) -> Iterator[None]:
    """Appends to a file what Ray writes to the process's stderr, and what it says of a part of it that died.

    What Python writes to `sys.stderr`, our own messages among it, goes where it went before.
    """
    with path.open("ab", buffering=0) as file, _python_apart(), _stderr_to(file.fileno()), _notices_to(file):
        yield


@contextmanager
def _stderr_to(file: int) -> Iterator[None]:
    """What is written to the process's stderr goes to another file descriptor."""
    _flush()
    kept = os.dup(_STDERR)
    os.dup2(file, _STDERR)
    try:
        yield
    finally:
        _flush()
        os.dup2(kept, _STDERR)
        os.close(kept)


@contextmanager
def _python_apart() -> Iterator[None]:
    """Python's own stderr, and that of the loggers, is a copy of the process's, which may then go elsewhere."""
    before = sys.stderr
    if not _is_stderr(before):
        yield
        return
    _flush()
    copy = os.dup(_STDERR)
    with os.fdopen(copy, "w", buffering=1, encoding=before.encoding, errors=before.errors) as apart:
        handlers = [
            handler
            for logger in (log, logging.getLogger())
            for handler in logger.handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is before
        ]
        for handler in handlers:
            handler.setStream(apart)
        sys.stderr = apart
        try:
            yield
        finally:
            sys.stderr = before
            for handler in handlers:
                handler.setStream(before)


@contextmanager
def _notices_to(file: io.RawIOBase) -> Iterator[None]:
    """What Ray says of a part of it that died, with up to twenty lines of that part's log, is not printed."""
    before = worker.print_to_stdstream

    def write(data: dict[str, Any], ignore_prefix: bool) -> None:
        file.write("".join(f"{line}\n" for line in data["lines"]).encode())

    worker.print_to_stdstream = write
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def _is_stderr(stream: object) -> bool:
    try:
        return isinstance(stream, io.TextIOWrapper) and stream.fileno() == _STDERR
    except (OSError, ValueError):
        return False


def _flush() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
