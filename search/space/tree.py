"""The parsed search space: a tree of ranges, choices and fixed values, asked define-by-run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.space.domains import (
    Choice,
    Fixed,
    Node,
    Option,
    Range,
    Scalar,
    plain,
    same_value,
)
from search.space.rules import Rule
from segcore.config import TrainConfig
from segcore.params import Params, ParamValue

if TYPE_CHECKING:
    import optuna
    from numpy.random import Generator

__all__ = ["Choice", "Fixed", "Node", "Option", "Range", "Scalar", "Space", "SpaceRow", "flatten", "same_value"]


@dataclass(frozen=True)
class SpaceRow:
    """One line of a space's description; `when` names the branch that it belongs to, empty at the top."""

    key: str
    values: str
    depth: int
    when: str


@dataclass(frozen=True)
class Space:
    """What a search varies. Parameter names in the study are the dotted keys.

    A key that several branches search over different ranges is several parameters, each named after its branch:
    `lr_scheduler.patience@plateau`. What a prior believes does not tell parameters apart: nodes of one name may have
    different priors.
    """

    nodes: tuple[Node, ...] = ()
    rules: tuple[Rule, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.nodes)

    def suggest(self, trial: "optuna.trial.BaseTrial") -> Params:
        """Asks the trial for every parameter that its own choices make reachable.

        Returns:
            Flat dotted key -> value, fixed values of the chosen branches included.
        """
        return _walk(self.nodes, lambda node: _suggest(node, trial))

    def to_params(self, flat: Mapping[str, ParamValue]) -> dict[str, Scalar]:
        """Flat dotted keys as the study's parameters, e.g. for `study.enqueue_trial`.

        Raises:
            KeyError: a reachable key is missing.
            ValueError: a value lies outside the space.
        """
        params: dict[str, Scalar] = {}

        def pick(node: Node) -> Any:
            value: Any = flat[node.key]
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

    def from_params(self, params: Mapping[str, ParamValue]) -> Params:
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
        return tuple(dict.fromkeys(node.key for node, _ in all_nodes(self.nodes)))

    def parameters(self) -> tuple[Node, ...]:
        """Every searched parameter once, those of branches included; without fixed values."""
        found = {node.name: node for node, _ in all_nodes(self.nodes) if not isinstance(node.domain, Fixed)}
        return tuple(found.values())

    def describe(self) -> list[SpaceRow]:
        """One row per key and branch, in the file's order, for printing."""
        return [
            SpaceRow(node.key, node.domain.describe(), len(when), ", ".join(when[-1:]))
            for node, when in all_nodes(self.nodes)
        ]

    @property
    def priors(self) -> tuple[Node, ...]:
        """Every node that has a prior, those of branches included."""
        return tuple(node for node, _ in all_nodes(self.nodes) if node.prior is not None)

    def sample_uniform(self, rng: "Generator") -> Params:
        """A random point, each parameter even on its own scale; forbid expressions are not asked.

        Returns:
            Flat dotted key -> value, as `suggest` does.
        """

        def pick(node: Node) -> Any:
            return None if isinstance(node.domain, Fixed) else node.domain.draw(rng)

        return _walk(self.nodes, pick)

    def sample_prior(self, rng: "Generator") -> Params:
        """Like `sample_uniform`, but a parameter that has a prior is drawn from it."""

        def pick(node: Node) -> Any:
            return None if isinstance(node.domain, Fixed) else node.domain.draw(rng, node.prior)

        return _walk(self.nodes, pick)

    def forbidden(self, flat: Mapping[str, ParamValue]) -> str | None:
        """The forbid expression that is true of a trial, or None; a key that the trial does not set is the config's."""
        return next((rule.text for rule in self.rules if rule.holds(flat)), None)

    def defaults(self, base: TrainConfig) -> Params | None:
        """The base config's own values as one point of the space, or None if they lie outside it or are forbidden."""
        try:
            return self.own_point(base)
        except ValueError:
            return None

    def own_point(self, base: TrainConfig) -> Params:
        """Like `defaults`.

        Raises:
            ValueError: The config's own values are not a point of the space; names the value and the reason.
        """
        own = flatten(base)
        flat = _walk(self.nodes, lambda node: own[node.key])
        self.to_params(flat)
        for key, value in flat.items():
            if not same_value(value, own[key]):
                raise ValueError(f"{key} is {plain(own[key])}, and its branch sets it to {plain(value)}")
        forbidden = self.forbidden(flat)
        if forbidden is not None:
            raise ValueError(f"they are forbidden by `{forbidden}`")
        return flat


def flatten(config: TrainConfig) -> Params:
    """Every leaf of the config under its dotted key."""
    flat: Params = {}

    def visit(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                visit(part, (*path, key))
        else:
            flat[".".join(path)] = value

    visit(config.model_dump(), ())
    return flat


def _walk(nodes: Sequence[Node], pick: Callable[[Node], Any]) -> Params:
    """Goes down the branches that `pick` chooses and collects every value."""
    flat: Params = {}
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


def all_nodes(nodes: Sequence[Node], when: tuple[str, ...] = ()) -> Iterator[tuple[Node, tuple[str, ...]]]:
    """Every node, each with the choices that make it reachable, outermost first: `("optimizer.name = sgd",)`."""
    for node in nodes:
        yield node, when
        if isinstance(node.domain, Choice):
            for option in node.domain.options:
                yield from all_nodes(option.nodes, (*when, f"{node.key} = {option.label}"))
