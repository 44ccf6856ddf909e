"""The points that a search starts from: `search.enqueue`, completed and checked against the space."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from search.config.problems import (
    Problem,
    leaf_keys,
    nearest,
    node_at,
    shown,
    unknown_key,
    value_problem,
)
from search.space.domains import (
    Choice,
    Fixed,
    Node,
    plain,
    same_value,
)
from search.space.reader import SECTIONS, SELECTORS, Reader
from search.space.tree import Space, all_nodes, flatten
from segcore.config import TrainConfig
from segcore.errors import ConfigError
from segcore.params import Params, ParamValue

if TYPE_CHECKING:
    from search.config.tree import SearchConfig


def enqueued_points(config: "SearchConfig", space: Space) -> list[Params]:
    """The points of `search.enqueue` in their order, each with a value for every key that its branches search or set.

    Raises:
        ConfigError: One is not a point of the space; lists every problem of them all.
    """
    points, problems = read_points(config.search.enqueue, space, config.train_config())
    if problems:
        raise ConfigError("\n".join(f"{problem.key}: {problem.message}" for problem in problems))
    return points


def read_points(
    raw: Sequence[Mapping[str, Any]], space: Space, base: TrainConfig
) -> tuple[list[Params], list[Problem]]:
    """The points that are sound, and the problems of the others.

    Args:
        raw: The points as the file has them.
        space: The space.
        base: The config that the space varies.
    """
    points: list[Params] = []
    problems: list[Problem] = []
    places: list[str] = []
    for index, given in enumerate(raw):
        path = f"search.enqueue[{index}]"
        point = _Point(space, base, path)
        flat = point.complete(given)
        if not point.problems and flat in points:
            point.refuse("", f"is the same point as {places[points.index(flat)]}; keep one")
        problems += point.problems
        if not point.problems:
            points.append(flat)
            places.append(path)
    return points, problems


class _Point:
    """Completes one point, and collects what is wrong with it."""

    def __init__(self, space: Space, base: TrainConfig, path: str) -> None:
        self.problems: list[Problem] = []
        self._space = space
        self._path = path
        self._reader = Reader(base)
        self._own = flatten(base)
        self._spelled: dict[str, str] = {}
        self._undecided: set[str] = set()

    def refuse(self, key: str, message: str) -> None:
        """Notes a problem with a key, as the file spells it; the empty key means the whole point."""
        spelled = self._spelled.get(key, key)
        self.problems.append(Problem(f"{self._path}.{spelled}" if spelled else self._path, message))

    def complete(self, raw: Mapping[str, Any]) -> Params:
        """The point with every key that it needs; not to be used if there are problems."""
        given = self._values(raw)
        flat = self._follow(self._space.nodes, given)
        for key in given:
            if key not in flat and key not in self._undecided:
                self._refuse_left_over(key, given[key], flat)
        if not self.problems:
            forbidden = self._space.forbidden(flat)
            if forbidden is not None:
                self.refuse("", f"is ruled out by space.forbid: `{forbidden}`")
        return flat

    def _values(self, raw: Mapping[str, Any]) -> Params:
        """Dotted key -> value as its field takes it."""
        flat: Params = {}
        for name, value in raw.items():
            nested = name in SECTIONS and isinstance(value, Mapping)
            for spelled, part in ((f"{name}.{leaf}", v) for leaf, v in value.items()) if nested else ((name, value),):
                key = f"{spelled}.{SELECTORS[spelled]}" if spelled in SELECTORS else spelled
                known = key in leaf_keys(TrainConfig)
                if key in self._spelled:
                    message = f"is given twice, as {self._spelled[key]} too; keep one"
                    self.problems.append(Problem(f"{self._path}.{spelled}", message))
                    continue
                self._spelled[key] = spelled
                taken = self._reader.taken(key, part) if known else None
                parts = tuple(key.split("."))
                if not known:
                    self.refuse(key, unknown_key(TrainConfig, parts if node_at(TrainConfig, parts[:-1]) else (key,)))
                elif taken is None:
                    self.refuse(key, value_problem(TrainConfig, parts, part))
                    self._give_up(node for node, _ in all_nodes(self._space.nodes) if node.key == key)
                else:
                    flat[key] = taken[0]
        return flat

    def _follow(self, nodes: Sequence[Node], given: Mapping[str, ParamValue]) -> Params:
        """Goes down the branches that the point chooses."""
        flat: Params = {}
        for node in nodes:
            if node.key in self._undecided and node.key not in given:
                continue
            value = given.get(node.key, node.domain.value if isinstance(node.domain, Fixed) else self._own[node.key])
            message = self._problem_with(node, value, is_given=node.key in given)
            if message:
                self.refuse(node.key, message)
                self._give_up([node])
                continue
            flat[node.key] = value
            option = node.domain.option(value) if isinstance(node.domain, Choice) else None
            if option is not None:
                flat[node.key] = option.value
                flat |= self._follow(option.nodes, given)
        return flat

    def _problem_with(self, node: Node, value: Any, *, is_given: bool) -> str | None:
        domain = node.domain
        if isinstance(domain, Fixed):
            return (
                None
                if same_value(value, domain.value)
                else f"found {shown(value)}; its branch sets {plain(domain.value)}"
            )
        if domain.holds(value):
            return None
        where = f"valid: {domain.describe()}"
        if not is_given:
            return f"is missing, and the config's own value {plain(value)} lies outside the space; {where}"
        guess = nearest(value, domain.describe().split(" | ")) if isinstance(value, str) else None
        return f"found {shown(value)}; {where}{f'; did you mean {guess}?' if guess else ''}"

    def _give_up(self, nodes: Any) -> None:
        """Skips the keys below a choice without a valid value: they are neither needed nor wrong."""
        self._undecided |= {node.key for node, _ in all_nodes(tuple(nodes))}

    def _refuse_left_over(self, key: str, value: Any, flat: Mapping[str, ParamValue]) -> None:
        branches = [when[-1] for node, when in all_nodes(self._space.nodes) if node.key == key and when]
        if branches:
            chosen = {branch.partition(" = ")[0] for branch in branches} & set(flat)
            here = ", ".join(f"{selector} = {plain(flat[selector])}" for selector in sorted(chosen))
            found = f"this point has {here}" if here else "this point does not get there"
            self.refuse(key, f"belongs to {' or '.join(dict.fromkeys(branches))}, and {found}; leave it out")
        elif not same_value(value, self._own[key]):
            own = plain(self._own[key])
            self.refuse(key, f"is not searched, every trial has it {own}; give it a range in space, or leave it out")
