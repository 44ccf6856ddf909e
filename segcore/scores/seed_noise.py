"""Means, and differences of means, over images and over the seeds of repeated trainings, with intervals.

A config's score has two sources of noise: which images are in val, and which seed it was trained with. Seeds are few,
so their variance is pooled over all configs that were trained several times; images are many, and two configs are
scored on the same ones, so a difference is paired by image.

With `S` trainings by seed and `N` images, the squared standard error of one config's mean is

    V_images + V_seeds - V_both

where `V_images` is the cluster-robust variance of the mean over images of the seeds' mean (groups are the clusters),
`V_seeds` is the variance between seeds, and `V_both` is the interaction of seed and image, which both other terms
contain, so that it is counted once (two-way clusters). For a difference, `V_images` is that of the differences per
image, and `V_seeds` and `V_both` are the sums over both configs.

`V_seeds` is `(pooled + own) / 2 / S`: the mean of the variance of `seed_variance`, which has many degrees of freedom
but may come from less noisy configs, and the config's own, which has few; with one seed only the pooled one is used.
Degrees of freedom follow Welch and Satterthwaite. `tests/benchmarks/coverage.py` measures how often such intervals
contain the truth.

References:
    Satterthwaite, An Approximate Distribution of Estimates of Variance Components, Biometrics Bulletin 2, 1946.
    Welch, The Generalization of "Student's" Problem When Several Different Population Variances Are Involved,
    Biometrika 34, 1947.
    Liang & Zeger, Longitudinal Data Analysis Using Generalized Linear Models, Biometrika 73, 1986 (robust variance).
    Cameron, Gelbach & Miller, Robust Inference with Multiway Clustering, J. of Business & Economic Statistics 29, 2011.
    Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks, MLSys 2021, arXiv:2103.03098.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segcore.scores.intervals import CONFIDENCE, t_quantile

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value and its confidence interval."""

    value: float
    low: float
    high: float


def seed_variance(cells: Iterable[FloatArray]) -> tuple[float, int]:
    """Return `(variance, degrees)` of a score over seeds: how much trainings of one config differ by chance.

    `variance = sum_c sum_s (m_cs - m_c)^2 / degrees` with `m_cs` the mean over images of config c's seed s, `m_c` the
    mean of these over seeds, and `degrees = sum_c (S_c - 1)`.

    Args:
        cells: For each config `(S, N) float64`, a score per seed and image. A single seed adds nothing.

    Raises:
        ValueError: No config was trained with two seeds.
    """
    squares, degrees = 0.0, 0
    for cell in cells:
        means = _checked(cell).mean(1)
        squares += float(((means - means.mean()) ** 2).sum())
        degrees += len(means) - 1
    if degrees == 0:
        raise ValueError("the noise of seeds needs a config with two seeds or more; each has one")
    return squares / degrees, degrees


def mean_over_seeds(
    scores: FloatArray,
    groups: Sequence[str] | None = None,
    *,
    noise: tuple[float, int],
    confidence: float = CONFIDENCE,
    bounds: tuple[float, float] = (0.0, 1.0),
    over_images: bool = True,
) -> Estimate:
    """The mean of one config's scores, and its interval over other images and other seeds.

    Args:
        scores: `(S, N) float64`, a score per seed and image.
        groups: Each image's group, `(N,)`; None: each image is its own group.
        noise: What `seed_variance` returned for configs that include this one.
        confidence: The share of repetitions whose interval should contain the true mean, in (0, 1).
        bounds: The smallest and the largest possible mean. They are the interval for a single group of images, which
            says nothing about other groups.
        over_images: False: the interval is over seeds only, for exactly these images. Used for a score without
            values per image, `(S, 1)`.

    Raises:
        ValueError: The scores have another shape, or there is not one group per image.
    """
    scores = _checked(scores)
    member = _members(groups, scores.shape[1])
    return _estimate(scores.mean(0), member if over_images else None, [scores], noise, confidence, bounds)


def difference_over_seeds(
    first: FloatArray,
    second: FloatArray,
    groups: Sequence[str] | None = None,
    *,
    noise: tuple[float, int],
    confidence: float = CONFIDENCE,
    bounds: tuple[float, float] = (-1.0, 1.0),
    over_images: bool = True,
) -> Estimate:
    """mean(first) - mean(second) of two configs' scores on the same images, and its interval.

    Seeds count as independent, whether or not both configs used the same ones. Equal arrays (the same trainings)
    differ by exactly 0.

    Args:
        first: `(S1, N) float64`, a score per seed and image.
        second: `(S2, N) float64`, of the same images in the same order.
        groups: Each image's group, `(N,)`; None: each image is its own group.
        noise: What `seed_variance` returned for configs that include these two.
        confidence: The share of repetitions whose interval should contain the true difference, in (0, 1).
        bounds: The smallest and the largest possible difference, the interval for a single group of images.
        over_images: As for `mean_over_seeds`.

    Raises:
        ValueError: The scores have another shape, or there is not one group per image.
    """
    first, second = _checked(first), _checked(second)
    num_images = first.shape[1]
    if second.shape[1] != num_images:
        raise ValueError(f"both must score the same images, found {num_images} and {second.shape[1]}")
    member = _members(groups, num_images)
    if np.array_equal(first, second):
        return Estimate(0.0, 0.0, 0.0)
    differences = first.mean(0) - second.mean(0)
    return _estimate(differences, member if over_images else None, [first, second], noise, confidence, bounds)


def _estimate(
    per_image: FloatArray,
    member: npt.NDArray[np.intp] | None,
    cells: Sequence[FloatArray],
    noise: tuple[float, int],
    confidence: float,
    bounds: tuple[float, float],
) -> Estimate:
    """The mean of a value per image and its interval; with `member` None, images add no variance."""
    value = float(per_image.mean())
    of_seeds, seed_spread = _of_seeds(cells, noise)
    several = [cell for cell in cells if len(cell) > 1]
    component_degrees = [noise[1], *(len(cell) - 1 for cell in several)]
    if member is None:
        total, spread = of_seeds, seed_spread
    else:
        image_degrees = int(member.max())
        if image_degrees < 1:
            return Estimate(value, *bounds)
        of_images = _clustered(per_image[None] - value, member)
        of_both = [_both(cell, member) for cell in several]
        # By chance the estimate of the doubly counted part can exceed the others.
        total = max(of_images + of_seeds - sum(of_both), of_images, of_seeds)
        spread = of_images**2 / image_degrees + seed_spread
        spread += sum(both**2 / ((len(cell) - 1) * image_degrees) for both, cell in zip(of_both, several, strict=True))
        component_degrees.append(image_degrees)
    if total == 0.0:
        return Estimate(value, value, value)
    degrees = max(total**2 / spread, min(component_degrees))
    half = t_quantile((1 + confidence) / 2, degrees) * math.sqrt(total)
    return Estimate(value, max(bounds[0], value - half), min(bounds[1], value + half))


def _of_seeds(cells: Sequence[FloatArray], noise: tuple[float, int]) -> tuple[float, float]:
    """`V_seeds` summed over configs, and its square by degree of freedom: half its own variance.

    With `V = a pooled + sum_c b_c own_c`, the latter is `(a pooled)^2 / df + sum_c (b_c own_c)^2 / (S_c - 1)
    + 2 a sum_c b_c own_c^2 / df`, as a config's own squares are a part of the pooled ones.
    """
    pooled, degrees = noise
    own = [(cell.mean(1).var(ddof=1), len(cell)) for cell in cells if len(cell) > 1]
    a = sum(1 / len(cell) if len(cell) == 1 else 0.5 / len(cell) for cell in cells)
    total = a * pooled + sum(variance * 0.5 / seeds for variance, seeds in own)
    spread = (a * pooled) ** 2 / degrees
    for variance, seeds in own:
        b = 0.5 / seeds
        spread += (b * variance) ** 2 / (seeds - 1) + 2 * a * b * variance**2 / degrees
    return float(total), float(spread)


def _both(cell: FloatArray, member: npt.NDArray[np.intp]) -> float:
    """The variance of a config's mean due to its scores' residuals after removing the means of images and seeds."""
    num_seeds = len(cell)
    rest = cell - cell.mean(0) - cell.mean(1, keepdims=True) + cell.mean()
    return _clustered(rest, member) / (num_seeds * (num_seeds - 1))


def _clustered(deviations: FloatArray, member: npt.NDArray[np.intp]) -> float:
    """The cluster-robust variance of a mean over images, summed over rows, `(rows, N)` of deviations from it.

    A row's is `G / (G - 1) * sum_g (sum of the deviations in group g)^2 / N^2`.
    """
    num_groups = int(member.max()) + 1
    squares = sum(float((np.bincount(member, row) ** 2).sum()) for row in deviations)
    num_images = int(deviations.shape[1])
    return num_groups / (num_groups - 1) * squares / num_images**2


def _checked(scores: FloatArray) -> FloatArray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"scores must be (seeds, images) with one of each at least, found {scores.shape}")
    return scores


def _members(groups: Sequence[str] | None, num_images: int) -> npt.NDArray[np.intp]:
    """The index of each image's group, `(N,)`."""
    if groups is None:
        return np.arange(num_images)
    if len(groups) != num_images:
        raise ValueError(f"groups must be one per image, found {len(groups)} groups and {num_images} images")
    number_of = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    return np.array([number_of[name] for name in groups], dtype=np.intp)
