"""Everything that we use of Optuna beyond its public interface, and nothing else; a test names what breaks without it.

Optuna's own ways of doing the same are a transaction and several queries for each report (5 to 20 ms, where a row of a
batch is 0.05 ms), a read of all trials to look at one, and no way at all to set a parameter of a running trial.
"""

import contextlib
import sqlite3
from collections.abc import Mapping
from functools import partial
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.storages._rdb.models import TrialIntermediateValueModel
from optuna.trial import FrozenTrial
from sqlalchemy import insert, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

FIXED_PARAMS = "fixed_params"
"""System attribute of a trial that waits: the parameters that `study.enqueue_trial` was given."""


def fixed_params(trial: FrozenTrial) -> dict[str, Any] | None:
    """What a trial was enqueued with; None for one that was not."""
    found = trial.system_attrs.get(FIXED_PARAMS)
    return None if found is None else dict(found)


def trial_of(study: optuna.Study, number: int) -> FrozenTrial:
    """One trial, without reading the others."""
    return study._storage.get_trial(_id_of(study, number))


def handle_of(study: optuna.Study, number: int) -> optuna.trial.Trial:
    """What `study.ask` would have returned for a trial that is running."""
    return optuna.trial.Trial(study, _id_of(study, number))


def set_attr(study: optuna.Study, number: int, key: str, value: Any) -> None:
    """Sets a user attribute of a trial that has not ended.

    Args:
        study: The study.
        number: The trial.
        key: The attribute's name.
        value: Anything that JSON can hold.
    """
    study._storage.set_trial_user_attr(_id_of(study, number), key, value)


def set_param(study: optuna.Study, number: int, name: str, value: Any, distribution: BaseDistribution) -> None:
    """Stores a parameter of a trial that is running.

    Args:
        study: The study.
        number: The trial.
        name: The parameter's name in the study.
        value: Its value, as the distribution takes it.
        distribution: What it was drawn from.
    """
    stored = distribution.to_internal_repr(value)
    study._storage.set_trial_param(_id_of(study, number), name, stored, distribution)


def refresh(trial: optuna.trial.Trial) -> None:
    """Makes a handle see what was stored without it; a handle keeps a copy of what it read when it was made."""
    trial._cached_frozen_trial = trial.storage.get_trial(trial._trial_id)


def write_reports(study: optuna.Study, reports: Mapping[tuple[int, int], float]) -> None:
    """Stores intermediate values, `{(number, epoch): value}`, in one transaction, replacing those that are there."""
    if not reports:
        return
    ids = {number: _id_of(study, number) for number in {number for number, _ in reports}}
    engine = _engine_of(study)
    if engine is None:
        for (number, epoch), value in reports.items():
            study._storage.set_trial_intermediate_value(ids[number], epoch, value)
        return
    rows = []
    for (number, epoch), value in reports.items():
        stored, kind = TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        rows.append(
            {"trial_id": ids[number], "step": epoch, "intermediate_value": stored, "intermediate_value_type": kind}
        )
    with engine.begin() as connection:
        connection.execute(insert(TrialIntermediateValueModel).prefix_with("OR REPLACE"), rows)


def sqlite_storage(storage_url: str, path: str, timeout_s: float) -> RDBStorage:
    """A storage whose commits are appended to a write-ahead log; see `search.study.storage`.

    Args:
        storage_url: `sqlite:///` and the path.
        path: The file.
        timeout_s: How long a write waits for another process that writes.
    """
    return RDBStorage(storage_url, engine_kwargs={"creator": partial(_connect, path, timeout_s)})


def fold_log(study: optuna.Study) -> None:
    """Folds the write-ahead log into the study's file and closes the file.

    Where another process has it open, the log is left as it is; the last process to close it folds it in.
    """
    engine = _engine_of(study)
    if engine is None:
        return
    study._storage.remove_session()
    with contextlib.suppress(SQLAlchemyError, sqlite3.Error), engine.connect() as connection:
        connection.execute(text("PRAGMA busy_timeout=0"))
        connection.execute(text("PRAGMA journal_mode=DELETE"))
    engine.dispose()


def close_connections(study: optuna.Study) -> None:
    """Closes the study's file, which is left as it is."""
    engine = _engine_of(study)
    if engine is not None:
        study._storage.remove_session()
        engine.dispose()


def _connect(path: str, timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=timeout_s, check_same_thread=False)
    with contextlib.suppress(sqlite3.OperationalError):  # a file system without shared memory: slower, as safe
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode == "wal":
            connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _engine_of(study: optuna.Study) -> Engine | None:
    """The connections of a study in a file; None for one in memory."""
    storage = getattr(study._storage, "_backend", study._storage)
    return storage.engine if isinstance(storage, RDBStorage) else None


def _id_of(study: optuna.Study, number: int) -> int:
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
