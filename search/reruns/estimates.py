"""Means and differences of scores by seed, with intervals where they can be computed.

`segcore.scores.seed_noise` does the statistics; this module holds what several configs share, and the cases with less
data: a metric without scores of images (`val/loss`), or no config with two seeds.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from segcore.scores.intervals import CONFIDENCE
from segcore.scores.seed_noise import (
    Estimate,
    FloatArray,
    difference_over_seeds,
    mean_over_seeds,
    seed_variance,
)

Interval = list[float]


class SeedEstimates:
    """Estimates for configs that share one noise of seeds.

    Args:
        cells: Of every config `(S, N)` scores by seed and image, or `(S, 1)` values by seed.
        groups: Each image's group; None: each image is one.
        has_images: False where columns are not images: intervals are then over seeds alone.
        bounds: The least and the largest score.

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
    ) -> None:
        repeated = [cell for cell in cells if len(cell) > 1]
        self.noise = seed_variance(repeated) if repeated else None
        self.num_configs = len(repeated)
        self._groups = groups if has_images else None
        self._has_images = has_images
        self._bounds = bounds

    @property
    def difference_bounds(self) -> tuple[float, float]:
        """The least and the largest difference of two scores."""
        low, high = self._bounds
        return low - high, high - low

    def mean(self, scores: FloatArray) -> tuple[float, Interval | None]:
        """The mean of a config's scores and its interval, None where there is no noise to make it of."""
        if self.noise is None:
            return float(scores.mean()), None
        return _parts(
            mean_over_seeds(
                scores,
                self._groups,
                noise=self.noise,
                confidence=CONFIDENCE,
                bounds=self._bounds,
                over_images=self._has_images,
            )
        )

    def difference(self, first: FloatArray, second: FloatArray) -> tuple[float, Interval | None]:
        """mean(first) - mean(second) and its interval; identical trainings differ by exactly 0."""
        if np.array_equal(first, second):
            return 0.0, [0.0, 0.0]
        if self.noise is None:
            return float(first.mean() - second.mean()), None
        return _parts(
            difference_over_seeds(
                first,
                second,
                self._groups,
                noise=self.noise,
                confidence=CONFIDENCE,
                bounds=self.difference_bounds,
                over_images=self._has_images,
            )
        )


def _parts(estimate: Estimate) -> tuple[float, Interval]:
    return estimate.value, [estimate.low, estimate.high]


def pair_of(interval: Interval | None) -> tuple[float, float] | None:
    """The two ends of an interval; None where there is none."""
    return None if interval is None else (interval[0], interval[1])
