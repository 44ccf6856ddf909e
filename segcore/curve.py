"""IoU and Dice over the threshold, formed from counts of pixels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
CountArray = npt.NDArray[np.integer[Any]]

METRICS = {
    "iou": "iou_per_image_mean",
    "iou_pooled": "iou_pooled",
    "dice": "dice_per_image_mean",
    "dice_pooled": "dice_pooled",
}
"""Short metric names and the curve that each one means."""

_IMAGES_AT_ONCE = 64


@dataclass(frozen=True)
class CurvePoint:
    """The four scores at one threshold, and whether it is the one that was asked for."""

    requested: float
    threshold: float
    is_exact: bool
    iou: float
    dice: float
    iou_pooled: float
    dice_pooled: float


@dataclass(frozen=True, eq=False)
class CurveResult:
    """Scores at the thresholds k / num_bins, k = 0 .. num_bins.

    Attributes:
        thresholds: `(num_bins + 1,)` float64.
        iou_per_image_mean: `(num_bins + 1,)` mean over images of each image's IoU.
        iou_pooled: `(num_bins + 1,)` IoU of all pixels of all images taken together.
        dice_per_image_mean: `(num_bins + 1,)` mean over images of each image's Dice.
        dice_pooled: `(num_bins + 1,)` Dice of all pixels taken together.
        num_images: Number of images counted.
    """

    thresholds: FloatArray
    iou_per_image_mean: FloatArray
    iou_pooled: FloatArray
    dice_per_image_mean: FloatArray
    dice_pooled: FloatArray
    num_images: int
    _true_positive: CountArray  # (num_images, num_bins + 1)
    _predicted: CountArray  # (num_images, num_bins + 1)
    _positive: CountArray  # (num_images,)
    _extra: dict[float, tuple[CountArray, CountArray]]

    @classmethod
    def from_counts(
        cls,
        *,
        true_positive: CountArray,
        predicted: CountArray,
        positive: CountArray,
        extra: dict[float, tuple[CountArray, CountArray]],
    ) -> "CurveResult":
        """Form the curves.

        Args:
            true_positive: `(num_images, num_bins + 1)` foreground pixels at or above each edge.
            predicted: `(num_images, num_bins + 1)` pixels at or above each edge.
            positive: `(num_images,)` foreground pixels.
            extra: By further threshold: `true_positive` and `predicted` `(num_images,)` at it.
        """
        num_images, num_edges = true_positive.shape
        counts = true_positive, predicted, positive[:, None]
        pooled = _pool(*counts)
        return cls(
            thresholds=np.arange(num_edges, dtype=np.float64) / (num_edges - 1),
            iou_per_image_mean=_mean_over_images(_iou, *counts),
            iou_pooled=_iou(*pooled),
            dice_per_image_mean=_mean_over_images(_dice, *counts),
            dice_pooled=_dice(*pooled),
            num_images=num_images,
            _true_positive=true_positive,
            _predicted=predicted,
            _positive=positive,
            _extra=extra,
        )

    def best(self, metric: str = "iou") -> tuple[float, float, float]:
        """Return `(threshold, value, certified_gap)` of the best edge.

        Of equal values the threshold nearest to 0.5 wins, and of two equally near ones the lower.
        No threshold in [0, 1] whatever, on or off the edges, scores above `value + certified_gap`.

        Args:
            metric: `iou` or `dice` (mean over images), `iou_pooled` or `dice_pooled`.

        Raises:
            ValueError: No such metric.
        """
        name = _curve_name(metric)
        curve: FloatArray = getattr(self, name)
        value = float(curve.max())
        tied = np.flatnonzero(curve == value)
        index = int(tied[np.argmin(np.abs(self.thresholds[tied] - 0.5))])
        counts = self._true_positive, self._predicted, self._positive[:, None]
        score = _iou if metric.startswith("iou") else _dice
        if metric.endswith("pooled"):
            bounds = score(*_best_inside_bins(*_pool(*counts)))
        else:
            bounds = _mean_over_images(lambda *rows: score(*_best_inside_bins(*rows)), *counts)
        return float(self.thresholds[index]), value, max(0.0, float(bounds.max()) - value)

    def at(self, threshold: float) -> CurvePoint:
        """Return the scores at a threshold in [0, 1].

        Exact at an edge and at each threshold given to `ThresholdCurve`; any other one is taken down to the
        edge below it, which `threshold` and `is_exact` of the answer say.

        Raises:
            ValueError: The threshold lies outside [0, 1].
        """
        check_threshold(threshold)
        if threshold in self._extra:
            true_positive, predicted = self._extra[threshold]
            pooled = _pool(true_positive, predicted, self._positive)
            return CurvePoint(
                requested=threshold,
                threshold=threshold,
                is_exact=True,
                iou=float(_iou(true_positive, predicted, self._positive).mean()),
                dice=float(_dice(true_positive, predicted, self._positive).mean()),
                iou_pooled=float(_iou(*pooled)),
                dice_pooled=float(_dice(*pooled)),
            )
        index = self._edge(threshold)
        edge = float(self.thresholds[index])
        return CurvePoint(
            requested=threshold,
            threshold=edge,
            is_exact=edge == threshold,
            **{metric: float(getattr(self, name)[index]) for metric, name in METRICS.items()},
        )

    def per_image_iou(self, threshold: float) -> FloatArray:
        """Return each image's IoU `(num_images,)`, in the order counted, at what `at(threshold)` answers for."""
        return _iou(*self._counts_at(threshold))

    def per_image_dice(self, threshold: float) -> FloatArray:
        """Return each image's Dice `(num_images,)`, in the order counted, at what `at(threshold)` answers for."""
        return _dice(*self._counts_at(threshold))

    def to_dict(self, points: int = 101) -> dict[str, Any]:
        """Return the curves thinned to about `points` evenly spaced edges, and their best, as plain JSON values."""
        last = len(self.thresholds) - 1
        index = np.unique(np.rint(np.linspace(0, last, points)).astype(int))
        best = {metric: dict(zip(("threshold", "value", "gap"), self.best(metric), strict=True)) for metric in METRICS}
        curves = {metric: getattr(self, name)[index].tolist() for metric, name in METRICS.items()}
        return {
            "num_images": self.num_images,
            "num_bins": last,
            "threshold": self.thresholds[index].tolist(),
            **curves,
            "best": best,
        }

    def _edge(self, threshold: float) -> int:
        return int(np.searchsorted(self.thresholds, threshold, side="right")) - 1

    def _counts_at(self, threshold: float) -> tuple[CountArray, CountArray, CountArray]:
        check_threshold(threshold)
        if threshold in self._extra:
            return *self._extra[threshold], self._positive
        index = self._edge(threshold)
        return self._true_positive[:, index], self._predicted[:, index], self._positive


def _best_inside_bins(
    true_positive: CountArray, predicted: CountArray, positive: CountArray
) -> tuple[CountArray, CountArray, CountArray]:
    """Return counts whose score no threshold strictly inside a bin can exceed.

    For k / B < t < (k + 1) / B the prediction holds that of edge k + 1 and lies within that of edge k. So
    TP(t) <= TP_k and FP(t) >= FP_(k+1), hence IoU(t) = TP / (P + FP) <= TP_k / (P + FP_(k+1)), and
    Dice(t) = 2 TP / (P + TP + FP), which grows with TP, <= 2 TP_k / (P + TP_k + FP_(k+1)).
    A sum over images of such bounds bounds the sum of the scores. With P = 0 the bound is 1 where
    FP_(k+1) = 0, since the prediction may become empty inside the bin, and 0 elsewhere.
    """
    best_true = true_positive[..., :-1]
    least_false = predicted[..., 1:] - true_positive[..., 1:]
    return best_true, best_true + least_false, positive


def _iou(true_positive: CountArray, predicted: CountArray, positive: CountArray) -> FloatArray:
    return _ratio(true_positive, predicted + positive - true_positive)


def _dice(true_positive: CountArray, predicted: CountArray, positive: CountArray) -> FloatArray:
    return _ratio(2 * true_positive, predicted + positive)


def _ratio(part: CountArray, whole: CountArray) -> FloatArray:
    """Return part / whole in float64; 0 / 0 is 1."""
    if whole.all():
        return np.asarray(part / whole)
    nothing = whole == 0
    return np.asarray((part + nothing) / (whole + nothing))


def _mean_over_images(score: Callable[..., FloatArray], *counts: CountArray) -> FloatArray:
    """Return the mean of each image's scores; images go in slices, whose scores stay in the core's cache."""
    num_images = len(counts[0])
    starts = range(0, num_images, _IMAGES_AT_ONCE)
    total = sum(score(*(count[start : start + _IMAGES_AT_ONCE] for count in counts)).sum(axis=0) for start in starts)
    return np.asarray(total / num_images)


def _pool(
    true_positive: CountArray, predicted: CountArray, positive: CountArray
) -> tuple[CountArray, CountArray, CountArray]:
    """Return the counts of all images taken together."""
    counts = [count.sum(axis=0, dtype=np.int64) for count in (true_positive, predicted, positive)]
    return counts[0], counts[1], counts[2]


def _curve_name(metric: str) -> str:
    if metric not in METRICS:
        raise ValueError(f"no metric {metric!r}; valid: {', '.join(METRICS)}")
    return METRICS[metric]


def check_threshold(threshold: float) -> None:
    """Refuse a threshold outside [0, 1], NaN among them, with a ValueError."""
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"a threshold must lie in [0, 1], found {threshold}")
