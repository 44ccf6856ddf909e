"""The course of a search: its trials one after the other, what each epoch brought, and every learning curve."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from search.report.jsonable import known
from search.runs.reading import Run
from search.runs.trials import Trials
from search.schedulers.build import decision_epochs

MAX_CURVES = 300
"""A page with more lines than this is slow, and shows no more; the best trials are kept."""


@dataclass(frozen=True)
class Point:
    """A trial with a value.

    Attributes:
        number: The trial's.
        state: How it ended.
        value: The metric of its best epoch.
        best_so_far: The best value of all trials up to this one.
        epochs_spent: Epochs that all trials together had trained when it reached its best.
        settings: What it ran with.
    """

    number: int
    state: str
    value: float
    best_so_far: float | None
    epochs_spent: int | None
    settings: Mapping[str, object]


@dataclass(frozen=True)
class Step:
    """A new best value, and the epochs that all trials together had trained by then."""

    epochs: int
    best: float


@dataclass(frozen=True)
class Curve:
    """The metric of a training, epoch by epoch.

    Attributes:
        number: The trial's.
        state: How it ended.
        is_winner: Whether it is the training that is sealed, or the best trial while nothing is.
        epochs: In order.
        values: The metric at each.
        settings: What it ran with.
        seed: Where the trial was trained again, and this is that training.
    """

    number: int
    state: str
    is_winner: bool
    epochs: list[int]
    values: list[float | None]
    settings: Mapping[str, object]
    seed: int | None = None

    def as_json(self) -> Mapping[str, object]:
        """With a seed only where the trial was trained again."""
        return {
            "number": self.number, "state": self.state, "is_winner": self.is_winner, "epochs": self.epochs,
            "values": self.values, "settings": self.settings, **known(seed=self.seed),
        }  # fmt: skip


@dataclass(frozen=True)
class History:
    """How a search went.

    Attributes:
        metric: What trials are compared by.
        mode: Whether a larger (`max`) or a smaller (`min`) value is better.
        epochs: Epochs of all trials together.
        trials: Those with a value, in order of their number.
        steps: The epochs at which the best so far rose.
        curves: Learning curves, in order of the trials' numbers.
        num_curves_left_out: Of worse trials, which would only slow the page down.
        rungs: The epochs at which trials are judged.
    """

    metric: str
    mode: str
    epochs: int
    trials: list[Point]
    steps: list[Step]
    curves: list[Curve]
    num_curves_left_out: int
    rungs: list[int]


@dataclass(frozen=True)
class _Report:
    number: int
    epoch: int
    value: float | None


def search_history(run: Run) -> History | None:
    """Values by trial number and by epochs spent, the best so far of each, learning curves and rungs.

    A failed trial counts for the best so far only where all that reported failed, as in the choice of the winner.
    """
    objective, metric = run.objective, run.objective.metric
    rows = sorted(run.epochs, key=lambda row: (row.time, row.number, row.epoch))
    reports = [_Report(row.number, row.epoch, row.metrics.get(metric)) for row in rows]
    if not reports:
        return None
    barred = _barred(run.trials)
    steps: list[Step] = []
    spent_at = {}
    for spent, report in enumerate(reports, start=1):
        spent_at[report.number, report.epoch] = spent
        best = steps[-1].best if steps else None
        if report.number not in barred and report.value is not None and objective.better(report.value, best):
            steps.append(Step(spent, report.value))
    return History(
        metric=metric,
        mode=objective.mode,
        epochs=len(reports),
        trials=_points(run.trials, barred, spent_at),
        steps=steps,
        curves=_curves(run, reports),
        num_curves_left_out=max(0, len({report.number for report in reports}) - MAX_CURVES),
        rungs=_rungs(run),
    )


def _barred(trials: Trials) -> set[int]:
    failed = {row.number for row in trials if row.state == "failed"}
    return set() if all(row.number in failed for row in trials if row.value is not None) else failed


def _points(trials: Trials, barred: set[int], spent_at: Mapping[tuple[int, int], int]) -> list[Point]:
    points = []
    best: float | None = None
    for row in trials:
        if row.value is None:
            continue
        if row.number not in barred and trials.objective.better(row.value, best):
            best = row.value
        spent = None if row.best_epoch is None else spent_at.get((row.number, row.best_epoch))
        points.append(Point(row.number, row.state, row.value, best, spent, row.params))
    return points


def _curves(run: Run, reports: list[_Report]) -> list[Curve]:
    values: dict[int, dict[int, float | None]] = defaultdict(dict)
    for report in reports:
        values[report.number][report.epoch] = report.value
    numbers = [row.number for row in run.trials.ranked()] or list(values)
    curves = []
    again = run.sealed if run.sealed is not None and run.sealed.is_again else None
    winner = None if again else run.winner
    for number in sorted([number for number in numbers if number in values][:MAX_CURVES]):
        row, epochs = run.trials.get(number), sorted(values[number])
        curves.append(
            Curve(
                number=number,
                state=row.state if row else "complete",
                is_winner=number == winner or row is None,
                epochs=epochs,
                values=[values[number][epoch] for epoch in epochs],
                settings=row.params if row else {},
            )
        )
    if again is not None and again.trial is not None and again.reports:
        row, epochs = run.trials.get(again.trial), sorted(again.reports)
        reported = [again.reports[epoch].get(run.objective.metric) for epoch in epochs]
        settings = row.params if row else {}
        curves.append(Curve(again.trial, "complete", True, epochs, reported, settings, again.seed))
    return curves


def _rungs(run: Run) -> list[int]:
    if not run.trials:
        return []
    return list(decision_epochs(run.config.search.scheduler, run.config.train.epochs))
