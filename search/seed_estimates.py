"""Means and differences of scores by seed, with intervals, also where there is less to go by than there should be.

`segcore.seed_noise` does the statistics where images have scores and some config has two seeds. A metric without scores
of images (`val/loss`) leaves the seeds alone, and configs of a single seed leave no interval at all.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from segcore.intervals import CONFIDENCE, t_quantile
from segcore.seed_noise import Estimate, FloatArray, difference_over_seeds, mean_over_seeds, seed_variance

Interval = list[float]


class SeedEstimates:
    """Estimates for configs that share one noise of seeds.

    Args:
        cells: Of every config `(S, N)` scores by seed and image, or `(S, 1)` values by seed.
        groups: Each image's group; None: each image is one.
        has_images: False where columns are no images: intervals are then over seeds alone.
        bounds: The least and the largest score.
        confidence: The share of repetitions whose interval is to hold the truth.

    Attributes:
        noise: `(variance, degrees)` over seeds; None where no config has two.
        num_configs: How many configs the noise was measured on.
    """

    def __init__(
        self,
        cells: Iterable[FloatArray],
        groups: Sequence[str] | None,
        *,
        has_images: bool,
        bounds: tuple[float, float] = (0.0, 1.0),
        confidence: float = CONFIDENCE,
    ) -> None:
        repeated = [cell for cell in cells if len(cell) > 1]
        self.noise = seed_variance(repeated) if repeated else None
        self.num_configs = len(repeated)
        self._groups = groups
        self._has_images = has_images
        self._bounds = bounds
        self._confidence = confidence

    def mean(self, scores: FloatArray) -> tuple[float, Interval | None]:
        """The mean of a config's scores and its interval, None where there is no noise to make it of."""
        if self.noise is None:
            return float(scores.mean()), None
        if not self._has_images:
            return self._over_seeds(float(scores.mean()), [scores], self.noise, self._bounds)
        found = mean_over_seeds(
            scores, self._groups, noise=self.noise, confidence=self._confidence, bounds=self._bounds
        )
        return _parts(found)

    def difference(self, first: FloatArray, second: FloatArray) -> tuple[float, Interval | None]:
        """mean(first) - mean(second) and its interval; the very same trainings differ by exactly 0."""
        if np.array_equal(first, second):
            return 0.0, [0.0, 0.0]
        low, high = self._bounds
        widest = (low - high, high - low)
        if self.noise is None:
            return float(first.mean() - second.mean()), None
        if not self._has_images:
            return self._over_seeds(float(first.mean() - second.mean()), [first, second], self.noise, widest)
        found = difference_over_seeds(
            first, second, self._groups, noise=self.noise, confidence=self._confidence, bounds=widest
        )
        return _parts(found)

    def _over_seeds(
        self, value: float, cells: Sequence[FloatArray], noise: tuple[float, int], bounds: tuple[float, float]
    ) -> tuple[float, Interval]:
        variance, degrees = noise
        error = math.sqrt(variance * sum(1 / len(cell) for cell in cells))
        half = t_quantile((1 + self._confidence) / 2, degrees) * error
        return value, [max(bounds[0], value - half), min(bounds[1], value + half)]


def _parts(estimate: Estimate) -> tuple[float, Interval]:
    return estimate.value, [estimate.low, estimate.high]
