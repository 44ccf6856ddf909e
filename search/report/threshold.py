"""What the threshold would have cost, had it been searched instead of taken from the exact curve of each epoch."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from search.runs.sources import Sources
from segcore.checkpoint.examples import CURVE_FILE, read_curve

RANGE = (0.1, 0.9)
"""Where a searched threshold is usually drawn from."""
TOLERANCES = (0.001, 0.005)


def threshold_cost(sources: Sources) -> dict[str, Any] | None:
    """The winner's curve and what a random threshold would be worth; or, where thresholds were searched, their loss."""
    searched = searched_thresholds(sources.trials, sources.winner)
    if searched is not None:
        return searched
    curve = next((found for folder in sources.checkpoints if (found := read_iou_curve(folder)) is not None), None)
    if curve is None:
        return None
    thresholds, scores, best = curve
    num_trials = len(sources.trials) or None
    return {"kind": "curve", "trial": sources.winner, **cost_of_search(thresholds, scores, best, num_trials)}


def cost_of_search(
    thresholds: Sequence[float], scores: Sequence[float], best: tuple[float, float], num_trials: int | None
) -> dict[str, Any]:
    """What one random threshold of `RANGE` is worth on a curve, and how many it takes to find one as good as the best.

    Between its points the curve is taken for straight. The number of draws until the first that is good enough is
    geometric, so 1 / share of them are expected.

    Args:
        thresholds: Ascending.
        scores: IoU at each.
        best: The exact best threshold and its IoU, which may lie between two points.
        num_trials: Trials of the search; None for a single training run.
    """
    xs, ys = _with_point(np.asarray(thresholds, dtype=float), np.asarray(scores, dtype=float), best)
    low, high = RANGE
    inside = np.unique(np.concatenate([[low, high], xs[(xs > low) & (xs < high)]]))
    values = np.interp(inside, xs, ys)
    tolerances = []
    for within in TOLERANCES:
        share = share_at_least(inside, values, best[1] - within)
        draws = 1.0 / share if share > 0 else None
        tolerances.append(
            {
                "within": within,
                "share": share,
                "draws": draws,
                "draws_in_all": draws * num_trials if draws is not None and num_trials is not None else None,
            }
        )
    return {
        "range": list(RANGE),
        "best_threshold": best[0],
        "iou_at_best": best[1],
        "iou_at_half": float(np.interp(0.5, xs, ys)),
        "iou_at_random": float(np.trapezoid(values, inside) / (high - low)),
        "num_trials": num_trials,
        "tolerances": tolerances,
        "curve": {"threshold": xs.tolist(), "iou": ys.tolist()},
    }


def share_at_least(xs: np.ndarray, ys: np.ndarray, floor: float) -> float:
    """The share of the range of `xs` on which the line through the points lies at `floor` or above."""
    length = 0.0
    for (x0, x1), (y0, y1) in zip(pairwise(xs), pairwise(ys), strict=True):
        if min(y0, y1) >= floor:
            length += x1 - x0
        elif max(y0, y1) > floor:
            length += (x1 - x0) * (max(y0, y1) - floor) / abs(y1 - y0)
    return float(length / (xs[-1] - xs[0]))


def searched_thresholds(trials: Sequence[dict[str, Any]], winner: int | None) -> dict[str, Any] | None:
    """What each searched threshold lost against the best of its own curve; None where none was searched."""
    losses = [
        {
            "number": row["number"],
            "threshold": row["val/threshold"],
            "best_threshold": row["val/threshold_auto"],
            "lost": max(0.0, row["val/iou_auto"] - row["val/iou"]),
        }
        for row in trials
        if row.get("param/threshold") not in (None, "auto") and row.get("val/iou_auto") is not None
    ]
    if not losses:
        return None
    lost = [loss["lost"] for loss in losses]
    return {
        "kind": "searched",
        "num_trials": len(losses),
        "mean": sum(lost) / len(lost),
        "median": float(np.median(lost)),
        "most": max(lost),
        "by_winner": next((loss["lost"] for loss in losses if loss["number"] == winner), None),
        "losses": losses,
    }


def read_iou_curve(folder: Path) -> tuple[list[float], list[float], tuple[float, float]] | None:
    """`(thresholds, IoU at each, (best threshold, its IoU))` of a checkpoint; None when it has no whole curve."""
    try:
        curve = read_curve(folder)
        if curve is None:
            return None
        best = json.loads((folder / CURVE_FILE).read_text(encoding="utf-8"))["best"]["iou"]
        return curve.thresholds, curve.scores["iou"], (float(best["threshold"]), float(best["value"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _with_point(xs: np.ndarray, ys: np.ndarray, point: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    at = int(np.searchsorted(xs, point[0]))
    if at < len(xs) and xs[at] == point[0]:
        return xs, ys
    return np.insert(xs, at, point[0]), np.insert(ys, at, point[1])
