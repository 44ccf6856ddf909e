"""IoU and Dice at every threshold from one pass over the validation set.

Why a histogram is exact: with `num_bins` a power of two, `prob * num_bins` is exact in binary floating point,
so `floor(prob * num_bins) >= k` says the same as `prob >= k / num_bins`. The counts at every edge are integers
and the ratios are formed in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segcore.errors import TrainingError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

METRICS = {
    "iou": "iou_per_image_mean",
    "iou_pooled": "iou_pooled",
    "dice": "dice_per_image_mean",
    "dice_pooled": "dice_pooled",
}
"""Short metric names and the curve that each one means."""

_IMAGES_AT_ONCE = 256


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


class ThresholdCurve:
    """Collects what IoU and Dice need, at every threshold k / num_bins at once.

    `pred = prob >= threshold`. An image whose target and prediction are both empty scores 1; one whose target
    alone is empty scores 0. The same holds for the pooled scores.

    Each update does one bincount on the device and keeps one int32 per image, class and bin: 8.2 kB an image
    at 1,024 bins, 8.2 MB per 1,000 images, on the device until `compute`. On a GPU nothing waits for the
    device before `compute`.

    Args:
        num_bins: Number of bins, a power of two up to 65,536.
        device: Where updates arrive; None = wherever the first one is.
        thresholds: Further thresholds in [0, 1], off the edges, to be counted exactly as well (one comparison
            per update and threshold). As everywhere in torch and numpy, a threshold meets float32 probabilities
            as the nearest float32.

    Raises:
        ValueError: `num_bins` is no power of two, or a threshold lies outside [0, 1].
    """

    def __init__(
        self, num_bins: int = 1024, device: torch.device | str | None = None, thresholds: Sequence[float] = ()
    ) -> None:
        if num_bins < 2 or num_bins > 65_536 or num_bins & (num_bins - 1):
            raise ValueError(f"num_bins must be a power of two in [2, 65536], found {num_bins}")
        for threshold in thresholds:
            _check_threshold(threshold)
        self.num_bins = num_bins
        self._device = None if device is None else torch.device(device)
        # Edges are exact already; only the others need counting of their own.
        self._extra = tuple(sorted({float(t) for t in thresholds if not (t * num_bins).is_integer()}))
        self._histograms: list[Tensor] = []  # (n, 2, num_bins + 1) int32
        self._extra_counts: list[Tensor] = []  # (n, len(extra), 2) int32: true positives, predicted
        self._ranges: list[Tensor] = []  # (4,) float32: least and largest prob and target

    def update(self, probs: Tensor, targets: Tensor) -> None:
        """Count one batch.

        Args:
            probs: `(N, 1, H, W)` float probabilities in [0, 1]; any float type.
            targets: `(N, 1, H, W)` in {0, 1}, any type.

        Raises:
            ValueError: The shapes differ or there is more than one class.
        """
        if probs.shape != targets.shape or probs.ndim != 4 or probs.shape[1] != 1:
            raise ValueError(
                f"probs and targets must both be (N, 1, H, W), found {tuple(probs.shape)} and {tuple(targets.shape)}"
            )
        if probs.numel() == 0:
            return
        device = self._device or probs.device
        num_images = probs.shape[0]
        probs = probs.detach().to(device).reshape(num_images, -1)
        if probs.dtype not in (torch.float32, torch.float64):
            probs = probs.float()  # half types hold fewer digits: this is exact
        targets = targets.detach().to(device=device, dtype=torch.uint8).reshape(num_images, -1)
        self._ranges.append(torch.stack([x.float() for x in (*probs.aminmax(), *targets.aminmax())]))
        is_foreground = targets > 0

        width = self.num_bins + 1  # the last bin holds prob == 1 alone, so that threshold 1.0 is an edge as well
        bins = (probs * self.num_bins).to(torch.int32).clamp_(0, self.num_bins)
        bins += is_foreground.to(torch.int32).mul_(width)
        bins += torch.arange(0, 2 * width * num_images, 2 * width, dtype=torch.int32, device=device)[:, None]
        counts = torch.bincount(bins.view(-1), minlength=2 * width * num_images)
        self._histograms.append(counts.view(num_images, 2, width).to(torch.int32))
        if self._extra:
            preds = [probs >= threshold for threshold in self._extra]
            pairs = [torch.stack([(p & is_foreground).sum(1), p.sum(1)], dim=1) for p in preds]
            self._extra_counts.append(torch.stack(pairs, dim=1).to(torch.int32))

    def compute(self) -> "CurveResult":
        """Turn the counts into curves; updates may go on afterwards.

        Raises:
            TrainingError: Nothing was counted, or a probability was NaN.
            ValueError: A probability lay outside [0, 1] or a target outside {0, 1}.
        """
        if not self._histograms:
            raise TrainingError("no image was scored: the validation set gave no batch")
        ranges = torch.stack(self._ranges).cpu()
        if ranges.isnan().any():
            raise TrainingError("the model's probabilities hold NaN: the weights or the input are not finite")
        low, high, target_high = float(ranges[:, 0].min()), float(ranges[:, 1].max()), float(ranges[:, 3].max())
        if low < 0.0 or high > 1.0:
            raise ValueError(
                f"probs must lie in [0, 1], found [{low:g}, {high:g}]; are these logits that still need a sigmoid, "
                "or were probs and targets swapped?"
            )
        if target_high > 1.0:
            raise ValueError(f"targets must be 0 or 1, found {target_high:g}")
        histograms = torch.cat(self._histograms).cpu().numpy()
        # Pixels with prob >= k / num_bins: the reverse cumulative sum. (n, num_bins + 1)
        at_least = np.cumsum(histograms[:, :, ::-1], axis=2, dtype=np.int32)[:, :, ::-1]
        extra = torch.cat(self._extra_counts).cpu().numpy() if self._extra else np.zeros((len(histograms), 0, 2))
        true_positive, positive = at_least[:, 1], at_least[:, 1, 0].astype(np.int64)
        return CurveResult._from_counts(
            true_positive=true_positive,
            predicted=at_least[:, 0] + true_positive,
            positive=positive,
            extra={t: (extra[:, j, 0], extra[:, j, 1]) for j, t in enumerate(self._extra)},
        )


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
    _true_positive: npt.NDArray[np.int32]  # (num_images, num_bins + 1)
    _predicted: npt.NDArray[np.int32]  # (num_images, num_bins + 1)
    _positive: IntArray  # (num_images,)
    _extra: dict[float, tuple[npt.NDArray[Any], npt.NDArray[Any]]]
    _bounds: dict[str, float]  # per curve: no threshold in (0, 1) inside a bin scores above this

    @classmethod
    def _from_counts(
        cls,
        *,
        true_positive: npt.NDArray[np.int32],
        predicted: npt.NDArray[np.int32],
        positive: IntArray,
        extra: dict[float, tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    ) -> "CurveResult":
        num_images, num_edges = true_positive.shape
        curves = {name: np.zeros(num_edges) for name in METRICS.values()}
        bounds = {name: np.zeros(num_edges - 1) for name in METRICS.values()}
        # Images in slices: the float64 intermediates stay small whatever the size of the set.
        for start in range(0, num_images, _IMAGES_AT_ONCE):
            rows = slice(start, start + _IMAGES_AT_ONCE)
            counts = true_positive[rows], predicted[rows], positive[rows, None]
            for name, score in (("iou_per_image_mean", _iou), ("dice_per_image_mean", _dice)):
                curves[name] += score(*counts).sum(axis=0)
                bounds[name] += score(*_best_inside_bins(*counts)).sum(axis=0)
        for name in ("iou_per_image_mean", "dice_per_image_mean"):
            curves[name] /= num_images
            bounds[name] /= num_images
        pooled = (
            true_positive.sum(axis=0, dtype=np.int64),
            predicted.sum(axis=0, dtype=np.int64),
            positive.sum(keepdims=True),
        )
        for name, score in (("iou_pooled", _iou), ("dice_pooled", _dice)):
            curves[name] = score(*pooled)
            bounds[name] = score(*_best_inside_bins(*pooled))
        return cls(
            thresholds=np.arange(num_edges, dtype=np.float64) / (num_edges - 1),
            num_images=num_images,
            **curves,
            _true_positive=true_positive,
            _predicted=predicted,
            _positive=positive,
            _extra=extra,
            _bounds={name: float(bound.max()) for name, bound in bounds.items()},
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
        return float(self.thresholds[index]), value, max(0.0, self._bounds[name] - value)

    def at(self, threshold: float) -> CurvePoint:
        """Return the scores at a threshold in [0, 1].

        Exact at an edge and at each threshold given to `ThresholdCurve`; any other one is taken down to the
        edge below it, which `threshold` and `is_exact` of the answer say.

        Raises:
            ValueError: The threshold lies outside [0, 1].
        """
        _check_threshold(threshold)
        if threshold in self._extra:
            true_positive, predicted = self._extra[threshold]
            pooled = (true_positive.sum(dtype=np.int64), predicted.sum(dtype=np.int64), self._positive.sum())
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

    def _counts_at(self, threshold: float) -> tuple[npt.NDArray[Any], npt.NDArray[Any], IntArray]:
        _check_threshold(threshold)
        if threshold in self._extra:
            return *self._extra[threshold], self._positive
        index = self._edge(threshold)
        return self._true_positive[:, index], self._predicted[:, index], self._positive


def _best_inside_bins(
    true_positive: npt.NDArray[Any], predicted: npt.NDArray[Any], positive: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
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


def _iou(true_positive: npt.NDArray[Any], predicted: npt.NDArray[Any], positive: npt.NDArray[Any]) -> FloatArray:
    union = np.asarray(predicted + positive - true_positive, dtype=np.float64)
    iou: FloatArray = np.divide(true_positive, union, out=np.ones_like(union), where=union > 0)
    return iou


def _dice(true_positive: npt.NDArray[Any], predicted: npt.NDArray[Any], positive: npt.NDArray[Any]) -> FloatArray:
    total = np.asarray(predicted + positive, dtype=np.float64)
    twice = np.asarray(2 * true_positive, dtype=np.float64)
    dice: FloatArray = np.divide(twice, total, out=np.ones_like(total), where=total > 0)
    return dice


def _curve_name(metric: str) -> str:
    if metric not in METRICS:
        raise ValueError(f"no metric {metric!r}; valid: {', '.join(METRICS)}")
    return METRICS[metric]


def _check_threshold(threshold: float) -> None:
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"a threshold must lie in [0, 1], found {threshold}")
