from statistics import NormalDist

import numpy as np
import pytest

from segcore.scores.intervals import difference_interval, mean_interval, t_quantile


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.3027), (0.95, 5, 2.0150), (0.975, 30, 2.0423), (0.975, 500, 1.9647)],
)
def test_the_quantile_is_that_of_the_tables(probability: float, degrees: int, expected: float) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(expected, abs=2e-4)
    assert t_quantile(1 - probability, degrees) == pytest.approx(-expected, abs=2e-4)
    assert t_quantile(probability, 10**6) == NormalDist().inv_cdf(probability)


@pytest.mark.parametrize("degrees", [1.0, 1.3, 1.5, 2.5, 6.75, 40.2])
def test_degrees_need_not_be_whole(degrees: float) -> None:
    """Between the quantiles of its neighbours, and where the density's own integral says."""
    found = t_quantile(0.975, degrees)
    assert t_quantile(0.975, int(degrees) + 1) <= found <= t_quantile(0.975, int(degrees))
    # Half of the density's mass by a sum in t itself; what lies beyond 1e6 is less than 1e-6 of it.
    t = np.concatenate([np.linspace(0, 50, 200_001), np.geomspace(50, 1e6, 200_001)[1:]])
    density = (1 + t**2 / degrees) ** (-(degrees + 1) / 2)
    mass = np.concatenate([[0.0], np.cumsum(np.diff(t) * (density[1:] + density[:-1]) / 2)])
    assert np.interp(found, t, mass) / mass[-1] == pytest.approx(0.95, abs=2e-5)


@pytest.mark.parametrize("degrees", [0, 0.5, float("nan")])
def test_less_than_one_degree_is_refused(degrees: float) -> None:
    with pytest.raises(ValueError, match="needs 1 degree of freedom or more here, found"):
        t_quantile(0.975, degrees)


def test_the_interval_of_many_normal_scores_is_that_of_the_textbook() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.1, 400)
    half = 1.966 * values.std(ddof=1) / 20
    low, high = mean_interval(values)
    assert low == pytest.approx(values.mean() - half, abs=0.001)
    assert high == pytest.approx(values.mean() + half, abs=0.001)


def test_few_images_give_about_the_t_interval() -> None:
    """0.3, 0.5, 0.7: deviation 0.2, so 0.5 +- 4.303 * 0.2 / sqrt(3), which the resampling of three can only round."""
    low, high = mean_interval([0.3, 0.5, 0.7], bounds=(-9.0, 9.0))
    assert 0.5 - low == pytest.approx(0.497, rel=0.25)
    assert high - 0.5 == pytest.approx(0.497, rel=0.25)


def test_one_group_says_nothing_about_others() -> None:
    assert mean_interval([0.5]) == (0.0, 1.0)
    assert mean_interval([0.5, 0.6, 0.7], ["a", "a", "a"]) == (0.0, 1.0)
    assert difference_interval([0.5], [0.4, 0.6]) == (-1.0, 1.0)
    assert difference_interval([0.4, 0.6], [0.5]) == (-1.0, 1.0)


def test_equal_scores_close_the_interval_and_bounds_hold() -> None:
    assert mean_interval([0.5] * 8) == (0.5, 0.5)
    assert mean_interval([0.0, 1.0]) == (0.0, 1.0)
    low, high = mean_interval([1.0, 1.0, 1.0, 0.9])
    assert 0.8 < low < 0.975
    assert high == 1.0


def test_images_of_one_group_count_as_one() -> None:
    """Four groups of 25 equal images: as uncertain as four images."""
    means = [0.4, 0.5, 0.6, 0.7]
    values = np.repeat(means, 25)
    groups = [f"film {i // 25}" for i in range(100)]
    assert mean_interval(values, groups) == pytest.approx(mean_interval(means), abs=1e-12)
    low, high = mean_interval(values)
    assert high - low < 0.3 * (mean_interval(means)[1] - mean_interval(means)[0])


def test_the_same_seed_gives_the_same_interval_and_confidence_widens_it() -> None:
    values = np.random.default_rng(0).uniform(0.2, 1.0, 30)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values, seed=1) != mean_interval(values)
    (low95, high95), (low50, high50) = (mean_interval(values, confidence=c) for c in (0.95, 0.5))
    assert low95 < low50 < values.mean() < high50 < high95


def test_the_interval_of_a_difference_adds_both_uncertainties() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.7, 0.1, 300), rng.normal(0.6, 0.2, 200)
    half = 1.96 * np.sqrt(first.var(ddof=1) / 300 + second.var(ddof=1) / 200)
    difference = first.mean() - second.mean()
    assert difference_interval(first, second) == pytest.approx((difference - half, difference + half), abs=0.003)
    low, high = difference_interval(second, first)
    assert (low, high) == pytest.approx((-difference - half, -difference + half), abs=0.003)


def failing_at_times(rng: np.random.Generator, n: int) -> np.ndarray:
    """IoUs of a model that fails on one image in ten; their mean is 0.9 * 20 / 23 + 0.1 * 0.2."""
    return np.where(rng.random(n) < 0.1, rng.beta(1, 4, n), rng.beta(20, 3, n))


def test_nine_in_ten_intervals_of_a_mean_hold_it() -> None:
    rng, truth = np.random.default_rng(0), 0.9 * 20 / 23 + 0.1 * 0.2
    found = [mean_interval(failing_at_times(rng, 64), confidence=0.9, draws=500, seed=i) for i in range(500)]
    assert 0.86 <= np.mean([low <= truth <= high for low, high in found]) <= 0.94


def test_nine_in_ten_intervals_of_a_gap_hold_it() -> None:
    rng, hits = np.random.default_rng(1), 0
    for i in range(500):
        val, test = rng.beta(8, 2, 48), rng.beta(8, 2, 32) - 0.05
        low, high = difference_interval(val, test, confidence=0.9, draws=500, seed=i)
        hits += low <= 0.05 <= high
    assert 0.86 <= hits / 500 <= 0.94


def test_nine_in_ten_intervals_over_films_hold_the_mean_and_fewer_do_image_by_image() -> None:
    """Sixteen films of six images, which are alike in each."""
    rng, by_film, by_image = np.random.default_rng(2), 0, 0
    films = [str(i // 6) for i in range(96)]
    for i in range(500):
        values = np.repeat(rng.uniform(0.6, 0.9, 16), 6) + rng.normal(0, 0.02, 96)
        low, high = mean_interval(values, films, confidence=0.9, draws=500, seed=i)
        by_film += low <= 0.75 <= high
        low, high = mean_interval(values, confidence=0.9, draws=500, seed=i)
        by_image += low <= 0.75 <= high
    assert 0.86 <= by_film / 500 <= 0.94
    assert by_image / 500 < 0.7
