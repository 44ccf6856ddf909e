import math

import numpy as np
import numpy.typing as npt
import pytest

from segcore.scores.intervals import t_quantile
from segcore.scores.seed_noise import (
    Estimate,
    difference_over_seeds,
    mean_over_seeds,
    seed_variance,
)

Array = npt.NDArray[np.float64]
WIDE = (-9.0, 9.0)


def trainings(
    rng: np.random.Generator, images: Array, num_seeds: int = 3, mean: float = 0.8, noise: float = 1.0
) -> Array:
    """`(S, N)` scores of one config: how hard an image is, how this config does on it, its seeds, and their luck."""
    own = rng.normal(0, 0.03, len(images))
    seeds = rng.normal(0, 0.02 * noise, (num_seeds, 1))
    return np.asarray(mean + images + own + seeds + rng.normal(0, 0.05 * noise, (num_seeds, len(images))))


def test_the_noise_of_seeds_by_hand() -> None:
    """Means 0.2, 0.4 -> squares 0.02, 1 degree; means 0.5, 0.6, 0.7 -> squares 0.02, 2 degrees; one seed -> none."""
    cells = [np.array([[0.1, 0.3], [0.4, 0.4]]), np.array([[0.5], [0.6], [0.7]]), np.array([[0.9, 0.1]])]
    variance, degrees = seed_variance(cells)
    assert variance == pytest.approx(0.04 / 3)
    assert degrees == 3


def test_the_noise_of_seeds_needs_two_of_one_config() -> None:
    with pytest.raises(ValueError, match="needs a config with two seeds or more"):
        seed_variance([np.ones((1, 4)), np.ones((1, 4))])
    with pytest.raises(ValueError, match="needs a config with two seeds or more"):
        seed_variance([])


def test_the_interval_of_a_difference_by_hand() -> None:
    """One seed each: differences 0.1, 0.3, 0.5 have mean 0.3 and variance 0.04, so V_images = 0.04 / 3.

    Noise 0.01 of 4 degrees gives V_seeds = 0.02. Degrees: V^2 / (V_images^2 / 2 + V_seeds^2 / 4).
    """
    first, second = np.array([[0.6, 0.7, 0.8]]), np.array([[0.5, 0.4, 0.3]])
    total = 0.04 / 3 + 0.02
    degrees = total**2 / ((0.04 / 3) ** 2 / 2 + 0.02**2 / 4)
    half = t_quantile(0.95, degrees) * math.sqrt(total)
    found = difference_over_seeds(first, second, noise=(0.01, 4), confidence=0.9, bounds=WIDE)
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))


def test_a_trainings_luck_with_single_images_counts_once() -> None:
    """Two seeds, two images, in turn 0.2 above and below the mean; the images' means differ by 0.4.

    Scores 0.5 0.5 / 0.1 0.9: images' means 0.3 and 0.7, so V_images = 0.08 / 2; seeds' means 0.5 and 0.5; what is left
    is +-0.2 four times, variance 0.16 of 1 degree, so V_both = 0.16 / 4. With pooled noise 0.6 and none of its own,
    V_seeds = 0.3 / 2 and V = 0.04 + 0.15 - 0.04.
    """
    scores = np.array([[0.5, 0.5], [0.1, 0.9]])
    found = mean_over_seeds(scores, noise=(0.6, 1), confidence=0.5, bounds=WIDE)
    degrees = max(0.15**2 / (0.04**2 + 0.15**2 + 0.04**2), 1)
    half = t_quantile(0.75, degrees) * math.sqrt(0.15)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    # It never takes away more than it added: V is not below V_images.
    found = mean_over_seeds(scores, noise=(0.0, 10), confidence=0.5, bounds=WIDE)
    assert found.high - found.value > 0.9 * math.sqrt(0.04)


@pytest.mark.parametrize("groups", [None, ["one"] * 5])
def test_the_very_same_trainings_differ_by_nothing(groups: list[str] | None) -> None:
    scores = np.random.default_rng(0).random((3, 5))
    assert difference_over_seeds(scores, scores.copy(), groups, noise=(0.1, 2)) == Estimate(0.0, 0.0, 0.0)


def test_one_group_or_image_says_nothing_about_others() -> None:
    first, second = np.random.default_rng(0).random((2, 3, 4))
    noise = (0.001, 4)
    found = difference_over_seeds(first, second, ["film"] * 4, noise=noise)
    assert found == Estimate(pytest.approx(first.mean() - second.mean()), -1.0, 1.0)
    assert difference_over_seeds(first[:, :1], second[:, :1], noise=noise, bounds=WIDE).low == -9.0
    found = mean_over_seeds(first, ["film"] * 4, noise=noise)
    assert found == Estimate(pytest.approx(first.mean()), 0.0, 1.0)
    assert mean_over_seeds(first[:, :1], noise=noise).high == 1.0


def test_a_score_without_parts_per_image_varies_over_seeds_alone() -> None:
    """0.5 and 0.7 against 0.9: own variance 0.02; with a pooled one of 0.04, V = (0.04 + 0.02) / 2 / 2 + 0.04 / 1.

    So V = 1.25 pooled + 0.25 own, and their covariance counts as well.
    """
    first, second = np.array([[0.5], [0.7]]), np.array([[0.9]])
    spread = (1.25 * 0.04) ** 2 / 3 + (0.25 * 0.02) ** 2 / 1 + 2 * 1.25 * 0.25 * 0.02**2 / 3
    half = t_quantile(0.95, 0.055**2 / spread) * math.sqrt(0.055)
    infinite = (-math.inf, math.inf)
    found = difference_over_seeds(first, second, noise=(0.04, 3), confidence=0.9, bounds=infinite, over_images=False)
    assert (found.value, found.low, found.high) == pytest.approx((-0.3, -0.3 - half, -0.3 + half))
    spread = (0.25 * 0.04) ** 2 / 3 + (0.25 * 0.02) ** 2 / 1 + 2 * 0.25 * 0.25 * 0.02**2 / 3
    half = t_quantile(0.95, 0.015**2 / spread) * math.sqrt(0.015)
    found = mean_over_seeds(first, noise=(0.04, 3), confidence=0.9, bounds=(0.0, math.inf), over_images=False)
    assert (found.value, found.low, found.high) == pytest.approx((0.6, 0.6 - half, 0.6 + half))


def test_equal_scores_without_noise_close_the_interval_and_bounds_hold() -> None:
    assert mean_over_seeds(np.full((2, 4), 0.5), noise=(0.0, 2)) == Estimate(0.5, 0.5, 0.5)
    high, low = np.full((2, 4), 1.0), np.full((2, 4), 0.25)
    assert difference_over_seeds(high, low, noise=(0.0, 2)) == Estimate(0.75, 0.75, 0.75)
    assert mean_over_seeds(high, noise=(0.5, 2)).high == 1.0
    found = difference_over_seeds(high, low, noise=(0.5, 2))
    assert found.high == 1.0
    assert found.low < 0.75


def test_images_of_one_group_count_as_one() -> None:
    """Five groups of 20 equal images are as uncertain as five images."""
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 1, 5)) + 0.01 * rng.random((2, 3, 5))
    groups = [f"film {i // 20}" for i in range(100)]
    wide = difference_over_seeds(np.repeat(first, 20, 1), np.repeat(second, 20, 1), groups, noise=(1e-4, 4))
    five = difference_over_seeds(first, second, noise=(1e-4, 4))
    assert (wide.value, wide.low, wide.high) == pytest.approx((five.value, five.low, five.high))
    narrow = difference_over_seeds(np.repeat(first, 20, 1), np.repeat(second, 20, 1), noise=(1e-4, 4))
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


def test_hard_images_do_not_blur_a_difference_but_seeds_do() -> None:
    """The same images serve both configs: how hard these are cancels out; a single lucky seed does not."""
    rng = np.random.default_rng(0)
    images = rng.normal(0, 0.4, 48)
    first, second = trainings(rng, images, mean=0.85), trainings(rng, images, mean=0.75)
    noise = seed_variance([first, second])
    found = difference_over_seeds(first, second, noise=noise)
    assert found.low > 0.0
    assert found.low < 0.1 < found.high
    mean = mean_over_seeds(first, noise=noise)
    assert mean.high - mean.low > 1.3 * (found.high - found.low)
    noisy = difference_over_seeds(first, second, noise=(0.15**2, 4))
    assert noisy.low < 0.0 < noisy.high


@pytest.mark.slow
def test_identical_configs_are_told_apart_no_more_often_than_asked_for() -> None:
    """Two of three equal configs, 3 seeds each, over 800 draws: 10% are wrong by chance; images alone would say 40%."""
    rng = np.random.default_rng(0)
    told_apart = by_images_alone = 0
    for _ in range(800):
        images = rng.normal(0, 0.1, 48)
        cells = [trainings(rng, images) for _ in range(3)]
        found = difference_over_seeds(cells[0], cells[1], noise=seed_variance(cells), confidence=0.9)
        told_apart += not found.low <= 0.0 <= found.high
        differences = cells[0].mean(0) - cells[1].mean(0)
        error = differences.std(ddof=1) / math.sqrt(48)
        by_images_alone += abs(differences.mean()) > t_quantile(0.95, 47) * error
    assert 0.06 <= told_apart / 800 <= 0.14
    assert by_images_alone / 800 > 0.3


def test_a_config_that_is_noisier_than_others_widens_its_own_intervals() -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(0, 0.1, 48)
    quiet, other, noisy = trainings(rng, images), trainings(rng, images), trainings(rng, images, noise=6.0)
    noise = seed_variance([quiet, other, noisy])
    found = mean_over_seeds(quiet, noise=noise), mean_over_seeds(noisy, noise=noise)
    assert found[1].high - found[1].low > 1.5 * (found[0].high - found[0].low)


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        images = rng.normal(0, 0.1, 48)
        cells = [trainings(rng, images, mean=mean) for mean in (0.85, 0.75, 0.8)]
        found += difference_over_seeds(cells[0], cells[1], noise=seed_variance(cells)).low > 0.0
    assert found >= 190


@pytest.mark.parametrize("shape", [(3,), (0, 4), (3, 0), (1, 2, 3)])
def test_scores_are_seeds_by_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"scores must be \(seeds, images\)"):
        mean_over_seeds(np.ones(shape), noise=(0.1, 2))


def test_images_and_groups_must_agree() -> None:
    with pytest.raises(ValueError, match="the same images, found 4 and 5"):
        difference_over_seeds(np.ones((2, 4)), np.zeros((2, 5)), noise=(0.1, 2))
    with pytest.raises(ValueError, match="one per image, found 2 groups and 4 images"):
        mean_over_seeds(np.ones((2, 4)), ["a", "b"], noise=(0.1, 2))
