"""IoU and Dice over the threshold, computed from histograms on the device that holds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segcore.scores.image_counts import ImageCounts
from segcore.scores.scorer import DICE, IMAGE_SCORERS, IOU, Ratio

FloatArray = npt.NDArray[np.float64]
Counts = tuple[Tensor, Tensor, Tensor]
"""True positive, predicted and positive pixels, float64: exact up to 2^53. The last is the same at all edges."""

_RATIOS: tuple[Ratio, ...] = tuple(dict.fromkeys(s.ratio for s in IMAGE_SCORERS.values() if s.ratio is not None))
METRICS = {
    scorer.name: f"{scorer.name}_per_image_mean" if scorer.share == "mean" else scorer.name
    for ratio in _RATIOS
    for scorer in IMAGE_SCORERS.values()
    if scorer.ratio is ratio
}
"""The name of the curve of each scorer that has one, by the scorer's name."""

_IMAGES_AT_ONCE = 64  # on a CPU, so that intermediate results stay in its cache
_IMAGES_AT_ONCE_ON_A_GPU = 4096


@dataclass(frozen=True)
class CurvePoint:
    """The four scores at one threshold, and whether it is exactly the requested one."""

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
    _histograms: Tensor  # (num_images, 2, width) int32
    _edges: Sequence[int]  # the first bin at or above each edge
    _extra: dict[float, int]  # the same for each further threshold
    _bounds: dict[str, float]  # per curve: no threshold in (0, 1) inside a bin scores above this

    @classmethod
    @torch.inference_mode()
    def from_histograms(cls, histograms: Tensor, edges: Sequence[int], extra: dict[float, int]) -> "CurveResult":
        """Compute the curves.

        Args:
            histograms: `(num_images, 2, width) int32` pixels by image, class and bin, lowest probabilities first.
            edges: The first bin at or above each threshold k / num_bins.
            extra: The same for each further threshold.
        """
        at_once = _num_at_once(histograms)
        parts = []
        for first in range(0, len(histograms), at_once):
            counts = _counts_from_each_bin(histograms[first : first + at_once])
            inside = _best_inside_bins(*counts)
            values = [_score(ratio, each) for each in (counts, inside) for ratio in _RATIOS]
            parts.append([value.sum(0) for value in (*values, *counts)])
        sums = [torch.stack(part).sum(0) for part in zip(*parts, strict=True)]
        num_ratios = len(_RATIOS)
        means = [total / len(histograms) for total in sums[: 2 * num_ratios]]
        pooled = sums[-3], sums[-2], sums[-1]
        inside = _best_inside_bins(*pooled)
        # In the order of METRICS. The bins of further thresholds lie between those of the edges.
        by_ratio = zip(_RATIOS, means[:num_ratios], means[num_ratios:], strict=True)
        pairs = [((mean, _score(ratio, pooled)), (bound, _score(ratio, inside))) for ratio, mean, bound in by_ratio]
        curves = torch.stack([curve for own, _ in pairs for curve in own]).cpu().numpy()[:, edges]
        bounds = torch.stack([bound for _, least in pairs for bound in least]).amax(1).tolist()
        return cls(
            thresholds=np.arange(len(edges), dtype=np.float64) / (len(edges) - 1),
            num_images=len(histograms),
            **dict(zip(METRICS.values(), curves, strict=True)),
            _histograms=histograms,
            _edges=edges,
            _extra=extra,
            _bounds=dict(zip(METRICS.values(), bounds, strict=True)),
        )

    def best(self, metric: str = "iou") -> tuple[float, float, float]:
        """Return `(threshold, value, certified_gap)` of the best edge.

        Among equal values the threshold nearest to 0.5 wins, and of two equally near ones the lower.
        No threshold in [0, 1], on or off the edges, scores above `value + certified_gap`.

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

        Exact at an edge and at each threshold given to `ThresholdCurve`; any other one is rounded down to the
        edge below it, as `threshold` and `is_exact` of the result say.

        Raises:
            ValueError: The threshold lies outside [0, 1].
        """
        check_threshold(threshold)
        if threshold in self._extra:
            counts = self._counts_at(threshold)
            pooled = counts[0].sum(), counts[1].sum(), counts[2].sum()
            return CurvePoint(
                requested=threshold,
                threshold=threshold,
                is_exact=True,
                **{
                    name: _score(scorer.ratio, counts).mean().item()
                    if scorer.share == "mean"
                    else _score(scorer.ratio, pooled).item()
                    for name, scorer in IMAGE_SCORERS.items()
                    if scorer.ratio is not None
                },
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
        """Return each image's IoU, `(num_images,) float64`, in the order counted, rounding thresholds like `at`."""
        return self._per_image(IOU.ratio, threshold)

    def per_image_dice(self, threshold: float) -> FloatArray:
        """Return each image's Dice, `(num_images,) float64`, in the order counted, rounding thresholds like `at`."""
        return self._per_image(DICE.ratio, threshold)

    def to_dict(self, points: int = 101) -> dict[str, Any]:
        """Return the curves thinned to about `points` evenly spaced edges, and their best, as plain JSON values."""
        last = len(self.thresholds) - 1
        index = self._spaced(points)
        best = {metric: dict(zip(("threshold", "value", "gap"), self.best(metric), strict=True)) for metric in METRICS}
        curves = {metric: getattr(self, name)[index].tolist() for metric, name in METRICS.items()}
        return {
            "num_images": self.num_images,
            "num_bins": last,
            "threshold": self.thresholds[index].tolist(),
            **curves,
            "best": best,
        }

    @torch.inference_mode()
    def image_counts(self, also: Sequence[float] = (), points: int = 101) -> ImageCounts:
        """Return each image's counts, in the order counted, at about `points` evenly spaced edges and some others.

        Args:
            also: Further thresholds; as in `at`, one that was not counted is rounded down to the edge below.
            points: Number of edges, at least 2; 0, 1 and, if it is odd, 0.5 are among them.

        Raises:
            ValueError: A further threshold lies outside [0, 1].
        """
        first_bin = {float(self.thresholds[index]): self._edges[index] for index in self._spaced(points)}
        for threshold in also:
            check_threshold(threshold)
            if threshold in self._extra:
                first_bin[threshold] = self._extra[threshold]
            else:
                index = self._edge(threshold)
                first_bin[float(self.thresholds[index])] = self._edges[index]
        thresholds = sorted(first_bin)
        bins = torch.tensor([first_bin[threshold] for threshold in thresholds], device=self._histograms.device)
        # Summed on the histograms' device, so that only these few columns are copied to the CPU.
        at_once = _num_at_once(self._histograms)
        slices = (self._histograms[first : first + at_once] for first in range(0, self.num_images, at_once))
        parts = [_at_least(part, bins) for part in slices]
        at_least = torch.cat(parts).cpu().numpy().astype(np.int64)
        return ImageCounts(np.array(thresholds), at_least[:, 1], at_least.sum(1), at_least[:, 1].max(1))

    def _per_image(self, ratio: Ratio | None, threshold: float) -> FloatArray:
        assert ratio is not None
        return np.asarray(_score(ratio, self._counts_at(threshold)).numpy())

    def _spaced(self, points: int) -> npt.NDArray[np.intp]:
        last = len(self.thresholds) - 1
        return np.unique(np.rint(np.linspace(0, last, points)).astype(np.intp))

    def _edge(self, threshold: float) -> int:
        return int(np.searchsorted(self.thresholds, threshold, side="right")) - 1

    def _counts_at(self, threshold: float) -> Counts:
        """Each image's counts, on the CPU."""
        check_threshold(threshold)
        first = self._extra[threshold] if threshold in self._extra else self._edges[self._edge(threshold)]
        at_least = self._histograms[:, :, first:].sum(2).double().cpu()
        return at_least[:, 1], at_least.sum(1), self._histograms[:, 1].sum(1).double().cpu()


def _num_at_once(histograms: Tensor) -> int:
    return _IMAGES_AT_ONCE if histograms.device.type == "cpu" else _IMAGES_AT_ONCE_ON_A_GPU


def _at_least(histograms: Tensor, bins: Tensor) -> Tensor:
    """Return the pixels in each of `bins` `(T,)` and above, `(num_images, 2, T) int32`."""
    up_to = histograms.cumsum(2, dtype=torch.int32)
    return (up_to[:, :, -1:] - up_to[:, :, bins]).add_(histograms[:, :, bins])


def _counts_from_each_bin(histograms: Tensor) -> Counts:
    """Return the counts at the lower end of each bin, `(num_images, width)`, the last one `(num_images, 1)`."""
    # The pixels in a bin and above are all pixels minus those below; a forward running sum is fastest.
    up_to = histograms.cumsum(2, dtype=torch.int32)
    at_least = (up_to[:, :, -1:] - up_to).add_(histograms)
    true_positive = at_least[:, 1].double()
    return true_positive, at_least[:, 0] + true_positive, true_positive[:, :1]


def _best_inside_bins(true_positive: Tensor, predicted: Tensor, positive: Tensor) -> Counts:
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


def _score(ratio: Ratio, counts: Counts) -> Tensor:
    """Return part / whole; 0 / 0 is 1, and there is no other division by 0."""
    part, whole = ratio(*counts)
    score: Tensor = (part / whole).nan_to_num_(nan=1.0)
    return score


def _curve_name(metric: str) -> str:
    if metric not in METRICS:
        raise ValueError(f"no metric {metric!r}; valid: {', '.join(METRICS)}")
    return METRICS[metric]


def check_threshold(threshold: float) -> None:
    """Raise a ValueError for a threshold outside [0, 1] or NaN."""
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"a threshold must lie in [0, 1], found {threshold}")
