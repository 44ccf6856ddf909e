"""The points of a space that differ in what is trained: which are the same, how many there are, which is left.

Two points are the same where every searched key that training reads has the same value in both, whether a branch sets
it or it is the config's own. A space with a continuous key that training reads has no end of them.
"""

import itertools
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from search.space.domains import Choice, Fixed, Node, Range
from search.space.effects import ignored_keys
from search.space.tree import Space
from segcore.params import Params, ParamValue

MOST_COMBINATIONS = 20_000
"""Combinations of values that are looked at, so that counting takes a second at most."""

Key = tuple[tuple[str, Any], ...]
"""What is the same for points that train the same."""


@dataclass(frozen=True)
class Points:
    """The points of a space.

    Attributes:
        space: The space.
        own: Every dotted key of the config that it varies, with the config's own value; without any, only equal points
            are the same.
    """

    space: Space
    own: Mapping[str, ParamValue]

    def key(self, flat: Mapping[str, ParamValue]) -> Key:
        """The same for points that train the same."""
        whole = {**self.own, **flat}
        ignored = ignored_keys(whole) if self.own else frozenset()
        return tuple((key, _plain(whole[key])) for key in self._keys if key in whole and key not in ignored)

    @cached_property
    def every(self) -> Mapping[Key, Params] | None:
        """One point for each key, in the file's order; None where there is no end of them, or are too many to count."""
        if not self.space or num_combinations(self.space.nodes) > MOST_COMBINATIONS:
            return None
        found: dict[Key, Params] = {}
        for flat, continuous in _combinations(self.space.nodes):
            key = self.key(flat)
            if any(name in continuous for name, _ in key):
                return None
            if key not in found:
                allowed = (point for point in _varied(flat, continuous, self.space) if not self.space.forbidden(point))
                point = next(allowed, None)
                if point is not None:
                    found[key] = point
        return found

    def left(self, tried: Container[Key]) -> int | None:
        """How many points have not been tried; None where they cannot be counted."""
        return None if self.every is None else sum(key not in tried for key in self.every)

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        return self.space.keys()


def too_few(num_points: int | None, num_samples: int) -> str | None:
    """A line for the user where a space has fewer points than trials were asked for, else None.

    Args:
        num_points: As many as there are, or None where they cannot be counted.
        num_samples: Trials that were asked for.
    """
    if num_points is None or num_points >= num_samples:
        return None
    has = f"{num_points} point{'s' * (num_points != 1)}"
    return f"the space has {has}; {num_samples} trials were asked for: it stops after {num_points}"


def num_combinations(nodes: Sequence[Node]) -> int:
    """In how many ways the discrete values can be combined; a continuous range counts as one value."""
    return math.prod(_num_values(node) for node in nodes)


def _num_values(node: Node) -> int:
    domain = node.domain
    if isinstance(domain, Choice):
        return sum(num_combinations(option.nodes) for option in domain.options)
    return (domain.size or 1) if isinstance(domain, Range) else 1


def _combinations(nodes: Sequence[Node]) -> Iterator[tuple[Params, frozenset[str]]]:
    """Every combination, with the keys of continuous ranges in it, which are at their low end."""
    for parts in itertools.product(*(list(_values(node)) for node in nodes)):
        flat: Params = {}
        continuous: frozenset[str] = frozenset()
        for values, keys in parts:
            flat |= values
            continuous |= keys
        yield flat, continuous


def _values(node: Node) -> Iterator[tuple[Params, frozenset[str]]]:
    domain = node.domain
    if isinstance(domain, Fixed):
        yield {node.key: domain.value}, frozenset()
    elif isinstance(domain, Choice):
        for option in domain.options:
            for flat, continuous in _combinations(option.nodes):
                yield {node.key: option.value, **flat}, continuous
    elif domain.size is None:
        yield {node.key: domain.low}, frozenset({node.key} if domain.low < domain.high else ())
    else:
        for value in domain.values():
            yield {node.key: value}, frozenset()


def _varied(flat: Params, continuous: frozenset[str], space: Space) -> Iterator[Params]:
    """The combination, and, as its continuous keys have no effect, itself with these at their other end."""
    yield flat
    if continuous:
        high = {node.key: node.domain.high for node in space.parameters() if isinstance(node.domain, Range)}
        yield {**flat, **{key: high[key] for key in continuous}}


def _plain(value: Any) -> Any:
    """A value that can be a part of a key; values of stepped ranges differ in their last bits."""
    if isinstance(value, list):
        return tuple(value)
    return float(f"{value:.12g}") if isinstance(value, float) else value
