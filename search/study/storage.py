"""The run's `study.db`: opened so that a commit costs little, and written in batches where reports come fast.

SQLite's default is to wait for the disk at every commit, several milliseconds a report. Here a commit is appended to a
write-ahead log and the disk is waited for only now and then: a killed process loses nothing, a power cut at most the
last moments, which the journal has. Other processes (`optuna-dashboard`) can read all the while.
"""

import contextlib
import sqlite3
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialIntermediateValueModel
from optuna.trial import FrozenTrial
from sqlalchemy import insert, text
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from search.errors import RunError

BUSY_TIMEOUT_S = 60.0
FLUSH_S = 0.5
"""Reports reach `study.db` at most this much later, in one transaction."""

_UNREADABLE = (RuntimeError, SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError)


def open_study(storage_url: str, name: str, *, mode: str, sampler: optuna.samplers.BaseSampler | None) -> optuna.Study:
    """Opens the run's study, or creates it.

    Raises:
        RunError: The file is no Optuna storage that this version can read.
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
        RunError: The file is no Optuna storage that this version can read.
    """
    try:
        return optuna.load_study(storage=storage_url, study_name=name).get_trials(deepcopy=False)
    except KeyError:  # a process that died after it had made the file
        return []
    except _UNREADABLE as error:
        raise _cannot_be_opened(storage_url, error) from error


def close_study(study: optuna.Study) -> None:
    """Folds the write-ahead log into `study.db`, so that the one file can be copied, and closes it.

    Where another process has the file open, it is left as it is; whoever closes it last folds the log in.
    """
    engine = engine_of(study)
    if engine is None:
        return
    study._storage.remove_session()
    with contextlib.suppress(SQLAlchemyError, sqlite3.Error), engine.connect() as connection:
        connection.execute(text("PRAGMA busy_timeout=0"))
        connection.execute(text("PRAGMA journal_mode=DELETE"))
    engine.dispose()


def engine_of(study: optuna.Study) -> Engine | None:
    """The connections of a study in a file; None for one in memory."""
    storage = getattr(study._storage, "_backend", study._storage)
    return storage.engine if isinstance(storage, RDBStorage) else None


class ReportBuffer:
    """Collects reports and writes them to the study together.

    Optuna's own `report` is several queries and a commit each: 5 to 20 ms, where a row of a batch is 0.05 ms.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._pending: dict[tuple[int, int], float] = {}
        self._flushed = time.monotonic()

    def add(self, number: int, epoch: int, value: float) -> None:
        """Takes a report; it is in the study after the next flush."""
        self._pending[number, epoch] = value

    def flush_if_due(self) -> None:
        """Flushes when the last time is `FLUSH_S` ago."""
        if self._pending and time.monotonic() - self._flushed >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Writes what is pending in one transaction."""
        self._flushed = time.monotonic()
        reports = {(trial_id_of(self._study, number), epoch): value for (number, epoch), value in self._pending.items()}
        write_reports(self._study, reports)
        self._pending.clear()


def write_reports(study: optuna.Study, reports: Mapping[tuple[int, int], float]) -> None:
    """Stores intermediate values, `{(trial_id, epoch): value}`, replacing those that are there."""
    if not reports:
        return
    engine = engine_of(study)
    if engine is None:
        for (trial_id, epoch), value in reports.items():
            study._storage.set_trial_intermediate_value(trial_id, epoch, value)
        return
    rows = []
    for (trial_id, epoch), value in reports.items():
        stored, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        rows.append(
            {"trial_id": trial_id, "step": epoch, "intermediate_value": stored, "intermediate_value_type": kind}
        )
    with engine.begin() as connection:
        connection.execute(insert(TrialIntermediateValueModel).prefix_with("OR REPLACE"), rows)


def trial_id_of(study: optuna.Study, number: int) -> int:
    """The storage's id of a trial."""
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def _storage(storage_url: str) -> RDBStorage | str:
    path = make_url(storage_url).database
    return RDBStorage(storage_url, engine_kwargs={"creator": partial(_connect, path)}) if path else storage_url


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
    with contextlib.suppress(sqlite3.OperationalError):  # a file system without shared memory: slower, as safe
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode == "wal":
            connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _cannot_be_opened(storage_url: str, error: BaseException) -> RunError:
    cause: Any = getattr(error, "orig", None) or error.__cause__ or error
    return RunError(f"{storage_url} cannot be opened as an Optuna study: {cause}")
