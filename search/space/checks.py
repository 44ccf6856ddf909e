"""Checks of a whole space: no key set twice, names for the study, and the combinations that trials can have."""

import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from search.space.domains import (
    Choice,
    Fixed,
    Node,
    Range,
)
from segcore.params import Params

_MAX_COMBINATIONS = 2048


def _assigned(nodes: Sequence[Node]) -> frozenset[str]:
    keys = {node.key for node in nodes}
    for node in nodes:
        if isinstance(node.domain, Choice):
            keys |= {key for option in node.domain.options for key in _assigned(option.nodes)}
    return frozenset(keys)


def conflicts(nodes: Sequence[Node], above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Keys that one trial could set twice."""
    counts = Counter(key for node in nodes for key in _assigned([node]))
    yield from (key for key, count in counts.items() if count > 1 or key in above)
    for node in nodes:
        if isinstance(node.domain, Choice):
            for option in node.domain.options:
                yield from conflicts(option.nodes, above | {node.key})


def named(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Names each parameter by its key, or by key and branch where branches differ in what they search."""
    kinds: defaultdict[str, set[Any]] = defaultdict(set)

    def visit(nodes: Sequence[Node]) -> None:
        for node in nodes:
            if isinstance(node.domain, Choice):
                kinds[node.key].add(tuple((type(option.label), option.label) for option in node.domain.options))
                for option in node.domain.options:
                    visit(option.nodes)
            elif isinstance(node.domain, Range):
                kinds[node.key].add(node.domain)

    def rename(node: Node) -> Node:
        name = f"{node.key}@{node.name}" if len(kinds[node.key]) > 1 and node.name else node.key
        domain = node.domain
        if isinstance(domain, Choice):
            domain = Choice(tuple(replace(o, nodes=tuple(map(rename, o.nodes))) for o in domain.options))
        return replace(node, domain=domain, name=name)

    visit(nodes)
    return tuple(map(rename, nodes))


def within(nodes: Sequence[Node], is_wanted: Callable[[str], bool]) -> tuple[Node, ...]:
    """The part of the tree that the wanted keys depend on."""
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node.domain, Choice):
            options = tuple(replace(option, nodes=within(option.nodes, is_wanted)) for option in node.domain.options)
            if is_wanted(node.key) or any(option.nodes for option in options):
                kept.append(replace(node, domain=Choice(options)))
        elif is_wanted(node.key):
            kept.append(node)
    return tuple(kept)


def combinations(nodes: Sequence[Node]) -> Iterator[Params]:
    """Every combination of choices and fixed values, or a seeded sample where there are too many.

    A range stands for its ends where a trial can hit them (stepped ones), else for its middle.
    """
    if _count(nodes) <= _MAX_COMBINATIONS:
        yield from _every(nodes)
        return
    rng = random.Random(0)
    for _ in range(_MAX_COMBINATIONS):
        yield _one(nodes, rng)


def _points(domain: Range | Fixed) -> list[Any]:
    if isinstance(domain, Fixed):
        return [domain.value]
    return [domain.low, domain.high] if domain.integer or domain.step else [(domain.low + domain.high) / 2]


def _count(nodes: Sequence[Node]) -> int:
    return math.prod(
        sum(_count(option.nodes) for option in node.domain.options)
        if isinstance(node.domain, Choice)
        else len(_points(node.domain))
        for node in nodes
    )


def _every(nodes: Sequence[Node]) -> Iterator[Params]:
    def alternatives(node: Node) -> list[Params]:
        if isinstance(node.domain, Choice):
            return [{node.key: o.value, **rest} for o in node.domain.options for rest in _every(o.nodes)]
        return [{node.key: value} for value in _points(node.domain)]

    for parts in itertools.product(*map(alternatives, nodes)):
        yield {key: value for part in parts for key, value in part.items()}


def _one(nodes: Sequence[Node], rng: random.Random) -> Params:
    flat: Params = {}
    for node in nodes:
        if isinstance(node.domain, Choice):
            option = rng.choice(node.domain.options)
            flat |= {node.key: option.value, **_one(option.nodes, rng)}
        else:
            flat[node.key] = rng.choice(_points(node.domain))
    return flat
