"""The result of one trial as a row, made from its life in the journal; converts to table columns and back."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from search.runs.lives import TrialLife
from segcore.objective import Objective
from segcore.params import ParamValue

_PARAM = "param/"
_COLUMNS = frozenset(
    {
        "number", "state", "value", "best_epoch", "epochs", "started", "ended", "train_s", "error", "applied",
        "ray_trial_ids", "pareto",
    }
)  # fmt: skip
"""Columns of the table that are neither a metric nor a parameter."""


@dataclass(frozen=True)
class TrialRow:
    """The result of one trial.

    Attributes:
        number: Its number in the search, from 0.
        state: `complete`, `pruned`, `failed` or `running`.
        value: The searched metric of its best epoch, whatever its state; None before it has one.
        best_epoch: That epoch, whose weights its checkpoint keeps.
        epochs: The last epoch that it reported; 0 for none.
        started: When it began, in seconds since 1970.
        ended: When it ended.
        train_s: Seconds of training, over all epochs.
        metrics: What its best epoch reported, by key; the second metric is the one that the trial was judged by.
        params: What it ran with: searched dotted key -> value, without keys that its branch does not have.
        error: Why it failed: `kind: message`.
        applied: What was read back of it before it trained.
        ray_trial_ids: Ray's ids of it, one per attempt.
    """

    number: int
    state: str = "complete"
    value: float | None = None
    best_epoch: int | None = None
    epochs: int = 0
    started: float | None = None
    ended: float | None = None
    train_s: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    error: str | None = None
    applied: Mapping[str, Any] | None = None
    ray_trial_ids: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether it has a value and did not fail."""
        return self.value is not None and self.state != "failed"


@dataclass(frozen=True)
class EpochRow:
    """One report of a trial: when it came, and its metrics by key."""

    number: int
    epoch: int
    time: float
    metrics: Mapping[str, float]


def row_of_life(life: TrialLife, objective: Objective) -> TrialRow:
    """The result of a trial so far, from the journal."""
    values = life.values(objective.metric)
    best_epoch = objective.best_epoch(values)
    reported = life.epochs[best_epoch].metrics if best_epoch is not None else {}
    metrics = {name: value for name, value in reported.items() if is_result(name)}
    if objective.second is not None:
        metrics.pop(objective.second, None)
        cost = life.cost(objective.second)
        metrics |= {} if cost is None else {objective.second: cost}
    error = life.error if life.state == "failed" else None
    return TrialRow(
        number=life.number,
        state=life.state,
        value=None if best_epoch is None else values[best_epoch],
        best_epoch=best_epoch,
        epochs=max(values, default=0),
        started=life.began,
        ended=life.ended,
        train_s=sum(epoch.metrics.get("time/train_s", 0.0) for epoch in life.epochs.values()),
        metrics=metrics,
        params={key: value for key, value in (life.params or {}).items() if value is not None},
        error=f"{error.kind}: {error.message}" if error else None,
        applied=life.applied[-1].applied if life.applied else None,
        ray_trial_ids=life.ray_ids,
    )


def epoch_rows(lives: Iterable[TrialLife]) -> list[EpochRow]:
    """Every report of some trials, in order of trial and epoch."""
    return [
        EpochRow(
            life.number, epoch, report.time, {name: v for name, v in report.metrics.items() if is_measured(name, v)}
        )
        for life in lives
        for epoch, report in life.epochs.items()
    ]


def is_measured(name: str, value: object) -> bool:
    """Whether an entry of a report is a measurement, not a remark such as whether it is the last one."""
    return isinstance(value, int | float) and name not in ("number", "epoch", "finished", "best_epoch")


def is_result(name: str) -> bool:
    """Whether a metric of a trial's best epoch counts among the trial's results."""
    return name.startswith(("val/", "cost/")) or name in ("train/loss", "lr")


def columns_of(row: TrialRow, second: str | None) -> dict[str, Any]:
    """A row of `trials.parquet`, in the order of its columns; `second` is the second metric, which has a column."""
    return {
        "number": row.number,
        "state": row.state,
        "value": row.value,
        "best_epoch": row.best_epoch,
        "epochs": row.epochs,
        "started": row.started,
        "ended": row.ended,
        "train_s": row.train_s,
        **row.metrics,
        **({second: row.metrics.get(second)} if second else {}),
        **{f"{_PARAM}{key}": value for key, value in row.params.items()},
        "error": row.error,
        "applied": None if row.applied is None else json.dumps(row.applied),
        "ray_trial_ids": list(row.ray_trial_ids),
    }


def row_of_columns(row: Mapping[str, Any]) -> TrialRow:
    """The same back; a missing column counts as None."""
    known = {name: value for name, value in row.items() if value is not None}
    applied = known.get("applied")
    return TrialRow(
        number=known["number"],
        state=known["state"],
        value=known.get("value"),
        best_epoch=known.get("best_epoch"),
        epochs=known.get("epochs", 0),
        started=known.get("started"),
        ended=known.get("ended"),
        train_s=known.get("train_s", 0.0),
        metrics={name: v for name, v in known.items() if name not in _COLUMNS and not name.startswith(_PARAM)},
        params={name.removeprefix(_PARAM): v for name, v in known.items() if name.startswith(_PARAM)},
        error=known.get("error"),
        applied=None if applied is None else json.loads(applied),
        ray_trial_ids=tuple(known.get("ray_trial_ids", ())),
    )
