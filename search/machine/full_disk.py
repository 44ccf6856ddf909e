"""What a process does whose disk is full: it stops as if interrupted, and leaves out the notes that find no room."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from segcore.disk import disk_fault
from segcore.errors import DiskError


def disk_stop(error: BaseException) -> str | None:
    """Why a disk stops a run, as an error or one that led to it says; None where the error has another cause."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, DiskError):
            return str(found)
        found = found.__cause__ or found.__context__
    return disk_fault(error)


@contextmanager
def despite_the_disk() -> Iterator[None]:
    """Leaves a note out that a full disk does not take: the run then says `running`, which a dead process is not."""
    try:
        yield
    except OSError as error:
        if disk_fault(error) is None:
            raise


class LogFile(logging.FileHandler):
    """A log that does without the lines that a full disk does not take; the terminal has them."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Says nothing of an error of the disk, where logging would print a traceback for every line."""
        error = sys.exc_info()[1]
        if error is None or disk_fault(error) is None:
            super().handleError(record)
