"""What searching a threshold costs: what a random one is worth on a curve, and what each searched one lost."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from search.runs.sealed_training import SealedTraining
from search.runs.trials import Trials
from segcore.checkpoint.examples import CURVE_FILE, read_curve

RANGE = (0.1, 0.9)
"""Where a searched threshold is usually drawn from."""
TOLERANCES = (0.001, 0.005)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class IouCurve:
    """IoU at ascending thresholds, and the exact best threshold with its IoU, which may lie between two of them."""

    thresholds: Sequence[float]
    iou: Sequence[float]
    best_threshold: float
    best_iou: float


@dataclass(frozen=True)
class Tolerance:
    """How easily a random threshold comes as near to the best IoU as `within`.

    Attributes:
        within: IoU below the best.
        share: The share of the range of thresholds that is as good as that, in [0, 1].
        draws: Expected draws until the first such one; None where there is none.
        draws_in_all: The same for all trials of the search; None for a single training run.
    """

    within: float
    share: float
    draws: float | None
    draws_in_all: float | None


@dataclass(frozen=True)
class CurvePoints:
    """IoU by threshold, with the best one among them."""

    threshold: list[float]
    iou: list[float]


@dataclass(frozen=True)
class Cost:
    """What one random threshold of a range is worth on a curve, and how many it takes to find a good one."""

    range: list[float]
    best_threshold: float
    iou_at_best: float
    iou_at_half: float
    iou_at_random: float
    num_trials: int | None
    tolerances: list[Tolerance]
    curve: CurvePoints


@dataclass(frozen=True)
class Loss:
    """What a trial's searched threshold lost, in IoU, against the best one of its own curve."""

    number: int
    threshold: float
    best_threshold: float
    lost: float


@dataclass(frozen=True)
class SearchedThresholds:
    """What searched thresholds lost: their mean, median and most, the winner's, and each."""

    num_trials: int
    mean: float
    median: float
    most: float
    by_winner: float | None
    losses: list[Loss]
    kind: str = "searched"


def cost_of_search(curve: IouCurve, num_trials: int | None) -> Cost:
    """What one random threshold of `RANGE` is worth, and how many it takes to find one as good as the best.

    Between its points the curve is taken for straight. The number of draws until the first that is good enough is
    geometric, so 1 / share of them are expected.

    Args:
        curve: Of one epoch.
        num_trials: Trials of the search; None for a single training run.
    """
    xs, ys = _with_best(curve)
    low, high = RANGE
    inside = np.unique(np.concatenate([[low, high], xs[(xs > low) & (xs < high)]]))
    values = np.interp(inside, xs, ys)
    tolerances = []
    for within in TOLERANCES:
        share = share_at_least(inside, values, curve.best_iou - within)
        draws = 1.0 / share if share > 0 else None
        in_all = draws * num_trials if draws is not None and num_trials is not None else None
        tolerances.append(Tolerance(within, share, draws, in_all))
    return Cost(
        range=list(RANGE),
        best_threshold=curve.best_threshold,
        iou_at_best=curve.best_iou,
        iou_at_half=float(np.interp(0.5, xs, ys)),
        iou_at_random=float(np.trapezoid(values, inside) / (high - low)),
        num_trials=num_trials,
        tolerances=tolerances,
        curve=CurvePoints(xs.tolist(), ys.tolist()),
    )


def share_at_least(xs: Floats, ys: Floats, floor: float) -> float:
    """The share of the range of `xs` on which the line through the points lies at `floor` or above.

    Args:
        xs: `(N,)`, ascending.
        ys: `(N,)`.
        floor: In the unit of `ys`.
    """
    length = 0.0
    for (x0, x1), (y0, y1) in zip(pairwise(xs), pairwise(ys), strict=True):
        if min(y0, y1) >= floor:
            length += x1 - x0
        elif max(y0, y1) > floor:
            length += (x1 - x0) * (max(y0, y1) - floor) / abs(y1 - y0)
    return float(length / (xs[-1] - xs[0]))


def searched_thresholds(
    trials: Trials, winner: int | None, sealed: SealedTraining | None = None
) -> SearchedThresholds | None:
    """What each searched threshold lost against the best of its own curve; None where none was searched.

    Args:
        trials: The search's.
        winner: The sealed trial, or the best one.
        sealed: The training that is sealed: where the winner was trained again, its loss is the one of that training.
    """
    losses = [
        Loss(row.number, row.metrics["val/threshold"], row.metrics["val/threshold_auto"], _lost(row.metrics))
        for row in trials
        if row.params.get("threshold") not in (None, "auto") and "val/iou_auto" in row.metrics
    ]
    if not losses:
        return None
    lost = [loss.lost for loss in losses]
    by_winner = next((loss.lost for loss in losses if loss.number == winner), None)
    if by_winner is not None and sealed is not None and sealed.is_again:
        by_winner = _lost(sealed.metrics) if "val/iou_auto" in sealed.metrics else None
    return SearchedThresholds(
        num_trials=len(losses),
        mean=sum(lost) / len(lost),
        median=float(np.median(lost)),
        most=max(lost),
        by_winner=by_winner,
        losses=losses,
    )


def _lost(metrics: Mapping[str, float]) -> float:
    return max(0.0, metrics["val/iou_auto"] - metrics["val/iou"])


def read_iou_curve(folder: Path) -> IouCurve | None:
    """The curve of a checkpoint; None when it has no whole one."""
    try:
        curve = read_curve(folder)
        if curve is None:
            return None
        best = json.loads((folder / CURVE_FILE).read_text(encoding="utf-8"))["best"]["iou"]
        return IouCurve(curve.thresholds, curve.scores["iou"], float(best["threshold"]), float(best["value"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _with_best(curve: IouCurve) -> tuple[Floats, Floats]:
    """Thresholds and IoU `(N,)`, the best one among them."""
    xs, ys = np.asarray(curve.thresholds, dtype=float), np.asarray(curve.iou, dtype=float)
    at = int(np.searchsorted(xs, curve.best_threshold))
    if at < len(xs) and xs[at] == curve.best_threshold:
        return xs, ys
    return np.insert(xs, at, curve.best_threshold), np.insert(ys, at, curve.best_iou)
