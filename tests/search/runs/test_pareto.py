"""Fronts and their order, against a brute force that asks every pair."""

import math

import numpy as np
import pytest

from search.runs.pareto import Point, pareto_order, sorted_fronts


def dominates(a: Point, b: Point) -> bool:
    return a[0] >= b[0] and a[1] <= b[1] and a != b


def brute_force(points: dict[int, Point]) -> list[set[int]]:
    fronts, left = [], dict(points)
    while left:
        front = {n for n, p in left.items() if not any(dominates(q, p) for q in left.values())}
        fronts.append(front)
        left = {n: p for n, p in left.items() if n not in front}
    return fronts


@pytest.mark.parametrize("seed", range(30))
def test_fronts_are_those_of_a_brute_force(seed: int) -> None:
    """Coarse grids, so that there are ties in one aim, in both, and points without a number."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 12))
    points = {n: (float(rng.integers(size)), float(rng.integers(size))) for n in range(60)}
    points |= {60: (-math.inf, 1.0), 61: (1.0, math.inf), 62: (-math.inf, math.inf), 63: (-math.inf, 1.0)}
    fronts = sorted_fronts(points)
    assert [set(front) for front in fronts] == brute_force(points)
    for front in fronts:
        values = [points[n][0] for n in front]
        assert values == sorted(values, reverse=True)
    order = pareto_order(points)
    assert sorted(order) == sorted(points)
    assert [points[n] for n in order[:1]] == [max(points.values(), key=lambda p: (p[0], -p[1]))]


def test_within_a_front_the_ends_come_first_then_those_far_from_their_neighbours() -> None:
    points = {0: (0.9, 100.0), 1: (0.88, 90.0), 2: (0.86, 80.0), 3: (0.6, 40.0), 4: (0.1, 10.0), 5: (0.85, 85.0)}
    assert pareto_order(points) == [0, 4, 3, 2, 1, 5]


def test_where_all_cost_the_same_the_order_is_that_of_the_values() -> None:
    assert pareto_order({0: (0.2, 5.0), 1: (0.9, 5.0), 2: (0.5, 5.0), 3: (0.7, 5.0)}) == [1, 3, 2, 0]


def test_nobody_has_no_front() -> None:
    assert sorted_fronts({}) == []
    assert pareto_order({}) == []
