"""Which configurations of a space may need the most memory: its corners, a random sample, and the enqueued points."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from search.space.domains import (
    Choice,
    Fixed,
    Node,
    Range,
    same_value,
)
from search.space.search import Search
from search.space.tree import Space, flatten
from segcore.config import TrainConfig
from segcore.params import Params, ParamValue

MOST_CORNERS = 4096
NUM_DRAWN = 64
_REDRAWS = 8

_DECIDING = (
    "model.", "train.batch_size", "train.micro_batch_size", "train.ema_decay", "train.precision", "optimizer.name",
    "optimizer.momentum", "optimizer.encoder_lr_factor",
)  # fmt: skip
_OF_NO_ACCOUNT = ("model.dropout", "model.encoder_weights")


def decides_memory(key: str) -> bool:
    """Whether a setting has a large effect on the memory of a training step."""
    return key.startswith(_DECIDING) and key not in _OF_NO_ACCOUNT


def candidates(search: Search) -> list[TrainConfig]:
    """Configurations of a space, the largest among them; no two agree in all settings that decide the memory.

    The first one is the config's own where the space holds it. The others are the points of `search.enqueue`; the ends
    of every range and all options of every choice that decides it, together in every way that the branches and `forbid`
    allow, up to `MOST_CORNERS`; and, since `forbid` may rule out the corners and leave what is near them, `NUM_DRAWN`
    random points. All else is at its largest in a corner: a loss with more terms takes more.
    """
    base, space = search.base, search.space
    rng = np.random.default_rng(0)
    own = space.defaults(base)
    points = [
        *([own] if own is not None else []),
        *search.enqueued_points(),
        *_allowed_corners(space, rng),
        *(flat for flat in (space.sample_uniform(rng) for _ in range(NUM_DRAWN)) if space.forbidden(flat) is None),
    ]
    found: dict[tuple[Any, ...], TrainConfig] = {}
    for flat in points:
        made = search.trained_with(flat)
        found.setdefault(tuple(repr(value) for key, value in flatten(made).items() if decides_memory(key)), made)
    return list(found.values())


def settings(config: TrainConfig, space: Space) -> str:
    """The searched settings that decide the memory, for the log."""
    values, searched = flatten(config), set(space.keys())
    named = [f"{key}={values[key]}" for key in values if decides_memory(key) and key in searched]
    batch = f"train.batch_size={config.train.batch_size}"
    return ", ".join(named if any(part.startswith("train.batch_size") for part in named) else [*named, batch])


def _allowed_corners(space: Space, rng: np.random.Generator) -> Iterator[Params]:
    for flat in itertools.islice(_corners(space.nodes), MOST_CORNERS):
        for attempt in range(_REDRAWS):
            tried = flat if attempt == 0 else _redrawn(space.nodes, flat, rng)
            if space.forbidden(tried) is None:
                yield tried
                break


def _corners(nodes: Sequence[Node]) -> Iterator[Params]:
    """Every way to put these nodes at an end, the upper ones first."""
    ways = [list(itertools.islice(_ends(node), MOST_CORNERS)) for node in nodes]
    for parts in itertools.product(*ways):
        yield {key: value for part in parts for key, value in part.items()}


def _ends(node: Node) -> Iterator[Params]:
    domain = node.domain
    if isinstance(domain, Fixed):
        yield {node.key: domain.value}
    elif isinstance(domain, Range):
        high, low = (int(end) if domain.integer else end for end in (domain.high, domain.low))
        yield {node.key: high}
        if decides_memory(node.key) and low != high:
            yield {node.key: low}
    else:
        for option in domain.options if _matters(node) else [_largest(domain)]:
            for below in _corners(option.nodes):
                yield {node.key: option.value, **below}


def _matters(node: Node) -> bool:
    """Whether what a choice picks, or brings with it, decides the memory."""
    below = [part for option in node.domain.options for part in option.nodes] if isinstance(node.domain, Choice) else []
    return decides_memory(node.key) or any(_matters(part) for part in below)


def _largest(domain: Choice) -> Any:
    numbers = [option for option in domain.options if isinstance(option.value, int | float)]
    return max(numbers, key=lambda option: option.value) if numbers else domain.options[-1]


def _redrawn(nodes: Sequence[Node], flat: Mapping[str, ParamValue], rng: np.random.Generator) -> Params:
    """The same corner with everything that does not affect the memory drawn anew."""
    found: Params = {}
    for node in nodes:
        domain = node.domain
        if isinstance(domain, Fixed):
            found[node.key] = domain.value
            continue
        keep = node.key in flat and (decides_memory(node.key) or _matters(node))
        found[node.key] = flat[node.key] if keep else domain.draw(rng)
        if isinstance(domain, Choice):
            option = next(option for option in domain.options if same_value(option.value, found[node.key]))
            found |= _redrawn(option.nodes, flat, rng)
    return found
