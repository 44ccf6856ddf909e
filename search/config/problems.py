"""Problems of a config file: one line each, with the dotted key, what was found and what is valid.

What is valid is read from the JSON schema of the typed tree, so a message cannot drift from the rule it states.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

JsonSchema: TypeAlias = Mapping[str, Any]
"""A JSON schema, or a node of one."""
Path = tuple[str | int, ...]

_SECRET_KEY = re.compile(
    r"(token|secret|passw(or)?d|credential|api_?key|access_?key|auth_?key|private_?key)s?(_?value)?$|^(key|auth|oauth)$"
)
_SECRET_VALUE = re.compile(r"^(y[0-3]_)?[A-Za-z0-9_\-]{32,}$|^y[0-3]_|^wandb_v1_")
_OTHER_WORDS = {
    "learning_rate": "optimizer.lr",
    "architecture": "model.arch",
    "backbone": "model.encoder",
    "pretrained": "model.encoder_weights",
    "num_epochs": "train.epochs",
    "max_epochs": "train.epochs",
    "num_trials": "search.num_samples",
    "n_trials": "search.num_samples",
    "trials": "search.num_samples",
    "gpus": "resources.gpus_per_trial",
    "cpus": "resources.cpus_per_trial",
    "wandb": "tracking.wandb",
    "output_dir": "results",
}


@dataclass(frozen=True)
class Problem:
    """One broken rule: the dotted key it is about, and what to say."""

    key: str
    message: str


def shown(value: object) -> str:
    """A value as it may be echoed: short, on one line, and never something that looks like a token."""
    if isinstance(value, str) and _SECRET_VALUE.search(value):
        return f"a text of {len(value)} characters"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = "a map" if isinstance(value, Mapping) else repr(value)
    if isinstance(value, Mapping) and value and all(isinstance(key, str) for key in value):
        text = f"a map with {', '.join(list(value)[:6])}"
    if isinstance(value, (list, tuple)) and any(isinstance(part, str) and _SECRET_VALUE.search(part) for part in value):
        text = f"a list of {len(value)}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def dotted(path: Sequence[str | int]) -> str:
    """`("export", "targets", 0)` as `export.targets.0`."""
    return ".".join(str(part) for part in path)


def nearest(name: str, valid: Sequence[str]) -> str | None:
    """The valid name that `name` most likely meant, or None."""
    folded = {option.lower().replace("-", "_"): option for option in valid}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


@cache
def schema_of(model: type[BaseModel]) -> JsonSchema:
    """The model's JSON schema, computed once."""
    return model.model_json_schema()


def _resolved(model: type[BaseModel], node: JsonSchema) -> JsonSchema:
    while "$ref" in node:
        node = schema_of(model)["$defs"][str(node["$ref"]).rsplit("/", 1)[-1]]
    return node


def _properties(model: type[BaseModel], node: JsonSchema) -> JsonSchema:
    """The keys of a section, also of one that may be null."""
    options = (_resolved(model, option) for option in (node, *node.get("anyOf", ())))
    return next((option["properties"] for option in options if "properties" in option), {})


def node_at(model: type[BaseModel], path: Sequence[str | int]) -> JsonSchema | None:
    """The schema of a key of the model, with references resolved; None if there is no such key."""
    node = schema_of(model)
    for part in path:
        if isinstance(part, int):
            child = (node.get("prefixItems") or [])[part : part + 1]
            child = child[0] if child else node.get("items")
        else:
            child = _properties(model, node).get(part)
        if not isinstance(child, Mapping):
            return None
        node = _resolved(model, child)
    return node


def leaf_keys(model: type[BaseModel]) -> tuple[str, ...]:
    """Every dotted key of the model that holds a value rather than a section."""
    return tuple(dotted(path) for path, node in _keys(model) if "properties" not in node)


def _keys(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], JsonSchema]]:
    node = node_at(model, path) or {}
    if path:
        yield path, node
    for name in _properties(model, node):
        yield from _keys(model, (*path, name))


def rule_of(model: type[BaseModel], node: JsonSchema) -> str:
    """What a value must be, in words: `a number above 0`, `one of adamw, sgd, nadam`."""
    node = _resolved(model, node)
    if "anyOf" in node:
        outer = {"description": node["description"]} if "description" in node else {}
        return " or ".join(dict.fromkeys(rule_of(model, {**outer, **option}) for option in node["anyOf"]))
    if "enum" in node:
        return f"one of {', '.join(map(str, node['enum']))}"
    if "const" in node:
        return str(node["const"])
    kind = node.get("type")
    if kind == "object" and "properties" in node:
        names = ", ".join(node["properties"])
        return f"a map with exactly one of {names}" if node.get("maxProperties") == 1 else f"a map with {names}"
    if kind == "array" and "prefixItems" in node:
        rules = " and ".join(dict.fromkeys(rule_of(model, item) for item in node["prefixItems"]))
        return f"a list of {len(node['prefixItems'])}, each {rules}"
    if kind == "array":
        return f"a list, each {rule_of(model, node.get('items', {}))}"
    if kind == "string":
        return _text_rule(node)
    words = {"boolean": "true or false", "null": "null", "object": "a map"}
    return words[kind] if kind in words else _number_rule(kind, node)


def _text_rule(node: JsonSchema) -> str:
    if "pattern" in node:
        rule = str(node.get("description", f"text that matches {node['pattern']}")).rstrip(".")
    else:
        rule = "non-empty text" if node.get("minLength") else "text"
    return f"{rule}; at most {node['maxLength']} characters" if "maxLength" in node else rule


def _number_rule(kind: str | None, node: JsonSchema) -> str:
    parts = ["a whole number" if kind == "integer" else "a number"]
    if "minimum" in node and "maximum" in node:
        parts.append(f"from {node['minimum']:g} to {node['maximum']:g}")
    else:
        bounds = {
            "minimum": "of at least",
            "exclusiveMinimum": "above",
            "maximum": "up to",
            "exclusiveMaximum": "below",
        }
        parts.append(" and ".join(f"{words} {node[name]:g}" for name, words in bounds.items() if name in node))
    return " ".join(part for part in parts if part)


def value_problem(model: type[BaseModel], path: Sequence[str | int], value: object) -> str:
    """`found X; valid: Y`, with the nearest valid name where a name is expected.

    Args:
        model: The typed tree that the key belongs to.
        path: The key, part by part.
        value: What the file holds there.
    """

    node = node_at(model, path) or {}
    quoted = isinstance(value, (bool, int, float)) and _wants_text(node)
    found = f"found {shown(value)}{' (put it in quotes)' if quoted else ''}"
    return f"{found}; valid: {rule_of(model, node)}{_value_hint(node, path, value)}"


def _value_hint(node: JsonSchema, path: Sequence[str | int], value: object) -> str:
    from search.space.domains import DOMAINS  # its package needs this module

    if isinstance(value, Mapping) and set(value) & set(DOMAINS) and "properties" not in node:
        return f"; to search it, write it in the space section, as {dotted(path)}: ..."
    if not isinstance(value, str):
        return ""
    if "timm:" in node.get("pattern", "") and re.search(node["pattern"], f"timm:{value}"):
        return f"; did you mean timm:{value}?"
    options = [str(option) for part in (node, *node.get("anyOf", ())) for option in part.get("enum", ())]
    guess = nearest(value, options)
    return f"; did you mean {guess}?" if guess else ""


def _wants_text(node: JsonSchema) -> bool:
    parts = (node, *node.get("anyOf", ()))
    names = {name for part in parts for name in ("enum", "const") if name in part}
    kinds = {part.get("type") for part in parts}
    return "string" in kinds and not names and not kinds & {"integer", "number", "boolean"}


def unknown_key(model: type[BaseModel], path: Sequence[str | int]) -> str:
    """What to say about a key that does not exist: the nearest valid one, here or elsewhere in the tree."""
    name = str(path[-1])
    names = list(_properties(model, node_at(model, path[:-1]) or {}))
    keys = [dotted(key) for key, _ in _keys(model)]
    if name in keys and "." in name:
        hint = f"; write it nested, not dotted: {_nested(name)}"
    else:
        guesses = _guesses(name, path[:-1], names, keys)
        hint = f"; did you mean {' or '.join(guesses)}?" if guesses else ""
    return f"unknown key{hint} (valid here: {', '.join(names)})"


def _nested(key: str) -> str:
    head, _, rest = key.partition(".")
    return f"{head}: {{{_nested(rest)}}}" if rest else f"{head}: ..."


def _guesses(name: str, above: Sequence[str | int], names: Sequence[str], keys: Sequence[str]) -> list[str]:
    """What an unknown key may have meant: the same name elsewhere, the nearest here, then the nearest anywhere."""
    if name in _OTHER_WORDS:
        return [_OTHER_WORDS[name]]
    if "." in name:
        return [key for key in [nearest(name, keys)] if key]
    guesses = [key for key in keys if key.rpartition(".")[2] == name][:3]
    here = nearest(name, names)
    if here:
        guesses.append(dotted((*above, here)))
    if guesses:
        return guesses
    leaf = difflib.get_close_matches(name.lower(), [key.rpartition(".")[2] for key in keys], n=1, cutoff=0.75)
    return [key for key in keys if leaf and key.rpartition(".")[2] == leaf[0]][:3]


def problems_of(model: type[BaseModel], raw: object, error: ValidationError) -> dict[Path, Problem]:
    """Pydantic's errors as problems, one per key, in the order of the tree.

    Args:
        model: The typed tree that was validated.
        raw: The values as the file has them.
        error: What pydantic raised.
    """
    problems: dict[Path, Problem] = {}
    for item in error.errors(include_url=False):
        path, value = _locate(raw, item["loc"])
        if path in problems:
            continue
        if item["type"] == "extra_forbidden":
            message = unknown_key(model, path)
        elif item["type"] == "value_error":
            message = str(item["msg"]).removeprefix("Value error, ")
        elif node_at(model, path) is None:
            message = f"found {shown(value)}; {item['msg']}"
        else:
            message = value_problem(model, path, value)
        first_word = message.partition(" ")[0]
        is_about_child = item["type"] == "value_error" and node_at(model, (*path, first_word)) is not None
        problems[path] = Problem(dotted((*path, first_word) if is_about_child else path), message)
    return problems


def _locate(raw: object, loc: Sequence[str | int]) -> tuple[Path, object]:
    """The part of pydantic's location that exists in the file (union branches add parts of their own)."""
    path: list[str | int] = []
    for part in loc:
        if (isinstance(raw, Mapping) and part in raw) or (
            isinstance(raw, (list, tuple)) and isinstance(part, int) and part < len(raw)
        ):
            raw = raw[part]  # type: ignore[index]
            path.append(part)
        else:
            break
    return tuple(path), raw


def take_secrets(raw: MutableMapping[Any, Any], path: tuple[str | int, ...] = ()) -> list[Problem]:
    """Removes keys that look like secrets from a raw config; a problem for each says where secrets belong."""
    from search.config.choices import secret_variables  # what is declared there may need this module

    problems: list[Problem] = []
    for key in list(raw):
        here = (*path, str(key))
        if isinstance(key, str) and _SECRET_KEY.search(key.lower().replace("-", "_")):
            del raw[key]
            message = f"a config holds no secret; it comes from the environment: {' / '.join(secret_variables())}"
            problems.append(Problem(dotted(here), message))
        else:
            problems += _secrets_in(raw[key], here)
    return problems


def _secrets_in(value: object, path: tuple[str | int, ...]) -> list[Problem]:
    if isinstance(value, MutableMapping):
        return take_secrets(value, path)
    if isinstance(value, list):
        return [found for i, item in enumerate(value) for found in _secrets_in(item, (*path, i))]
    return []
