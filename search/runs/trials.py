"""A search's trials as rows, and the only place that orders them: the best, all by rank, the Pareto front."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from search.runs.lives import TrialLife
from search.runs.pareto import sorted_fronts
from search.runs.rows import TrialRow, columns_of, row_of_columns, row_of_life
from segcore.objective import Objective

if TYPE_CHECKING:
    import pyarrow as pa


class Trials(Sequence[TrialRow]):
    """The trials of a search in order of their number, with what is better.

    Args:
        rows: One row per trial.
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
        it may have spoiled its last epochs too, but its best checkpoint is better than nothing.
        """
        return next((row for row in self.ranked() if row.value is not None), None)

    def contenders(self) -> list[int]:
        """The trials that may win, best first: each wins if those before it have no model."""
        return [row.number for row in self.ranked() if row.value is not None]

    def ranked(self) -> list[TrialRow]:
        """All trials, best first, the earlier first in a tie; then failed ones, then those without a value."""
        sign = self.objective.sign
        return sorted(
            self._rows,
            key=lambda row: (row.value is None, row.state == "failed", -sign * (row.value or 0.0), row.number),
        )

    def top(self, count: int) -> list[TrialRow]:
        """The best trials that have a value and did not fail, best first."""
        return [row for row in self.ranked() if row.is_sound][:count]

    def furthest_first(self) -> list[TrialRow]:
        """The trials that ended with a value and did not fail: complete ones first, then by their epochs.

        So that values of the same epoch stand side by side: those of different epochs cannot be compared. Of trials
        that came equally far, the best is first; of equal ones, the earlier.
        """
        ended = [row for row in self._rows if row.state in ("complete", "pruned")]

        def place(row: TrialRow) -> tuple[float, ...]:
            is_complete = row.state == "complete"
            value = self.objective.sign * (row.value or 0.0)
            return (not is_complete, 0 if is_complete else -row.epochs, -value, row.number)

        return sorted((row for row in ended if row.value is not None and not math.isnan(row.value)), key=place)

    def front(self) -> list[TrialRow]:
        """The Pareto front in value and second metric, best value first, so cheapest last.

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
        """The results of trials so far; one that waits to begin is left out.

        Args:
            lives: What the journal tells of each.
            objective: What they are judged by.
        """
        return cls([row_of_life(life, objective) for life in lives if life.state != "waiting"], objective)

    @classmethod
    def from_table(cls, rows: Sequence[Mapping[str, Any]], objective: Objective) -> "Trials":
        """The trials of `trials.parquet`.

        Args:
            rows: The table's rows, by column; a missing column counts as None.
            objective: What they are judged by.
        """
        return cls([row_of_columns(row) for row in rows], objective)

    def table(self) -> list[dict[str, Any]]:
        """The rows of `trials.parquet`; all have the same columns, None where a trial has no value."""
        second = self.objective.second
        front = {row.number for row in self.front()}
        rows = [columns_of(row, second) for row in self._rows]
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
            ImportError: pandas is not installed; it is not a dependency of this package.
        """
        table = self.to_arrow()
        try:
            return table.to_pandas()
        except ImportError as error:
            raise ImportError("pandas is not installed: pip install pandas, or take to_arrow() or table()") from error
