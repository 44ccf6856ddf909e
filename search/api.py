"""What `import search` offers to scripts and notebooks: the commands as functions, which raise and return.

They print nothing unless they are asked to. What a command would log is in the run's `segsearch.log`, and reaches
whatever handlers the program has given to the root logger.

Layer 5.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from search.commands import DEFAULT_RESULTS
from search.runs.paths import RunPaths, find_run
from search.runs.reading import Run
from search.terminal import ScreenHandler

if TYPE_CHECKING:
    from search.config.tree import SearchConfig
    from search.stages.job import Outcome

log = logging.getLogger("segsearch")

PathLike = str | os.PathLike[str]


def load_config(path: PathLike, overrides: Mapping[str, Any] | Sequence[str] = ()) -> "SearchConfig":
    """Reads and checks a config file.

    Args:
        path: A YAML file.
        overrides: `{"train.epochs": 5}`, or `["train.epochs=5"]` as `--set` takes them.

    Raises:
        ConfigError: With every problem of the file and of the overrides.
    """
    from search.config.load import load_config as load

    if isinstance(overrides, Mapping):
        overrides = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    return load(Path(path), overrides)


def run(config: "SearchConfig | PathLike", *, show: bool = False) -> Run:
    """The whole job of `segsearch run`: check, cache, gate, search, confirm, seal, export, report.

    Args:
        config: A config, or its file.
        show: Also print what the command prints while it runs.

    Returns:
        The run. Its `status` is `done`, or `export_failed` where only an export went wrong.

    Raises:
        SegsearchError: The config, the data or the job is at fault.
        KeyboardInterrupt: It was interrupted; `resume` continues it.
    """
    from search.stages import job

    if isinstance(config, str | os.PathLike):
        config = load_config(config)
    with _told(show) as console:
        return _ended(job.run(config, console))


def resume(run: Run | PathLike, *, show: bool = False) -> Run:
    """The rest of a run that was stopped, whatever stopped it; one that is done is left as it is.

    Args:
        run: The run, its folder, or its name below `./results`.
        show: Also print what the command prints while it runs.

    Raises:
        SegsearchError: There is no such run, it is being worked on, or its data has changed.
        KeyboardInterrupt: It was interrupted again.
    """
    from search.stages import job

    paths = _paths(run)
    with _told(show) as console:
        return _ended(job.resume(paths, console))


def open_run(run: PathLike) -> Run:
    """Opens a run that runs, has ended or was killed, to read it.

    Args:
        run: Its folder, or its name below `./results`.

    Raises:
        RunError: There is no such run.
    """
    return Run(_paths(run))


def _paths(run: Run | PathLike) -> RunPaths:
    return run.paths if isinstance(run, Run) else find_run(os.fspath(run), DEFAULT_RESULTS)


def _ended(outcome: "Outcome") -> Run:
    from search.stages.job import EXIT_INTERRUPTED

    if outcome.exit_code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt(f"{outcome.paths.root} was interrupted; nothing is lost: search.resume continues it")
    return Run(outcome.paths)


class _ToTheProgram(logging.Handler):
    """Passes records to the root logger's handlers whatever the root logger's level, which is not ours to change."""

    def emit(self, record: logging.LogRecord) -> None:
        """Passes one record to the handlers."""
        root = logging.getLogger()
        if root.handlers and record.levelno >= root.level:
            root.handle(record)


@contextmanager
def _told(show: bool) -> Iterator[Console]:
    """The console of a job; the logger is as it was afterwards."""
    console = Console(stderr=True, quiet=not show)
    handler = ScreenHandler(console) if show else _ToTheProgram()
    level, propagates = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield console
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagates
