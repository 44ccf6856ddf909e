"""Reads the `forbid:` list of a space: expressions over dotted keys, parsed into a tree and never run as code.

    forbid:
      - train.batch_size >= 16 and model.arch == 'attention_unet'
      - optimizer.name in ['adamw', 'nadam'] and optimizer.lr > 1e-2

Comparisons (chained ones too, and `in` a list), and/or/not, + - * /, numbers, 'text', true, false, null, and the keys.
"""

import ast
from collections.abc import Callable, Sequence
from dataclasses import replace

from search.config.problems import (
    JsonSchema,
    leaf_keys,
    node_at,
    shown,
    unknown_key,
    value_problem,
)
from search.space.checks import combinations, within
from search.space.reader import SELECTORS, Reader
from search.space.rules import ARITHMETIC, ORDER, Rule
from search.space.tree import Space, flatten
from segcore.config import TrainConfig
from segcore.params import Params

NUM_POINTS = 2000
_LONGEST = 1000
_FORMS = (
    "valid: comparisons (== != < <= > >=, in [...]) of config keys, numbers, 'text', true, false and null, joined by "
    "and, or, not; numbers may be added, subtracted, multiplied and divided"
)
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_KIND_OF: dict[type, str] = {bool: "boolean", int: "number", float: "number", str: "text", type(None): "null"}
_SCHEMA_KINDS = {"integer": "number", "number": "number", "string": "text", "boolean": "boolean", "array": "list"}
Kinds = frozenset[str]


class _RefusedError(Exception):
    """What is wrong with one expression."""


def read_rules(raw: object, reader: Reader, searched: Sequence[str]) -> tuple[Rule, ...]:
    """The forbid expressions of a space; what is wrong with them becomes problems of the reader.

    Args:
        raw: What the file holds under `forbid`.
        reader: Holds the base config and takes the problems.
        searched: Every dotted key that some trial sets.
    """
    if not isinstance(raw, list):
        hint = f"; write it as a list: [{raw!r}]" if isinstance(raw, str) else ""
        reader.refuse("space.forbid", f"found {shown(raw)}; valid: a list of expressions{hint}")
        return ()
    rules = []
    for index, text in enumerate(raw):
        try:
            rules.append(_read(text, reader, searched))
        except _RefusedError as refusal:
            reader.refuse(f"space.forbid[{index}]", str(refusal))
    return tuple(rules)


def check_rules(space: Space, reader: Reader) -> None:
    """Refuses rules that leave no trial, or that cannot be computed, judged by random points and the combinations."""
    points = telling_points(space)
    for index, rule in enumerate(space.rules):
        path = f"space.forbid[{index}]"
        try:
            held = [rule.value(point) for point in points]  # of all of them: each must be computable
            if all(held):
                reader.refuse(path, f"`{rule.text}` rules out every trial")
        except ArithmeticError as error:
            reader.refuse(path, f"`{rule.text}` cannot be computed for every trial: {error}; multiply instead")
    if not reader.problems and all(space.forbidden(point) for point in points):
        reader.refuse("space.forbid", f"the {len(space.rules)} expressions together rule out every trial")


def telling_points(space: Space, is_wanted: Callable[[str], bool] = lambda _: False) -> list[Params]:
    """Points to test rules on: random ones, and every combination of the keys that rules use, if not too many.

    Args:
        space: The space.
        is_wanted: Which keys matter beside those that rules use; points set no others.
    """
    mentioned = frozenset(key for rule in space.rules for key, _ in rule.own)
    part = replace(space, nodes=within(space.nodes, lambda key: key in mentioned or is_wanted(key)))
    return [*uniform_points(part, NUM_POINTS), *combinations(part.nodes)]


def uniform_points(space: Space, count: int, seed: int = 0) -> list[Params]:
    """Random points of the space, forbidden ones among them; the same ones for the same seed.

    Args:
        space: The space.
        count: How many points.
        seed: Seed of the draws.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    return [space.sample_uniform(rng) for _ in range(count)]


def _read(text: object, reader: Reader, searched: Sequence[str]) -> Rule:
    if not isinstance(text, str) or not text.strip():
        raise _RefusedError(f"found {shown(text)}; must be an expression such as train.batch_size >= 16")
    if len(text) > _LONGEST:
        raise _RefusedError(f"an expression has at most {_LONGEST} characters, found {len(text)}")
    parser = _Parser(reader)
    try:
        tree = parser.condition(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        cause = error.msg if isinstance(error, SyntaxError) else str(error)
        raise _RefusedError(f"`{text}` cannot be read: {cause}; {_FORMS}") from None
    if not set(parser.keys) & set(searched):
        mentioned = f"only {', '.join(parser.keys)}" if parser.keys else "no key at all"
        raise _RefusedError(f"`{text}` is about nothing that is searched; it mentions {mentioned}")
    own = flatten(reader.base)
    return Rule(text.strip(), tuple((key, own[key]) for key in parser.keys), tree)


class _Parser:
    """Checks an expression and rewrites each dotted name in it as one name."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.keys: list[str] = []

    def condition(self, tree: ast.expr) -> ast.expr:
        """An expression that must be true or false."""
        tree, kinds = self._read(tree)
        if kinds != {"boolean"}:
            raise _RefusedError(f"`{ast.unparse(tree)}` is {_words(kinds)}, not a condition; compare it with something")
        return tree

    def _read(self, tree: ast.expr) -> tuple[ast.expr, Kinds]:
        match tree:
            case ast.Name() | ast.Attribute():
                return self._name(tree)
            case ast.Constant() if type(tree.value) in _KIND_OF:
                return tree, frozenset({_KIND_OF[type(tree.value)]})
            case ast.List() | ast.Tuple():
                return self._list(tree), frozenset({"list"})
            case ast.BoolOp():
                return ast.BoolOp(tree.op, [self.condition(part) for part in tree.values]), frozenset({"boolean"})
            case ast.UnaryOp(op=ast.Not()):
                return ast.UnaryOp(tree.op, self.condition(tree.operand)), frozenset({"boolean"})
            case ast.UnaryOp(op=ast.USub()):
                return ast.UnaryOp(tree.op, self._number(tree.operand, "-")), frozenset({"number"})
            case ast.BinOp() if type(tree.op) in ARITHMETIC:
                left, right = (self._number(part, "arithmetic") for part in (tree.left, tree.right))
                return ast.BinOp(left, tree.op, right), frozenset({"number"})
            case ast.Compare() if not any(isinstance(op, (ast.Is, ast.IsNot)) for op in tree.ops):
                return self._comparison(tree), frozenset({"boolean"})
        raise _RefusedError(f"`{ast.unparse(tree)}` cannot stand in a forbid expression; {_FORMS}")

    def _name(self, tree: ast.expr) -> tuple[ast.expr, Kinds]:
        name = ast.unparse(tree)
        if name in _WORDS:
            return self._read(ast.Constant(_WORDS[name]))
        key = f"{name}.{SELECTORS[name]}" if name in SELECTORS else name
        if key not in leaf_keys(TrainConfig):
            parts = tuple(key.split("."))
            message = unknown_key(TrainConfig, parts if node_at(TrainConfig, parts[:-1]) else (key,))
            quotes = f"; text stands in quotes: '{name}'" if "." not in name else ""
            raise _RefusedError(f"{name}: {message}{quotes}")
        if key not in self.keys:
            self.keys.append(key)
        return ast.Name(key, ast.Load()), _kinds_of(node_at(TrainConfig, key.split(".")) or {})

    def _list(self, tree: ast.List | ast.Tuple) -> ast.expr:
        read = ast.List([self._read(part)[0] for part in tree.elts], ast.Load())
        try:
            ast.literal_eval(read)
        except ValueError:
            raise _RefusedError(f"`{ast.unparse(tree)}`: a list holds plain values only") from None
        return read

    def _number(self, tree: ast.expr, what: str) -> ast.expr:
        read, kinds = self._read(tree)
        if "number" not in kinds:
            raise _RefusedError(f"{what} takes numbers, and `{ast.unparse(read)}` is {_words(kinds)}")
        return read

    def _comparison(self, tree: ast.Compare) -> ast.expr:
        sides = [self._read(part) for part in (tree.left, *tree.comparators)]
        for operation, left, right in zip(tree.ops, sides[:-1], sides[1:], strict=True):
            if isinstance(operation, (ast.In, ast.NotIn)):
                if not isinstance(right[0], ast.List):
                    raise _RefusedError(
                        f"`{ast.unparse(right[0])}` is {_words(right[1])}; `in` takes a list: [..., ...]"
                    )
                for item in right[0].elts:
                    self._same_kind(left, (item, self._read(item)[1]))
            elif type(operation) in ORDER:
                for side, kinds in (left, right):
                    if "number" not in kinds:
                        raise _RefusedError(f"< and > compare numbers, and `{ast.unparse(side)}` is {_words(kinds)}")
            else:
                self._same_kind(left, right)
        return ast.Compare(sides[0][0], tree.ops, [side for side, _ in sides[1:]])

    def _same_kind(self, left: tuple[ast.expr, Kinds], right: tuple[ast.expr, Kinds]) -> None:
        """Both sides can be equal at all: of one kind, and a literal is a value that the key may have."""
        for (side, kinds), (other, other_kinds) in ((left, right), (right, left)):
            if not kinds & other_kinds:
                found = f"`{ast.unparse(side)}` is {_words(kinds)}, and `{ast.unparse(other)}` is {_words(other_kinds)}"
                raise _RefusedError(f"{found}; they are never equal")
            if isinstance(side, ast.Name) and isinstance(other, (ast.Constant, ast.List)):
                value = ast.literal_eval(other)
                if self._reader.taken(side.id, value) is None:
                    raise _RefusedError(f"{side.id}: {value_problem(TrainConfig, tuple(side.id.split('.')), value)}")


def _kinds_of(node: JsonSchema) -> Kinds:
    if "anyOf" in node:
        return frozenset().union(*map(_kinds_of, node["anyOf"]))
    values = [node["const"]] if "const" in node else node.get("enum", ())
    if values:
        return frozenset(_KIND_OF[type(value)] for value in values)
    return frozenset({_SCHEMA_KINDS.get(str(node.get("type")), "null")})


def _words(kinds: Kinds) -> str:
    names = {"boolean": "true or false", "number": "a number", "text": "text", "null": "null", "list": "a list"}
    return " or ".join(names[kind] for kind in sorted(kinds))
