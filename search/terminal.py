"""What a command may do with the terminal. Progress bars are drawn on a terminal only, never in a log."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class ScreenHandler(logging.Handler):
    """Prints what is logged above the live tables. It breaks no line, so that a command in it can be copied.

    Args:
        console: Where the tables are.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%X"))

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one record."""
        try:
            self._console.print(self.format(record), markup=False, soft_wrap=True)
        except Exception:
            self.handleError(record)


def has_screen() -> bool:
    """Whether the command runs at a terminal of a machine that can open a window."""
    is_windowed = sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
    return sys.stdout.isatty() and is_windowed


@contextmanager
def counting_bar(console: Console, text: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for a count; yields `advance(done, total)`."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task(text, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def transfer_bars(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """One progress bar per file; yields `advance(file name, bytes done, bytes in total)`."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    ) as bars:  # fmt: skip
        tasks = {}

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield advance
