"""A search's trials as rows, and the only orderings of them that there are: the best, all by rank, the Pareto front."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from search.runs.lives import TrialLife
from search.runs.pareto import sorted_fronts
from segcore.objective import Objective

if TYPE_CHECKING:
    import pyarrow as pa

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
    """What came of one trial.

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
        ray_trial_ids: Ray's ids of it, one an attempt.
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
    params: Mapping[str, Any] = field(default_factory=dict)
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


class Trials(Sequence[TrialRow]):
    """The trials of a search in order of their number, with what is better.

    Args:
        rows: One row a trial.
        objective: What they are judged by.
    """

    def __init__(self, rows: Sequence[TrialRow], objective: Objective) -> None:
        self.objective = objective
        self._rows = tuple(sorted(rows, key=lambda row: row.number))
        self._by_number = {row.number: row for row in self._rows}

    @overload
    def __getitem__(self, index: int) -> TrialRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TrialRow]: ...
    def __getitem__(self, index: int | slice) -> TrialRow | Sequence[TrialRow]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[TrialRow]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trials) and (self._rows, self.objective) == (other._rows, other.objective)

    def __hash__(self) -> int:
        return hash((Trials, len(self._rows), self.objective))

    def __repr__(self) -> str:
        return f"Trials({list(self._rows)!r}, {self.objective!r})"

    def get(self, number: int | None) -> TrialRow | None:
        """The trial of that number, if there is one."""
        return None if number is None else self._by_number.get(number)

    def states(self) -> dict[str, int]:
        """How many trials there are in each state."""
        return dict(sorted(Counter(row.state for row in self._rows).items()))

    def best(self) -> TrialRow | None:
        """The trial whose best epoch is the best of all; the earlier trial wins a tie. None when none has a value.

        A trial that was stopped early may win. One that failed may win only where all that reported failed: what broke
        it may have bent its last epochs too, but its best checkpoint is better than nothing.
        """
        return next((row for row in self.ranked() if row.value is not None), None)

    def ranked(self) -> list[TrialRow]:
        """All of them, best first, of equal ones the earlier; then those that failed, then those without a value."""
        sign = self.objective.sign
        return sorted(
            self._rows,
            key=lambda row: (row.value is None, row.state == "failed", -sign * (row.value or 0.0), row.number),
        )

    def top(self, count: int) -> list[TrialRow]:
        """The best trials that have a value and did not fail, best first."""
        return [row for row in self.ranked() if row.is_sound][:count]

    def front(self) -> list[TrialRow]:
        """The trials that no other one beats in value and second metric at once, best value first, so cheapest last.

        Trials without a value or a cost, and those that failed, are not compared. Of trials with the same value and
        cost, all are there. Empty without a second metric.
        """
        second, sign = self.objective.second, self.objective.sign
        points = {
            row.number: (sign * row.value, row.metrics[second])
            for row in self._rows
            if second is not None and row.value is not None and row.state != "failed" and second in row.metrics
        }
        fronts = sorted_fronts(points)
        return [self._by_number[number] for number in fronts[0]] if fronts else []

    @classmethod
    def of_lives(cls, lives: Iterable[TrialLife], objective: Objective) -> "Trials":
        """What came of trials so far; one that waits to begin is none yet.

        Args:
            lives: What the journal tells of each.
            objective: What they are judged by.
        """
        return cls([_of_life(life, objective) for life in lives if life.state != "waiting"], objective)

    @classmethod
    def from_table(cls, rows: Sequence[Mapping[str, Any]], objective: Objective) -> "Trials":
        """The trials of `trials.parquet`.

        Args:
            rows: The table's rows, by column; a column that is missing or None says nothing.
            objective: What they are judged by.
        """
        return cls([_from_columns(row) for row in rows], objective)

    def table(self) -> list[dict[str, Any]]:
        """The rows of `trials.parquet`; all have the same columns, None where a trial has nothing to say."""
        second = self.objective.second
        front = {row.number for row in self.front()}
        rows = [_columns(row, second) for row in self._rows]
        if second is not None:
            rows = [{**columns, "pareto": columns["number"] in front} for columns in rows]
        names = dict.fromkeys(name for columns in rows for name in columns)
        return [{name: columns.get(name) for name in names} for columns in rows]

    def to_arrow(self) -> "pa.Table":
        """`table` as a table of Arrow."""
        from search.runs.arrow import arrow_table

        return arrow_table(self.table())

    def to_pandas(self) -> Any:
        """`table` as a data frame.

        Raises:
            ImportError: pandas is not installed; it is no dependency of this package.
        """
        table = self.to_arrow()
        try:
            return table.to_pandas()
        except ImportError as error:
            raise ImportError("pandas is not installed: pip install pandas, or take to_arrow() or table()") from error


def _of_life(life: TrialLife, objective: Objective) -> TrialRow:
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
    """Whether a metric of an epoch says something of the trial that it was the best one of."""
    return name.startswith(("val/", "cost/")) or name in ("train/loss", "lr")


def _columns(row: TrialRow, second: str | None) -> dict[str, Any]:
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


def _from_columns(row: Mapping[str, Any]) -> TrialRow:
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
