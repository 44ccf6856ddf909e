"""The run's tables, from the lives of its trials; no training, no Ray, no side effects but the two Parquet files."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from search.runs.arrow import arrow_table
from search.runs.events import Event
from search.runs.lives import TrialLife, lives_of
from search.runs.rows import epoch_rows
from search.runs.trials import Trials
from segcore.objective import Objective


@dataclass(frozen=True)
class Tables:
    """`trials` has one row per trial, `epochs` one per epoch. Plain dicts, ready to print or to write."""

    trials: list[dict[str, Any]]
    epochs: list[dict[str, Any]]


def build_tables(lives: Iterable[TrialLife], objective: Objective) -> Tables:
    """Makes both tables from the trials' lives; a trial that waits to begin has no row.

    A trial's `value` is the metric of its best epoch, which is also the epoch whose weights its checkpoint keeps,
    whatever its state: a trial that was stopped early may still hold the best model. With a second metric, its column
    holds the cost that the trial was judged by, and `pareto` is true for the trials of the front. `applied` is
    JSON: what was read back of the trial before it trained.
    """
    lives = list(lives)
    return Tables(Trials.of_lives(lives, objective).table(), _epoch_table(lives))


def write_tables(tables: Tables, trials_path: Path, epochs_path: Path) -> None:
    """Writes both tables as Parquet, each beside its place and then moved there.

    Args:
        tables: What to write.
        trials_path: File of the trial table.
        epochs_path: File of the epoch table.
    """
    _write_parquet(tables.trials, trials_path)
    _write_parquet(tables.epochs, epochs_path)


def write_epochs(events: Iterable[Event], path: Path) -> None:
    """Writes the epoch table alone, of a run that has no study."""
    _write_parquet(_epoch_table(lives_of(events).values()), path)


def _epoch_table(lives: Iterable[TrialLife]) -> list[dict[str, Any]]:
    """One row per epoch, in order of trial and epoch."""
    return [
        {
            "number": row.number,
            "epoch": row.epoch,
            "time": row.time,
            **{key: float(v) for key, v in row.metrics.items()},
        }
        for row in epoch_rows(lives)
    ]


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet table."""
    with pq.ParquetFile(path) as table:  # `read_table` would import pyarrow.dataset, and with it pandas
        rows: list[dict[str, Any]] = table.read().to_pylist()
    return rows


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(arrow_table(rows), temporary)
    os.replace(temporary, path)
