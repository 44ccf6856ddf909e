"""The run's `study.db`: opened so that a commit costs little, and written in batches where reports come fast.

SQLite's default is to wait for the disk at every commit, several milliseconds a report. Here a commit is appended to a
write-ahead log and the disk is waited for only now and then: a killed process loses nothing, a power cut at most the
last moments, which the journal has. Other processes (`optuna-dashboard`) can read at any time.
"""

import sqlite3
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from search.commands import remedy
from search.errors import RunError
from search.study.observations import COST_ATTR
from search.study.optuna_internals import close_connections, fold_log, set_attr, sqlite_storage, write_reports

BUSY_TIMEOUT_S = 60.0
FLUSH_S = 0.5
"""Reports reach `study.db` at most this much later, in one transaction."""

_UNREADABLE = (RuntimeError, SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError)


def open_study(storage_url: str, name: str, *, mode: str, sampler: optuna.samplers.BaseSampler | None) -> optuna.Study:
    """Opens the run's study, or creates it.

    Args:
        storage_url: `sqlite:///` and the path.
        name: The study's name.
        mode: `max` or `min`.
        sampler: Optuna's sampler; None takes Optuna's default.

    Raises:
        RunError: The file is not an Optuna storage that this version can read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            storage=_storage(storage_url),
            study_name=name,
            direction="maximize" if mode == "max" else "minimize",
            sampler=sampler,
            load_if_exists=True,
        )
    except _UNREADABLE as error:
        raise _cannot_be_opened(storage_url, error) from error


def stored_trials(storage_url: str, name: str) -> list[FrozenTrial]:
    """The trials of a run's study as they stand, in order of their number; none when it was never begun.

    Raises:
        RunError: The file is not an Optuna storage that this version can read.
    """
    try:
        study = optuna.load_study(storage=storage_url, study_name=name)
        trials = study.get_trials(deepcopy=False)
    except KeyError:  # a process that died after it had made the file
        return []
    except _UNREADABLE as error:
        raise _cannot_be_opened(storage_url, error) from error
    close_connections(study)  # an open one would keep the write-ahead log from being folded in
    return trials


def close_study(study: optuna.Study) -> None:
    """Folds the write-ahead log into `study.db`, so that the one file can be copied, and closes it."""
    fold_log(study)


class ReportBuffer:
    """Collects reports and writes them to the study together.

    Optuna's own `report` is several queries and a commit each: 5 to 20 ms, where a row of a batch is 0.05 ms.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._pending: dict[tuple[int, int], float] = {}
        self._costs: dict[int, float] = {}
        self._flushed = time.monotonic()

    def add(self, number: int, epoch: int, value: float) -> None:
        """Takes a report; it is in the study after the next flush.

        Args:
            number: The trial.
            epoch: The epoch, from 1.
            value: The metric.
        """
        self._pending[number, epoch] = value

    def add_cost(self, number: int, cost: float) -> None:
        """Takes a trial's value of the second metric, which goes with its report."""
        self._costs[number] = cost

    def flush_if_due(self) -> None:
        """Flushes when the last flush was `FLUSH_S` seconds ago or more."""
        if self._pending and time.monotonic() - self._flushed >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Writes what is pending, all reports in one transaction."""
        self._flushed = time.monotonic()
        for number, cost in self._costs.items():
            set_attr(self._study, number, COST_ATTR, cost)
        self._costs.clear()
        write_reports(self._study, self._pending)
        self._pending.clear()


def _storage(storage_url: str) -> RDBStorage | str:
    path = make_url(storage_url).database
    return sqlite_storage(storage_url, path, BUSY_TIMEOUT_S) if path else storage_url


def _cannot_be_opened(storage_url: str, error: BaseException) -> RunError:
    cause: Any = getattr(error, "orig", None) or error.__cause__ or error
    file = Path(make_url(storage_url).database or storage_url)
    return RunError(f"{file} cannot be opened as an Optuna study: {cause}{remedy(file)}")
