"""Bootstrap intervals of means over images, and of the difference of two such means.

Groups of images are resampled (without groups, each image is its own group): images of one patient or one film are
similar, and resampling them one by one would make the interval too narrow. Plain percentiles are too narrow for few
images, like a t interval without its t, so the deviations of the resampled means are stretched by
sqrt(n / (n - 1)) * t / z for n groups. `tests/benchmarks/coverage.py` compares this with percentiles and BCa.

References:
    Efron, Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics 7, 1979.
    Hesterberg, What Teachers Should Know About the Bootstrap, The American Statistician 69, 2015 (expanded percentile).
"""

from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

CONFIDENCE = 0.95
DRAWS = 2000
_NUMBERS_AT_ONCE = 1_000_000


def mean_interval(
    values: Sequence[float] | FloatArray,
    groups: Sequence[str] | None = None,
    *,
    confidence: float = CONFIDENCE,
    draws: int = DRAWS,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """The confidence interval of the mean of one score per image.

    Args:
        values: `(N,)`, N >= 1.
        groups: Each image's group, `(N,)`; None: each image is its own group.
        confidence: The share of data sets whose interval should contain the true mean, in (0, 1).
        draws: Number of resampled means.
        seed: The same seed gives the same interval.
        bounds: The smallest and the largest possible score. They are the result for a single group, which says
            nothing about other groups.
    """
    deviations = _deviations(np.asarray(values, dtype=np.float64), groups, confidence, draws, seed)
    return _interval(float(np.mean(values)), deviations, confidence, bounds)


def difference_interval(
    first: Sequence[float] | FloatArray,
    second: Sequence[float] | FloatArray,
    groups: tuple[Sequence[str] | None, Sequence[str] | None] = (None, None),
    *,
    confidence: float = CONFIDENCE,
    draws: int = DRAWS,
    seed: int = 0,
    bounds: tuple[float, float] = (-1.0, 1.0),
) -> tuple[float, float]:
    """The interval of mean(first) - mean(second) for scores of different images, which are resampled independently.

    Args:
        first: `(N1,)`, N1 >= 1.
        second: `(N2,)`, N2 >= 1.
        groups: The groups of the first and of the second images; None: each image is its own group.
        confidence: The share of data sets whose interval should contain the true difference, in (0, 1).
        draws: Number of resampled means of each set.
        seed: The same seed gives the same interval.
        bounds: The smallest and the largest possible difference, the result where either set is a single group.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    of_first = _deviations(a, groups[0], confidence, draws, seed)
    of_second = _deviations(b, groups[1], confidence, draws, seed + 1)
    if of_first is None or of_second is None:
        return bounds
    return _interval(float(a.mean() - b.mean()), of_first - of_second, confidence, bounds)


@lru_cache(maxsize=4096)
def t_quantile(probability: float, degrees: float) -> float:
    """Quantile of Student's t; with t = sqrt(degrees) * tan(u), the density is proportional to cos(u) ** (degrees - 1).

    Args:
        probability: In (0, 1).
        degrees: At least 1, whole or not.

    Raises:
        ValueError: Fewer degrees than 1.
    """
    if not degrees >= 1:
        raise ValueError(f"Student's t needs 1 degree of freedom or more here, found {degrees:g}")
    if degrees > 1000:
        return NormalDist().inv_cdf(probability)
    angles = np.linspace(0.0, np.pi / 2, 40_001)
    density = np.cos(angles).clip(0.0) ** (degrees - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = np.interp(2 * abs(probability - 0.5), area / area[-1], angles)
    return float(np.copysign(np.sqrt(degrees) * np.tan(angle), probability - 0.5))


def _deviations(
    values: FloatArray, groups: Sequence[str] | None, confidence: float, draws: int, seed: int
) -> FloatArray | None:
    """Resampled means minus the mean, stretched, `(draws,) float64`; None for a single group."""
    number_of = {name: number for number, name in enumerate(dict.fromkeys(groups or range(len(values))))}
    member = [number_of[name] for name in groups or range(len(values))]
    sums, counts = np.bincount(member, values), np.bincount(member)
    n = len(sums)
    if n < 2:
        return None
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    at_once = max(1, _NUMBERS_AT_ONCE // n)
    for begin in range(0, draws, at_once):
        drawn = rng.integers(0, n, (min(at_once, draws - begin), n))
        means[begin : begin + len(drawn)] = sums[drawn].sum(1) / counts[drawn].sum(1)
    tail = (1 + confidence) / 2
    stretch = np.sqrt(n / (n - 1)) * t_quantile(tail, n - 1) / NormalDist().inv_cdf(tail)
    return np.asarray((means - values.mean()) * stretch)


def _interval(
    mean: float, deviations: FloatArray | None, confidence: float, bounds: tuple[float, float]
) -> tuple[float, float]:
    if deviations is None:
        return bounds
    tail = (1 - confidence) / 2
    low, high = np.quantile(deviations, [tail, 1 - tail])
    return max(bounds[0], mean + float(low)), min(bounds[1], mean + float(high))
