"""The run's tables, from the lives of its trials; no training, no Ray, no side effects but the two Parquet files."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from search.runs.arrow import arrow_table
from search.runs.events import Epoch, Event, Metrics
from search.runs.journal import epochs_by_trial
from search.runs.lives import TrialLife
from search.runs.pareto import sorted_fronts
from segcore.objective import Objective
from segcore.params import Params


@dataclass(frozen=True)
class Tables:
    """`trials`: a row a trial; `epochs`: a row an epoch. Plain dicts, ready to print or to write."""

    trials: list[dict[str, Any]]
    epochs: list[dict[str, Any]]


def build_tables(lives: Iterable[TrialLife], objective: Objective) -> Tables:
    """Makes both tables of what is known of each trial; one that waits to begin has no row.

    A trial's `value` is the metric of its best epoch, which is also the epoch whose weights its checkpoint keeps,
    whatever its state: a trial that was stopped early may still hold the best model. With a second metric, its column
    holds the cost that the trial was judged by, and `pareto` is true for the trials of `pareto_front`. `applied` is
    JSON: what was read back of the trial before it trained.
    """
    lives = list(lives)
    trial_rows = [_trial_row(life, objective) for life in lives if life.state != "waiting"]
    if objective.second is not None:
        front = pareto_front(trial_rows, objective)
        for row in trial_rows:
            row["pareto"] = row["number"] in front
    return Tables(trial_rows, epoch_rows({life.number: life.epochs for life in lives}))


def _trial_row(life: TrialLife, objective: Objective) -> dict[str, Any]:
    values = life.values(objective.metric)
    best_epoch = objective.best_epoch(values)
    best_metrics = life.epochs[best_epoch].metrics if best_epoch is not None else {}
    error = life.error if life.state == "failed" else None
    return {
        "number": life.number,
        "state": life.state,
        "value": values[best_epoch] if best_epoch is not None else None,
        "best_epoch": best_epoch,
        "epochs": max(values, default=0),
        "started": life.began,
        "ended": life.ended,
        "train_s": sum(row.metrics.get("time/train_s", 0.0) for row in life.epochs.values()),
        **{key: best_metrics.get(key) for key in _metric_keys(best_metrics)},
        **({objective.second: life.cost(objective.second)} if objective.second else {}),
        **{f"param/{key}": value for key, value in (life.params or {}).items()},
        "error": f"{error.kind}: {error.message}" if error else None,
        "applied": json.dumps(life.applied[-1].applied) if life.applied else None,
        "ray_trial_ids": list(life.ray_ids),
    }


def pareto_front(trials: Sequence[Mapping[str, Any]], objective: Objective) -> list[int]:
    """The numbers of the trials that no other one beats in value and cost at once, best value first.

    Trials without a value or a cost, and those that failed, are not compared. Of trials with the same value and cost,
    all are there; in a search without a second metric, nobody is.
    """
    second = objective.second
    points = {
        row["number"]: (objective.sign * row["value"], row[second])
        for row in trials
        if row["state"] != "failed" and row["value"] is not None and second is not None and row.get(second) is not None
    }
    fronts = sorted_fronts(points)
    return fronts[0] if fronts else []


def best_trial(trials: Sequence[dict[str, Any]], objective: Objective) -> dict[str, Any] | None:
    """The row whose best epoch is the best of all; the earlier trial wins a tie. None when no trial has a value.

    A trial that was stopped early may win. One that failed may win only where all that reported failed: what broke it
    may have bent its last epochs too, but its best checkpoint is better than nothing.
    """
    scored = [row for row in trials if row["value"] is not None]
    sound = [row for row in scored if row["state"] != "failed"]
    return max(sound or scored, key=lambda row: (objective.sign * row["value"], -row["number"]), default=None)


def ranked(trials: Sequence[dict[str, Any]], objective: Objective) -> list[dict[str, Any]]:
    """The rows, best first, of equal ones the earlier; then those that failed, then those without a value."""
    return sorted(
        trials,
        key=lambda row: (
            row["value"] is None, row["state"] == "failed", -objective.sign * (row["value"] or 0.0), row["number"],
        ),
    )  # fmt: skip


def settings_of(row: Mapping[str, Any]) -> Params:
    """What a trial of the table ran with: dotted key -> value, without keys that its branch does not have."""
    prefix = "param/"
    return {key.removeprefix(prefix): v for key, v in row.items() if key.startswith(prefix) and v is not None}


def write_tables(tables: Tables, trials_path: Path, epochs_path: Path) -> None:
    """Writes both tables as Parquet, each beside its place and then moved there."""
    _write_parquet(tables.trials, trials_path)
    _write_parquet(tables.epochs, epochs_path)


def write_epochs(events: Sequence[Event], path: Path) -> None:
    """Writes the epoch table alone, of a run that has no study."""
    _write_parquet(epoch_rows(epochs_by_trial(events)), path)


def epoch_rows(journal: Mapping[int, Mapping[int, Epoch]]) -> list[dict[str, Any]]:
    """A row an epoch, in order of trial and epoch."""
    return [
        {"number": number, "epoch": epoch, "time": row.time, **_numbers(row.metrics)}
        for number, epochs in journal.items()
        for epoch, row in epochs.items()
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


def _metric_keys(metrics: Metrics) -> list[str]:
    return [key for key in metrics if key.startswith(("val/", "cost/")) or key in ("train/loss", "lr")]


def _numbers(metrics: Metrics) -> dict[str, float]:
    skip = {"number", "epoch", "finished", "best_epoch"}
    return {key: float(value) for key, value in metrics.items() if isinstance(value, int | float) and key not in skip}
