"""What each image contributes to IoU and Dice, at about a hundred thresholds: enough to score an epoch again later.

A mean alone does not show its uncertainty. With the pixel counts of each image, the same epoch can be scored at another
threshold, by another metric, paired by image with another training, or with its threshold chosen on other images.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from segcore.errors import TrainingError
from segcore.scores.scorer import IMAGE_SCORERS, IOU, Ratio

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """Pixel counts by image and threshold; `pred = prob >= threshold`.

    Attributes:
        thresholds: `(T,) float64`, ascending.
        true_positive: `(N, T) int64` pixels that are predicted and positive.
        predicted: `(N, T) int64` predicted pixels.
        positive: `(N,) int64` pixels that are positive.
    """

    thresholds: FloatArray
    true_positive: IntArray
    predicted: IntArray
    positive: IntArray

    def __post_init__(self) -> None:
        shape = len(self.positive), len(self.thresholds)
        if 0 in shape or self.true_positive.shape != shape or self.predicted.shape != shape:
            raise ValueError(
                f"counts must be (images, thresholds) {shape} with one of each at least, "
                f"found {self.true_positive.shape} and {self.predicted.shape}"
            )

    def values(
        self,
        metric: str,
        threshold: float | Literal["auto"],
        half_of: npt.ArrayLike | None = None,
    ) -> FloatArray:
        """Return a value per image, `(N,) float64`, whose mean is the metric; an image empty on both sides scores 1.

        For a pooled metric R, a ratio of sums `sum a / sum b`, the values are linearised,
        `R + N (a_i - R b_i) / sum b`: their spread over images is that of the ratio, and single values may lie outside
        [0, 1].

        Args:
            metric: A name in `IMAGE_SCORERS`: `iou` or `dice` (mean over images), `iou_pooled` or `dice_pooled`.
            threshold: Rounded down to the stored one at or below it. `auto`: the stored one with the best mean IoU; of
                equal ones the nearest to 0.5, and of two equally near ones the lower.
            half_of: `(N,)` of 0 and 1, both present: with `auto`, the threshold for the images of one half is chosen on
                the other half.

        Raises:
            ValueError: No such metric or threshold, or `half_of` is not as described.

        References:
            Woodruff, A Simple Method for Approximating the Variance of a Complicated Estimate, JASA 66, 1971.
        """
        scorer = IMAGE_SCORERS.get(metric)
        if scorer is None:
            raise ValueError(f"no metric {metric!r}; valid: {', '.join(IMAGE_SCORERS)}")
        at = self._indices(threshold, half_of)
        rows = np.arange(len(self.positive))
        parts, wholes = _parts(scorer.ratio, self.true_positive[rows, at], self.predicted[rows, at], self.positive)
        if scorer.share == "mean":
            return _ratio(parts, wholes)
        total = float(wholes.sum())
        if total == 0.0:
            return np.ones(len(parts))
        ratio = float(parts.sum()) / total
        return np.asarray(ratio + len(parts) * (parts - ratio * wholes) / total)

    def save(self, path: Path) -> None:
        """Write the counts as npz, in int32."""
        # An image has fewer than 2^31 pixels.
        arrays = {name: getattr(self, name).astype(np.int32) for name in ("true_positive", "predicted", "positive")}
        with path.open("wb") as file:
            np.savez(file, thresholds=self.thresholds, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            TrainingError: The file is missing or cannot be read.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                counts = (arrays[name].astype(np.int64) for name in ("true_positive", "predicted", "positive"))
                return cls(arrays["thresholds"].astype(np.float64), *counts)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise TrainingError(f"the counts per image in {path} cannot be read: {error}") from error

    def _indices(self, threshold: float | Literal["auto"], half_of: npt.ArrayLike | None) -> npt.NDArray[np.intp]:
        """Index of the stored threshold to use for each image, `(N,)`."""
        num_images = len(self.positive)
        if threshold != "auto":
            if not self.thresholds[0] <= threshold <= 1.0:
                raise ValueError(f"a threshold must be auto or lie in [{self.thresholds[0]:g}, 1], found {threshold}")
            index = int(np.searchsorted(self.thresholds, threshold, side="right")) - 1
            return np.full(num_images, index, dtype=np.intp)
        iou = _ratio(*_parts(IOU.ratio, self.true_positive, self.predicted, self.positive[:, None]))
        if half_of is None:
            return np.full(num_images, self._best(iou), dtype=np.intp)
        half = np.asarray(half_of)
        if half.shape != (num_images,) or set(half.tolist()) != {0, 1}:
            raise ValueError(f"half_of must give each of {num_images} images its half, 0 or 1, and both must occur")
        return np.where(half == 0, self._best(iou[half == 1]), self._best(iou[half == 0]))

    def _best(self, iou: FloatArray) -> int:
        means = iou.mean(0)
        tied = np.flatnonzero(means == means.max())
        return int(tied[np.argmin(np.abs(self.thresholds[tied] - 0.5))])


def _parts(
    ratio: Ratio | None, true_positive: IntArray, predicted: IntArray, positive: IntArray
) -> tuple[FloatArray, FloatArray]:
    assert ratio is not None
    part, whole = ratio(true_positive, predicted, positive)
    return part.astype(np.float64), whole.astype(np.float64)


def _ratio(parts: FloatArray, wholes: FloatArray) -> FloatArray:
    """0 / 0 is 1, and there is no other division by 0."""
    return np.divide(parts, wholes, out=np.ones_like(parts), where=wholes > 0)
