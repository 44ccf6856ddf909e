"""Parsed forbid expressions over dotted keys, and evaluating them for a trial."""

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from search.space.domains import same_value
from segcore.params import ParamValue

ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
ORDER: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


@dataclass(frozen=True)
class Rule:
    """One forbid expression.

    Args:
        text: As the file has it.
        own: The dotted keys that it mentions, with the values of the config itself, for trials that do not set them.
        tree: The expression; a name in it is a dotted key.
    """

    text: str
    own: tuple[tuple[str, Any], ...]
    tree: ast.expr = field(compare=False, repr=False)

    def holds(self, flat: Mapping[str, ParamValue]) -> bool:
        """Whether the expression is true of a trial; one that divides by zero is not."""
        try:
            return self.value(flat)
        except ArithmeticError:
            return False

    def value(self, flat: Mapping[str, ParamValue]) -> bool:
        """Like `holds`.

        Raises:
            ArithmeticError: It divides by zero, or a number grows beyond all bounds.
        """
        return bool(_value(self.tree, {**dict(self.own), **flat}))


def _value(tree: ast.expr, values: Mapping[str, ParamValue]) -> Any:
    match tree:
        case ast.Constant():
            return tree.value
        case ast.Name():
            return values[tree.id]
        case ast.List() | ast.Tuple():
            return [_value(part, values) for part in tree.elts]
        case ast.BoolOp(op=ast.And()):
            return all(_value(part, values) for part in tree.values)
        case ast.BoolOp():
            return any(_value(part, values) for part in tree.values)
        case ast.UnaryOp(op=ast.Not()):
            return not _value(tree.operand, values)
        case ast.UnaryOp():
            number = _number(_value(tree.operand, values))
            return None if number is None else -number
        case ast.BinOp():
            left, right = _number(_value(tree.left, values)), _number(_value(tree.right, values))
            return None if left is None or right is None else ARITHMETIC[type(tree.op)](left, right)
        case ast.Compare():
            sides = [_value(part, values) for part in (tree.left, *tree.comparators)]
            return all(map(_compare, tree.ops, sides, sides[1:]))
    raise TypeError(f"no part of a forbid expression: {ast.dump(tree)}")


def _compare(operation: ast.cmpop, left: Any, right: Any) -> bool:
    match operation:
        case ast.Eq():
            return same_value(left, right)
        case ast.NotEq():
            return not same_value(left, right)
        case ast.In():
            return any(same_value(left, item) for item in right)
        case ast.NotIn():
            return not any(same_value(left, item) for item in right)
    left, right = _number(left), _number(right)
    return left is not None and right is not None and ORDER[type(operation)](left, right)


def _number(value: object) -> Any:
    """The value if it is a number, else None: `threshold` may be `auto`, and is then neither above nor below."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
