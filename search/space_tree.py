"""The parsed search space: a tree of ranges, choices and fixed values, asked define-by-run."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from segcore.config import TrainConfig

if TYPE_CHECKING:
    import optuna

DOMAINS = ("uniform", "loguniform", "quniform", "int", "choice", "step")
Scalar: TypeAlias = bool | int | float | str | None


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `step` is None for a continuous range."""

    low: float
    high: float
    integer: bool = False
    log: bool = False
    step: float | None = None

    def describe(self) -> str:
        """For a table: `1e-05 to 0.01, log`."""
        kind = [
            "whole numbers" if self.integer else "",
            "log" if self.log else "",
            f"step {self.step:g}" if self.step else "",
        ]
        return ", ".join([f"{self.low:g} to {self.high:g}", *filter(None, kind)])

    def holds(self, value: object) -> bool:
        """Whether the range can yield the value."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return False
        if self.integer and value != int(value):
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return math.isclose(steps, round(steps), abs_tol=1e-9)


@dataclass(frozen=True)
class Option:
    """One value of a choice and what it brings with it."""

    value: Any
    nodes: tuple["Node", ...] = ()

    @property
    def label(self) -> Scalar:
        """The value as Optuna stores it: a list becomes its JSON text."""
        return json.dumps(self.value) if isinstance(self.value, (list, tuple)) else self.value


@dataclass(frozen=True)
class Choice:
    """One of several values, each with parameters of its own."""

    options: tuple[Option, ...]

    def describe(self) -> str:
        """For a table: `adamw | sgd`."""
        return " | ".join("null" if option.label is None else str(option.label) for option in self.options)

    def option(self, value: object) -> Option | None:
        """The option with this value, or None."""
        return next((option for option in self.options if same_value(option.value, value)), None)


@dataclass(frozen=True)
class Fixed:
    """A value that a branch sets without searching it."""

    value: Any

    def describe(self) -> str:
        """For a table: `= 0.9`."""
        return f"= {json.dumps(self.value)}"


@dataclass(frozen=True)
class Node:
    """A dotted config key, where its values come from, and its name in the study."""

    key: str
    domain: Range | Choice | Fixed
    name: str


@dataclass(frozen=True)
class SpaceRow:
    """One line of a space's description; `when` names the branch that it belongs to, empty at the top."""

    key: str
    values: str
    depth: int
    when: str


def same_value(a: object, b: object) -> bool:
    """Equality that tells true from 1 and takes a list for a tuple."""
    a, b = (list(x) if isinstance(x, tuple) else x for x in (a, b))
    return isinstance(a, bool) == isinstance(b, bool) and a == b


@dataclass(frozen=True)
class Space:
    """What a search varies. Parameter names in the study are the dotted keys.

    A key that several branches search over different ranges is several parameters, each named after its branch:
    `lr_scheduler.patience@plateau`.
    """

    nodes: tuple[Node, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.nodes)

    def suggest(self, trial: "optuna.trial.BaseTrial") -> dict[str, Any]:
        """Asks the trial for every parameter that its own choices make reachable.

        Returns:
            Flat dotted key -> value, fixed values of the chosen branches included.
        """
        return _walk(self.nodes, lambda node: _suggest(node, trial))

    def to_params(self, flat: Mapping[str, Any]) -> dict[str, Scalar]:
        """Flat dotted keys as the study's parameters, e.g. for `study.enqueue_trial`.

        Raises:
            KeyError: a reachable key is missing.
            ValueError: a value lies outside the space.
        """
        params: dict[str, Scalar] = {}

        def pick(node: Node) -> Any:
            value = flat[node.key]
            if isinstance(node.domain, Choice):
                option = node.domain.option(value)
                if option is None:
                    raise ValueError(f"{node.key}={value!r} is not one of {node.domain.describe()}")
                params[node.name] = option.label
                return option.value
            if isinstance(node.domain, Range) and not node.domain.holds(value):
                raise ValueError(f"{node.key}={value!r} is not in {node.domain.describe()}")
            is_integer = isinstance(node.domain, Range) and node.domain.integer
            params[node.name] = int(value) if is_integer else value
            return value

        _walk(self.nodes, pick)
        return params

    def from_params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The study's parameters as flat dotted keys with their real values; the inverse of `to_params`.

        Raises:
            KeyError: a reachable parameter is missing.
            ValueError: a choice holds a value that this space does not have.
        """

        def pick(node: Node) -> Any:
            value = params[node.name]
            return _by_label(node, value) if isinstance(node.domain, Choice) else value

        return _walk(self.nodes, pick)

    def keys(self) -> tuple[str, ...]:
        """Every dotted key that some trial may set, in the file's order."""
        return tuple(dict.fromkeys(node.key for node, _ in _all_nodes(self.nodes)))

    def parameters(self) -> tuple[Node, ...]:
        """Every searched parameter once, those of branches included; without fixed values."""
        found = {node.name: node for node, _ in _all_nodes(self.nodes) if not isinstance(node.domain, Fixed)}
        return tuple(found.values())

    def describe(self) -> list[SpaceRow]:
        """One row a key and branch, in the file's order, for printing."""
        return [
            SpaceRow(node.key, node.domain.describe(), len(when), ", ".join(when[-1:]))
            for node, when in _all_nodes(self.nodes)
        ]

    def defaults(self, base: TrainConfig) -> dict[str, Any] | None:
        """The base config's own values as one point of the space, or None if they lie outside it."""
        own = flatten(base)
        try:
            flat = _walk(self.nodes, lambda node: own[node.key])
            self.to_params(flat)
        except ValueError:
            return None
        return flat if all(same_value(value, own[key]) for key, value in flat.items()) else None


def flatten(config: TrainConfig) -> dict[str, Any]:
    """Every leaf of the config under its dotted key."""
    flat: dict[str, Any] = {}

    def visit(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                visit(part, (*path, key))
        else:
            flat[".".join(path)] = value

    visit(config.model_dump(), ())
    return flat


def _walk(nodes: Sequence[Node], pick: Callable[[Node], Any]) -> dict[str, Any]:
    """Goes down the branches that `pick` chooses and collects every value."""
    flat: dict[str, Any] = {}
    for node in nodes:
        if isinstance(node.domain, Fixed):
            flat[node.key] = node.domain.value
            continue
        flat[node.key] = pick(node)
        if isinstance(node.domain, Choice):
            option = node.domain.option(flat[node.key])
            if option is None:
                raise ValueError(f"{node.key}={flat[node.key]!r} is not one of {node.domain.describe()}")
            flat |= _walk(option.nodes, pick)
    return flat


def _suggest(node: Node, trial: "optuna.trial.BaseTrial") -> Any:
    domain = node.domain
    if isinstance(domain, Choice):
        return _by_label(node, trial.suggest_categorical(node.name, [option.label for option in domain.options]))
    if not isinstance(domain, Range):
        raise TypeError(f"{node.key} is fixed, not searched")
    if domain.integer:
        return trial.suggest_int(node.name, int(domain.low), int(domain.high), step=int(domain.step or 1))
    return trial.suggest_float(node.name, domain.low, domain.high, step=domain.step, log=domain.log)


def _by_label(node: Node, label: object) -> Any:
    options = node.domain.options if isinstance(node.domain, Choice) else ()
    for option in options:
        if same_value(option.label, label):
            return option.value
    raise ValueError(f"{node.key}={label!r} is not one of {node.domain.describe()}")


def _all_nodes(nodes: Sequence[Node], when: tuple[str, ...] = ()) -> Iterator[tuple[Node, tuple[str, ...]]]:
    for node in nodes:
        yield node, when
        if isinstance(node.domain, Choice):
            for option in node.domain.options:
                yield from _all_nodes(option.nodes, (*when, f"{node.key} = {option.label}"))
