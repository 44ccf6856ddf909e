"""Two objectives at once: the Pareto fronts of points, and an order of all points by them.

A point is `(value, cost)`: a value is better when it is larger, a cost when it is smaller.

References:
    Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, 2002 (sorting, crowding distance).
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence

Point = tuple[float, float]


def sorted_fronts(points: Mapping[int, Point]) -> list[list[int]]:
    """The numbers of all points in fronts, best value first within each.

    No point of the first front is dominated: no other one is at least as good in both and better in one.
    The second front is the first of what is left without it, and so on. Equal points share a front.
    """
    fronts: list[list[int]] = []
    lowest: list[float] = []
    latest: list[Point] = []
    for number in sorted(points, key=lambda number: (-points[number][0], points[number][1], number)):
        point = points[number]
        # In each front, the point that came last has the lowest cost of all: only it can dominate the next one. These
        # costs rise from front to front.
        index = bisect_right(lowest, point[1])
        if index and latest[index - 1] == point:
            index -= 1
        if index == len(fronts):
            fronts.append([])
            lowest.append(math.inf)
            latest.append(point)
        fronts[index].append(number)
        lowest[index], latest[index] = point[1], point
    return fronts


def pareto_order(points: Mapping[int, Point]) -> list[int]:
    """All numbers, best first: front by front; within one, those far from their neighbours, then the better value.

    So the point with the best value is always the first of all, and the cheapest of the first front the second.
    """
    return [number for front in sorted_fronts(points) for number in _spread_out(front, points)]


def _spread_out(front: Sequence[int], points: Mapping[int, Point]) -> list[int]:
    """A front, best value first, by falling crowding distance; its two ends are at infinite distance."""
    distance = dict.fromkeys(front, 0.0)
    for axis in (0, 1):
        along = [_finite(points[number][axis]) for number in front]
        extent = abs(along[-1] - along[0])
        for i in range(1, len(front) - 1):
            distance[front[i]] += abs(along[i + 1] - along[i - 1]) / extent if extent else 0.0
    distance[front[0]] = distance[front[-1]] = math.inf
    return sorted(front, key=lambda number: (-distance[number], -points[number][0], number))


def _finite(number: float) -> float:
    return max(-1e300, min(1e300, number))
