"""Means, and differences of means, over images and over the seeds of repeated trainings, with intervals.

A config's score has two sources of noise: which images are in val, and which seed it was trained with. Seeds are few,
so what they are worth is pooled over all configs that were trained several times; images are many, and two configs
meet the same ones, so a difference is taken image by image.

With `S` trainings by seed and `N` images, the squared standard error of one config's mean is

    V_images + V_seeds - V_both

where `V_images` is the cluster-robust variance of the mean over images of the seeds' mean (groups are the clusters),
`V_seeds` is what seeds vary it by, and `V_both` is what a training's luck with single images adds to either of them, so
that it is counted once (two-way clusters). Of a difference, `V_images` is that of the image-by-image difference, and
`V_seeds` and `V_both` are the sums over both configs.

`V_seeds` is `(pooled + own) / 2 / S`: the mean of the variance of `seed_variance`, of many degrees but perhaps of
quieter configs, and of the config's own, of few; with one seed there is the pooled one alone. Degrees of freedom follow
Welch and Satterthwaite. `tests/benchmarks/coverage.py` measures how often such intervals hold the truth.

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
    """A value and its interval."""

    value: float
    low: float
    high: float


def seed_variance(cells: Iterable[FloatArray]) -> tuple[float, int]:
    """Returns `(variance, degrees)` of a score over seeds: how much two trainings of one config differ by luck.

    `variance = sum_c sum_s (m_cs - m_c)^2 / degrees` with `m_cs` the mean over images of config c's seed s, `m_c` the
    mean of these over seeds, and `degrees = sum_c (S_c - 1)`.

    Args:
        cells: Of each config `(S, N) float64`, a score per seed and image. One of a single seed adds nothing.

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
        groups: Each image's group, `(N,)`; None: each image is one.
        noise: What `seed_variance` returned for configs with this one among them.
        confidence: The share of repetitions whose interval is to hold the true mean.
        bounds: The least and the largest mean there can be. A single group of images gives these: it says nothing
            about others.
        over_images: False: the interval is over seeds alone, for these very images. For a score that has no part per
            image, `(S, 1)`.

    Raises:
        ValueError: The scores are no such array, or the groups are not one per image.
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

    Seeds are taken as independent, whether or not both configs have the same ones. The very same trainings (equal
    arrays) differ by exactly 0.

    Args:
        first: `(S1, N) float64`, a score per seed and image.
        second: `(S2, N) float64`, of the same images in the same order.
        groups: Each image's group, `(N,)`; None: each image is one.
        noise: What `seed_variance` returned for configs with these two among them.
        confidence: The share of repetitions whose interval is to hold the true difference.
        bounds: The least and the largest difference there can be, which a single group of images gives.
        over_images: As for `mean_over_seeds`.

    Raises:
        ValueError: The scores are no such arrays, or the groups are not one per image.
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
    """The mean of a number per image, with what varies it; `member` None: images do not."""
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
        # By chance what is counted twice can look like more than there is.
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
    """The variance of a config's mean by what is left of its scores once images' and seeds' means are taken off."""
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
    """The number of each image's group."""
    if groups is None:
        return np.arange(num_images)
    if len(groups) != num_images:
        raise ValueError(f"groups must be one per image, found {len(groups)} groups and {num_images} images")
    number_of = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    return np.array([number_of[name] for name in groups], dtype=np.intp)
