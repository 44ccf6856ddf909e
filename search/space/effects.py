"""Which searched keys do nothing, because another setting makes training ignore them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.space.domains import (
    Choice,
    Fixed,
    Node,
    plain,
)
from search.space.tree import flatten
from segcore.component import Registry
from segcore.config import AugmentConfig, TrainConfig
from segcore.params import ParamValue
from segcore.registries import ARCHITECTURES, LOSSES, OPTIMIZERS, SCHEDULES

_AUGMENT = tuple(f"augment.{key}" for key in AugmentConfig.model_fields if key != "policy")


def _by_choice(registry: Registry[Any]) -> dict[Any, tuple[str, ...]]:
    """Which keys each component makes idle, those that make none left out."""
    return {name: keys for name in registry.names if (keys := registry.idle_with(name))}


def _by_weight() -> dict[str, dict[Any, tuple[str, ...]]]:
    """A loss term of weight 0 makes the options idle that only it reads."""
    table = {}
    for term in LOSSES:
        own = tuple(
            LOSSES.key_of(option.name) for option in term.options if LOSSES.readers(option.name) == (term.name,)
        )
        if own:
            table[f"loss.{term.name}"] = {0.0: own}
    return table


IGNORED_BY: dict[str, dict[Any, tuple[str, ...]]] = {
    SCHEDULES.key: _by_choice(SCHEDULES),
    ARCHITECTURES.key: _by_choice(ARCHITECTURES),
    OPTIMIZERS.key: _by_choice(OPTIMIZERS),
    "model.encoder": {"none": ("optimizer.encoder_lr_factor",), "timm": ("model.base_channels", "model.depth")},
    "augment.policy": {"none": _AUGMENT, "flip": ("augment.scale", "augment.rotate", "augment.color")},
    **_by_weight(),
}
"""Key -> its value -> the keys that training then does not read; `timm` is any encoder of timm's.

`model.encoder_weights` is not here: without an encoder it must be `none`, which the config checks by itself.
"""

_SOME_NUMBER = "a number"  # a range: no single value that would make anything ignored
Values = frozenset[Any]


@dataclass(frozen=True)
class Idle:
    """A node whose value training ignores, in all trials that set it or in some."""

    node: Node
    selector: str
    values: tuple[Any, ...]
    is_certain: bool

    @property
    def message(self) -> str:
        """One line for an error or a warning, without the key."""
        values = " or ".join(map(plain, self.values))
        if self.is_certain:
            return f"has no effect, as {self.selector} is {values} wherever it is set"
        return f"has no effect in trials with {self.selector} = {values}; give it to the branches that use it"


def idle_nodes(nodes: Sequence[Node], base: TrainConfig) -> list[Idle]:
    """Every node that some setting of a trial makes idle, in the file's order."""
    own = flatten(base)
    return list(_idle(nodes, {selector: frozenset({own[selector]}) for selector in IGNORED_BY}))


def ignored_keys(flat: Mapping[str, ParamValue]) -> frozenset[str]:
    """The keys that training does not read with these settings, which hold every dotted key of a config."""
    return frozenset(key for selector, table in IGNORED_BY.items() for key in table.get(_row(flat[selector]), ()))


def _idle(nodes: Sequence[Node], outer: Mapping[str, Values]) -> Iterator[Idle]:
    """`outer` holds the values that each selector may have where these nodes do not set it."""
    here = {selector: _values_of(selector, nodes, values) for selector, values in outer.items()}
    for node in nodes:
        for selector, values in here.items():
            idle = tuple(value for value in values if node.key in IGNORED_BY[selector].get(_row(value), ()))
            if idle:
                yield Idle(node, selector, tuple(sorted(idle, key=str)), len(idle) == len(values))
                break
        if isinstance(node.domain, Choice):
            others = [other for other in nodes if other is not node]
            around = {selector: _values_of(selector, others, values) for selector, values in outer.items()}
            for option in node.domain.options:
                chosen = {node.key: frozenset({option.value})} if node.key in IGNORED_BY else {}
                yield from _idle(option.nodes, {**around, **chosen})


def _values_of(selector: str, nodes: Sequence[Node], default: Values) -> Values:
    """What a key may be in the trials that reach these nodes."""
    for node in nodes:
        domain = node.domain
        if node.key == selector:
            if isinstance(domain, Choice):
                return frozenset(option.value for option in domain.options)
            return frozenset({domain.value if isinstance(domain, Fixed) else _SOME_NUMBER})
        if isinstance(domain, Choice):
            below = [_values_of(selector, option.nodes, default) for option in domain.options]
            if any(values is not default for values in below):
                return frozenset().union(*below)
    return default


def _row(value: Any) -> Any:
    return "timm" if isinstance(value, str) and value.startswith("timm:") else value
