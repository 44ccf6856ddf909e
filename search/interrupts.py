"""Stopping by a signal: SIGTERM is treated like Ctrl-C."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def terminate_as_interrupt() -> Iterator[list[int]]:
    """Makes SIGTERM end the search the way Ctrl-C does, and records either signal in the list that it yields."""
    seen: list[int] = []
    previous = signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        os.kill(os.getpid(), signal.SIGINT)

    try:
        signal.signal(signal.SIGTERM, note)
    except ValueError:  # not the main thread, which alone may set signal handlers
        yield seen
        return
    try:
        yield seen
    finally:
        signal.signal(signal.SIGTERM, previous)
