"""What there is to say about a config's space before anything runs: its tree, its size, and what points look like."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from search.config.tree import SearchConfig
from search.space.domains import (
    Choice,
    Fixed,
    Node,
    Prior,
    Range,
    plain,
    same_value,
)
from search.space.effects import idle_nodes
from search.space.forbid import NUM_POINTS, telling_points, uniform_points
from search.space.search import Search
from search.space.tree import Space, all_nodes

_TRIES_PER_SAMPLE = 500


class Size(NamedTuple):
    """How large a space is: combinations of its discrete values, and the continuous dimensions beside them.

    How many continuous dimensions a trial has depends on its branches: from `min_continuous` to `max_continuous`.
    """

    combinations: int
    min_continuous: int
    max_continuous: int


def size_of(nodes: Sequence[Node]) -> Size:
    """The size of a space or of a branch: parameters multiply, the branches of a choice add up."""
    size = Size(1, 0, 0)
    for node in nodes:
        part = _size(node)
        size = Size(size[0] * part[0], size[1] + part[1], size[2] + part[2])
    return size


def _size(node: Node) -> Size:
    domain = node.domain
    if isinstance(domain, Choice):
        branches = [size_of(option.nodes) for option in domain.options]
        return Size(
            sum(branch.combinations for branch in branches),
            min(branch.min_continuous for branch in branches),
            max(branch.max_continuous for branch in branches),
        )
    if isinstance(domain, Range) and domain.size is None:
        return Size(1, 1, 1)
    return Size((domain.size or 1) if isinstance(domain, Range) else 1, 0, 0)


def survey(config: SearchConfig, num_samples: int, seed: int) -> dict[str, Any]:
    """Everything that `segsearch space` prints, as plain values.

    Args:
        config: A checked config.
        num_samples: How many random points to show: drawn from the priors where there are any, forbidden ones left out.
        seed: Of those points.

    Returns:
        `keys` in the file's order, `parameters` (the tree), `size`, `forbid` (with the share of random points that each
        expression rules out), `first` and `enqueued` (flat points), `samples`, and `warnings`.
    """
    search = Search.of(config)
    base, space = search.base, search.space
    points = uniform_points(space, NUM_POINTS)
    samples = _allowed(space, num_samples, seed)
    try:
        first, why = space.own_point(base), None
    except ValueError as error:
        first, why = None, str(error)
    warnings = [f"{idle.node.key} {idle.message}" for idle in idle_nodes(space.nodes, base)]
    warnings += _rule_warnings(space)
    if space and len(samples) < num_samples:
        found = f"only {len(samples)} of {_TRIES_PER_SAMPLE * num_samples} random points are allowed by forbid"
        warnings.append(f"{found}; shrink the ranges instead, so that the search need not throw away its proposals")
    size = size_of(space.nodes)
    if space and not size.max_continuous and size.combinations < config.search.num_samples:
        warnings.append(f"search.num_samples is {config.search.num_samples}, but there are {size.combinations} points")
    return {
        "name": config.name,
        "keys": list(space.keys()),
        "parameters": [_parameter(node) for node in space.nodes],
        "size": size._asdict(),
        "forbid": [
            {"expression": rule.text, "share": float(np.mean([rule.holds(point) for point in points]))}
            for rule in space.rules
        ],
        "forbidden_share": float(np.mean([space.forbidden(point) is not None for point in points])),
        "first": first,
        "why_no_first": why,
        "enqueued": search.enqueued_points(),
        "samples": samples,
        "warnings": warnings,
    }


def _allowed(space: Space, count: int, seed: int) -> list[dict[str, Any]]:
    """Random points that no expression forbids; fewer than asked for where they are too rare."""
    rng = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    for _ in range(_TRIES_PER_SAMPLE * count if space else 0):
        point = space.sample_prior(rng)
        if space.forbidden(point) is None:
            found.append(point)
        if len(found) == count:
            break
    return found


def _rule_warnings(space: Space) -> list[str]:
    if not space.rules:
        return []
    warnings = []
    every = telling_points(space)
    for rule in space.rules:
        if not any(rule.holds(point) for point in every):
            warnings.append(
                f"forbid `{rule.text}` is true of none of {NUM_POINTS:,} random points; is it spelled right?"
            )
    allowed = [point for point in every if space.forbidden(point) is None]
    for node, _ in all_nodes(space.nodes):
        for option in node.domain.options if isinstance(node.domain, Choice) else ():
            tried, left = (
                any(node.key in point and same_value(point[node.key], option.value) for point in among)
                for among in (every, allowed)
            )
            if tried and not left:
                message = f"{node.key} = {plain(option.value)} is ruled out by forbid; take it out of the choice"
                warnings.append(message)
    return list(dict.fromkeys(warnings))


def _parameter(node: Node) -> dict[str, Any]:
    domain = node.domain
    record: dict[str, Any] = {
        "key": node.key,
        "name": node.name,
        "values": domain.describe(),
        "prior": _prior(domain, node.prior) if node.prior else None,
    }
    if isinstance(domain, Choice):
        record["options"] = [
            {
                "value": option.value,
                "size": size_of(option.nodes)._asdict(),
                "parameters": [_parameter(below) for below in option.nodes],
            }
            for option in domain.options
        ]
    return record


def _prior(domain: Range | Choice | Fixed, prior: Prior) -> dict[str, Any]:
    if isinstance(domain, Choice):
        text = f"{plain(prior.center)} {1 - prior.width:.0%}, the others {prior.width:.0%}"
    elif isinstance(domain, Range) and domain.log:
        text = f"around {prior.center:g}, width {prior.width:.3g} decades"
    else:
        text = f"around {prior.center:g}, width {prior.width:.3g}"
    return {"center": prior.center, "width": prior.width, "text": text}
