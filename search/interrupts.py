"""A wish to stop, by whichever signal it comes."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def terminate_as_interrupt() -> Iterator[list[int]]:
    """Makes SIGTERM end the search the way Ctrl-C does, and notes either in the list that it yields."""
    seen: list[int] = []
    previous = signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        os.kill(os.getpid(), signal.SIGINT)

    try:
        signal.signal(signal.SIGTERM, note)
    except ValueError:  # not the main thread; then nobody's signals are ours
        yield seen
        return
    try:
        yield seen
    finally:
        signal.signal(signal.SIGTERM, previous)
