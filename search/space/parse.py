"""The declarative search space: the `space:` section of a config, checked against the config that it varies.

A key is a dotted config key, or a section that has a name to choose (`lr_scheduler`, `optimizer`, `model`, `augment`).
Its value is one of

    {uniform: [low, high]}         {loguniform: [low, high]}      {quniform: [low, high, step]}
    {int: [low, high]}             {int: [low, high], step: 2}    {choice: [a, b, c]}
    {choice: {a: {key: ...}, b: {}}}     branches with parameters of their own, to any depth

Beside a range or a choice, `prior: {center: VALUE, width: NUMBER}` says where good values are believed to lie.
`forbid:` lists expressions over dotted keys; a trial of which one is true is not proposed (see `search.space.forbid`).

Inside a branch a key is relative to the chosen key's section (`patience`) or absolute (`optimizer.lr`), and a plain
value there is set without being searched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from search.config.problems import (
    JsonSchema,
    Problem,
    leaf_keys,
    node_at,
    problems_of,
    rule_of,
)
from search.space.checks import (
    combinations,
    conflicts,
    named,
    within,
)
from search.space.domains import (
    Choice,
    Fixed,
    Node,
    Option,
    Range,
    Scalar,
)
from search.space.effects import idle_nodes
from search.space.forbid import check_rules, read_rules
from search.space.reader import (
    REFUSED,
    SECTIONS,
    SELECTORS,
    Reader,
)
from search.space.tree import Space, SpaceRow, flatten
from segcore.config import TrainConfig
from segcore.errors import ConfigError
from segcore.params import ParamValue

__all__ = [
    "Choice", "Fixed", "Node", "Option", "Range", "Scalar", "Space", "SpaceRow",
    "apply", "flatten", "parse_space", "read_space", "space_schema",
]  # fmt: skip


def parse_space(raw: Mapping[str, Any] | None, base: TrainConfig) -> Space:
    """The space of a config, every leaf checked against `base`.

    Raises:
        ConfigError: listing every problem with its dotted key.
    """
    space, problems = read_space(raw, base)
    if problems:
        raise ConfigError("\n".join(f"{problem.key}: {problem.message}" for problem in problems))
    return space


def read_space(raw: Mapping[str, Any] | None, base: TrainConfig) -> tuple[Space, list[Problem]]:
    """Like `parse_space`, but hands the problems back instead of raising; the space then holds what was sound."""
    reader = Reader(base)
    raw = {} if raw is None else raw
    parameters = {key: value for key, value in raw.items() if key != "forbid"} if isinstance(raw, Mapping) else raw
    nodes = reader.nodes(parameters, "space", "", ())
    if not reader.problems:
        for key in dict.fromkeys(conflicts(nodes)):
            message = "one trial could set it twice: by itself and in a branch, or in two choices; keep one"
            reader.refuse(f"space.{key}", message)
    if not reader.problems:
        reader.problems += _check_combinations(nodes, base)
        for idle in filter(lambda idle: idle.is_certain, idle_nodes(nodes, base)):
            reader.refuse(reader.paths[idle.node.key, idle.node.name], idle.message)
    space = Space(named(nodes))
    if isinstance(raw, Mapping) and raw.get("forbid") is not None:
        space = replace(space, rules=read_rules(raw["forbid"], reader, space.keys()))
        if not reader.problems:
            check_rules(space, reader)
    return space, reader.problems


def apply(base: TrainConfig, flat: Mapping[str, ParamValue]) -> TrainConfig:
    """The base config with the flat dotted keys set, validated as a whole.

    Raises:
        ConfigError: a key does not exist or a value breaks a rule.
    """
    tree = base.model_dump()
    for key, value in flat.items():
        *sections, leaf = key.split(".")
        here = tree
        for section in sections:
            here = here.setdefault(section, {})
        here[leaf] = value
    try:
        return TrainConfig.model_validate(tree)
    except ValidationError as error:
        found = problems_of(TrainConfig, tree, error).values()
        raise ConfigError("\n".join(f"{problem.key}: {problem.message}" for problem in found)) from error


def _check_combinations(nodes: Sequence[Node], base: TrainConfig) -> list[Problem]:
    """Rules between the keys of one section hold for every combination of choices."""
    problems: dict[tuple[str, str], Problem] = {}
    for section in sorted(SECTIONS):
        own = frozenset(key for key in leaf_keys(TrainConfig) if key.startswith(f"{section}."))
        for flat in combinations(within(nodes, own.__contains__)):
            values = {key: value for key, value in flat.items() if key in own}
            try:
                apply(base, values)
            except ConfigError as error:
                message = str(error).partition(": ")[2]
                settings = ", ".join(f"{key}={value}" for key, value in values.items())
                problem = Problem(f"space.{section}", f"a trial could have {settings}: {message}")
                problems.setdefault((section, message), problem)
    return list(problems.values())


def space_schema() -> tuple[JsonSchema, JsonSchema]:
    """JSON schema of the `space:` section, for editors.

    Returns:
        The section's schema, and the definitions that it refers to.
    """
    range_keys = {"uniform": 2, "loguniform": 2, "quniform": 3}
    near = _prior_schema({"type": "number"}, {"type": "number", "exclusiveMinimum": 0})
    branches = {"type": "object", "minProperties": 1, "additionalProperties": {"type": ["object", "null"]}}
    definitions = {
        "SpaceChoice": _form(
            choice={"anyOf": [{"type": "array", "minItems": 1}, branches]},
            prior=_prior_schema({}, {"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
        ),
        "SpaceDomain": {
            "anyOf": [
                *(_form(**{kind: _numbers("number", size), "prior": near}) for kind, size in range_keys.items()),
                _form(int=_numbers("integer", 2), step={"type": "integer", "minimum": 1}, prior=near),
                {"$ref": "#/$defs/SpaceChoice"},
            ]
        },
    }
    domain = {"$ref": "#/$defs/SpaceDomain"}
    keys = [key for key in leaf_keys(TrainConfig) if not any(key == no or key.startswith(f"{no}.") for no in REFUSED)]
    properties: dict[str, JsonSchema] = {
        "forbid": {
            "description": "Expressions over dotted keys; a trial of which one is true is not proposed.",
            "type": "array",
            "items": {"type": "string", "minLength": 1},
        }
    }
    for key in keys:
        node = node_at(TrainConfig, key.split(".")) or {}
        rule = rule_of(TrainConfig, node)
        properties[key] = {"description": f"{node.get('description', '')} ({rule})".strip(), **domain}
    for section in sorted(SECTIONS - {"data"}):
        nested = {key.partition(".")[2]: domain for key in keys if key.startswith(f"{section}.")}
        forms = [{"type": "object", "properties": nested, "additionalProperties": False}]
        choice = [{"$ref": "#/$defs/SpaceChoice"}] if section in SELECTORS else []
        properties[section] = {"anyOf": [*choice, *forms]}
    return {"type": "object", "properties": properties, "additionalProperties": False}, definitions


def _form(**keys: Any) -> JsonSchema:
    first = next(iter(keys))
    return {"type": "object", "properties": keys, "required": [first], "additionalProperties": False}


def _prior_schema(center: JsonSchema, width: JsonSchema) -> JsonSchema:
    return {
        "description": "Where good values are believed to lie.",
        "type": "object",
        "properties": {"center": center, "width": width},
        "required": ["center"],
        "additionalProperties": False,
    }


def _numbers(kind: str, size: int) -> JsonSchema:
    return {"type": "array", "items": {"type": kind}, "minItems": size, "maxItems": size}
