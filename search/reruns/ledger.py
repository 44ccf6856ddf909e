"""The gain ledger: what each group of settings was worth between the config's own values and the winner's.

Every worth is a difference of two cells of a plan, image by image, with an interval over images and seeds, and it is
signed so that positive is better. Each step begins where the one before it ended, so the worths add up to the total.
What a group is worth depends on the steps before it: in another order the total would be divided differently.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from search.reruns.estimates import Interval, SeedEstimates, pair_of
from search.reruns.ledger_plan import (
    Plan,
    Scored,
    Threshold,
    group_of,
)
from search.runs.rerun_records import (
    GainAlternative,
    GainNoise,
    GainStep,
    GainThreshold,
    ImportanceShare,
    Ledger,
    Level,
    Worth,
)
from search.study.importance import Importances
from segcore.objective import Objective
from segcore.scores.intervals import CONFIDENCE
from segcore.scores.scorer import scorer_of
from segcore.scores.seed_noise import FloatArray

if TYPE_CHECKING:
    from segcore.scores.image_counts import ImageCounts

PLAIN_THRESHOLD = 0.5
NO_IMPORTANCES = Importances({}, [])


@dataclass(frozen=True)
class CellOutcomes:
    """The results of a plan's trainings, by cell and seed.

    Attributes:
        images: The counts of each training's best epoch; not read for `val/loss`.
        values: The metric of each training's best epoch; read for `val/loss` alone.
        failed: Why a training has neither.
    """

    images: Mapping[str, Mapping[int, "ImageCounts"]]
    values: Mapping[str, Mapping[int, float]]
    failed: Mapping[str, Mapping[int, str]]


def build_ledger(
    plan: Plan,
    found: CellOutcomes,
    objective: Objective,
    *,
    seeds: Sequence[int],
    groups: Sequence[str] | None,
    half_of: Sequence[int] | None,
    importance: Importances = NO_IMPORTANCES,
) -> Ledger:
    """The content of `ledger.json`.

    Args:
        plan: What was to be trained.
        found: The results of its trainings.
        objective: What the search was judged by.
        seeds: Those that were asked for.
        groups: Each validation image's group; None: each image is one.
        half_of: Each validation image's half, for thresholds that are `auto`; None, or all in one half: they are
            chosen on the images that they are scored on.
        importance: How much each searched parameter mattered.
    """
    split = None if half_of is None or len(set(half_of)) < 2 else np.asarray(half_of)
    metric, scorer = objective.metric, scorer_of(objective.metric)
    has_images = scorer.has_images
    scores = _Scores(found.images, scorer.name, split) if has_images else _Scores(found.values, None, None)
    thresholds = dict.fromkeys(plan.cells, plan.baseline.threshold)
    thresholds |= {row.scored.cell: row.scored.threshold for row in plan.alternatives}
    thresholds[plan.winner.cell] = plan.winner.threshold
    arrays = [scores.of(Scored(cell, threshold)) for cell, threshold in thresholds.items()]
    known = [array for array in arrays if array is not None]
    estimates = SeedEstimates(known, groups, has_images=has_images, bounds=scorer.bounds)
    compare = _Comparison(plan, scores, estimates, groups, objective.sign)
    is_auto = "auto" in (plan.baseline.threshold, plan.winner.threshold)
    notes = list(plan.notes)
    if not has_images:
        notes.append(f"{metric} has no values of single images: intervals are over seeds alone, not over other images")
    return Ledger(
        metric=metric,
        mode=objective.mode,
        trial=plan.trial,
        seeds=list(seeds),
        num_images=scores.num_images,
        confidence=CONFIDENCE,
        cross_fitted=has_images and is_auto and split is not None,
        baseline=compare.level(plan.baseline),
        winner=compare.level(plan.winner),
        steps=[
            GainStep(
                group=step.name,
                changes=list(step.changes),
                mean=compare.level(step.after).mean,
                importance=_importance(step.groups, importance.shares),
                **vars(compare.worth(step.after, step.before)),
            )
            for step in plan.steps
        ],
        total=compare.worth(plan.winner, plan.baseline),
        alternatives=[
            GainAlternative(
                group=row.group,
                chosen=list(row.chosen),
                instead=list(row.instead),
                of_trial=row.of_trial,
                importance=_importance((row.group,), importance.shares),
                **vars(compare.worth(plan.winner, row.scored)),
            )
            for row in plan.alternatives
        ],
        threshold=_threshold(plan, compare) if has_images else None,
        seed_noise=_seed_noise(estimates),
        importances=list(importance.shares),
        importance_trials=importance.num_trials,
        failed=[
            f"{cell} with seed {seed}: {message}"
            for cell, by_seed in found.failed.items()
            for seed, message in by_seed.items()
        ],
        notes=notes,
    )


class _Scores:
    """`(S, N)` scores of cells at thresholds, `(S, 1)` where `metric` is None and every training is one number."""

    def __init__(self, trainings: Mapping[str, Mapping[int, Any]], metric: str | None, half_of: Any) -> None:
        self._trainings = trainings
        self._metric = metric
        self._half_of = half_of
        self._known: dict[Scored, FloatArray | None] = {}

    @property
    def num_images(self) -> int | None:
        sizes = (array.shape[1] for array in self._known.values() if array is not None)
        return next(sizes, None) if self._metric else None

    def of(self, scored: Scored) -> FloatArray | None:
        """The cell's scores by seed in order of the seeds; None where none of its trainings finished."""
        if scored not in self._known:
            by_seed = sorted(self._trainings.get(scored.cell, {}).items())
            rows = [self._row(training, scored.threshold) for _, training in by_seed]
            self._known[scored] = np.array(rows, dtype=np.float64) if rows else None
        return self._known[scored]

    def _row(self, training: Any, threshold: Threshold) -> Any:
        if self._metric is None:
            return [training]
        return training.values(self._metric, threshold, self._half_of if threshold == "auto" else None)


class _Comparison:
    def __init__(
        self, plan: Plan, scores: _Scores, estimates: SeedEstimates, groups: Sequence[str] | None, sign: float
    ) -> None:
        self._cells = tuple(plan.cells)
        self._scores = scores
        self._estimates = estimates
        self._groups = groups
        self._sign = sign

    def level(self, scored: Scored) -> Level:
        """`mean` and `interval` of a cell, both None where there is none."""
        found = self._scores.of(scored)
        mean, interval = (None, None) if found is None else self._estimates.mean(found)
        return Level(mean=mean, interval=pair_of(interval))

    def worth(self, better: Scored, than: Scored) -> Worth:
        """How much better one is than the other."""
        first, second = self._scores.of(better), self._scores.of(than)
        if first is None or second is None:
            return Worth(worth=None, interval=None, clear=False)
        if better.cell == than.cell:
            value, interval = self._of_thresholds(first, second, better.threshold, than.threshold)
        else:
            value, interval = self._estimates.difference(first, second)
        if self._sign < 0:
            value, interval = -value, None if interval is None else [-interval[1], -interval[0]]
        is_clear = interval is not None and not interval[0] <= 0.0 <= interval[1]
        return Worth(worth=value + 0.0, interval=pair_of(interval), clear=is_clear)

    def _of_thresholds(
        self, first: FloatArray, second: FloatArray, threshold: Threshold, other: Threshold
    ) -> tuple[float, Interval | None]:
        """The difference of the same trainings at two thresholds: what a seed does to both alike cancels out.

        How much the difference itself varies with the seed is measured on all cells.
        """
        if np.array_equal(first, second):
            return 0.0, [0.0, 0.0]
        every = (
            (self._scores.of(Scored(cell, threshold)), self._scores.of(Scored(cell, other))) for cell in self._cells
        )
        differences = [a - b for a, b in every if a is not None and b is not None]
        estimates = SeedEstimates(differences, self._groups, has_images=True, bounds=self._estimates.difference_bounds)
        return estimates.mean(first - second)


def _threshold(plan: Plan, compare: _Comparison) -> GainThreshold | None:
    """What `auto` is worth at the winner, where no step says it."""
    if plan.baseline.threshold != "auto" or plan.winner.threshold != "auto":
        return None
    worth = compare.worth(plan.winner, Scored(plan.winner.cell, PLAIN_THRESHOLD))
    return GainThreshold(chosen="auto", instead=PLAIN_THRESHOLD, **vars(worth))


def _seed_noise(estimates: SeedEstimates) -> GainNoise:
    """How much trainings of one config differ; `two_trainings`: what two of them seldom differ by more than."""
    variance, degrees = estimates.noise or (None, 0)
    deviation = None if variance is None else math.sqrt(variance)
    return GainNoise(
        sd=deviation,
        df=degrees,
        num_configs=estimates.num_configs,
        two_trainings=None if deviation is None else 1.96 * math.sqrt(2) * deviation,
    )


def _importance(groups: Sequence[str], shares: Sequence[ImportanceShare]) -> float | None:
    """The sum over the parameters of these groups; None where none of them has a share."""
    found = [share.share for share in shares if group_of(share.name.partition("@")[0]) in groups]
    return float(sum(found)) if found else None
