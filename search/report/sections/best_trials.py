"""The best trials with their settings; the training that is sealed is marked."""

from collections.abc import Mapping
from dataclasses import dataclass

from search.report.jsonable import known
from search.report.markup import settings_text, table
from search.report.section import Section, Subject
from search.runs.reading import Run
from search.runs.sealed_training import SealedTraining
from search.show.quoting import number_text

NUM_BEST = 10


@dataclass(frozen=True)
class BestTrial:
    """One of the best trials, or the training that is sealed, where a trial was trained again for it.

    Attributes:
        number: The trial's.
        state: How it ended.
        value: The metric of its best epoch.
        best_epoch: That epoch.
        epochs: The last epoch that it reported.
        iou: `val/iou` of the best epoch.
        dice: `val/dice` of the best epoch.
        threshold: `val/threshold` of the best epoch.
        settings: What it ran with.
        seed: Where the trial was trained again, and this is that training.
    """

    number: int
    state: str
    value: float
    best_epoch: int | None
    epochs: int
    iou: float | None
    dice: float | None
    threshold: float | None
    settings: Mapping[str, object]
    seed: int | None = None

    def as_json(self) -> Mapping[str, object]:
        """With the metrics' own keys, and a seed only where the trial was trained again."""
        return {
            "number": self.number, "state": self.state, "value": self.value, "best_epoch": self.best_epoch,
            "epochs": self.epochs, "val/iou": self.iou, "val/dice": self.dice, "val/threshold": self.threshold,
            "settings": self.settings, **known(seed=self.seed),
        }  # fmt: skip


def best_trials(run: Run, count: int = NUM_BEST) -> tuple[BestTrial, ...] | None:
    """The best trials, best first, and among them the training that is sealed; None where there are no trials.

    Args:
        run: The run.
        count: How many of the search's own trials.
    """
    ranked = [(row, row.value) for row in run.trials.ranked() if row.value is not None]
    rows = [
        _row(row.number, row.state, value, row.best_epoch, row.epochs, row.metrics, row.params)
        for row, value in ranked[:count]
    ]
    again = _again(run, run.sealed) if run.sealed is not None and run.sealed.is_again else None
    if again is not None:
        better = [row for row in rows if row.state != "failed" and not _beats(run, again, row)]
        rows.insert(len(better), again)
    return tuple(rows) or None


def _again(run: Run, sealed: SealedTraining) -> BestTrial | None:
    """The result of the repeated training; None where its journal is gone."""
    value = sealed.metrics.get(run.objective.metric)
    if value is None or sealed.trial is None:
        return None
    trial = run.trials.get(sealed.trial)
    settings = trial.params if trial else {}
    last = max(sealed.reports)
    return _row(sealed.trial, "complete", value, sealed.epoch, last, sealed.metrics, settings, sealed.seed)


def _beats(run: Run, row: BestTrial, other: BestTrial) -> bool:
    return run.objective.better(row.value, other.value)


def _row(
    number: int,
    state: str,
    value: float,
    best_epoch: int | None,
    epochs: int,
    metrics: Mapping[str, float],
    settings: Mapping[str, object],
    seed: int | None = None,
) -> BestTrial:
    iou, dice, threshold = (metrics.get(f"val/{key}") for key in ("iou", "dice", "threshold"))
    return BestTrial(number, state, value, best_epoch, epochs, iou, dice, threshold, settings, seed)


def render(rows: tuple[BestTrial, ...], subject: Subject) -> str:
    """One row per trial; the sealed one is marked."""
    extra = [] if subject.metric == "val/iou" else [("IoU", "n")]
    heads = [
        ("trial", "n"), ("state", ""), (subject.metric, "n"), *extra, ("Dice", "n"), ("threshold", "n"), ("epoch", "n"),
    ]  # fmt: skip
    body = []
    for row in rows:
        state = row.state if row.seed is None else f"{row.state}, trained again with seed {row.seed}"
        values = [
            (str(row.number), "n"), (state, ""), (number_text(row.value), "n"),
            *([(number_text(row.iou), "n")] if extra else []), (number_text(row.dice), "n"),
            (number_text(row.threshold, 3), "n"), (f"{row.best_epoch}/{row.epochs}", "n"),
            (settings_text(row.settings), "text"),
        ]  # fmt: skip
        body.append(("winner" if _is_sealed(row, subject.sealed) else "", values))
    return table([*heads, ("settings", "text")], body)


def _is_sealed(row: BestTrial, sealed: SealedTraining | None) -> bool:
    return sealed is not None and (row.number, row.seed) == (sealed.trial, sealed.seed)


SECTION = Section("best_trials", 30, "Best trials", best_trials, render)
