"""Docstrings: whatever takes several arguments says what each of them is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("search", "segcore")
MIN_PARAMETERS = 3

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _public_functions(tree: ast.Module | ast.ClassDef) -> Iterator[Function]:
    """Functions of a module and methods of its classes, without private names and those inside functions."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from _public_functions(node)
        else:
            yield node


def _is_command(function: Function) -> bool:
    """Whether it is a command of the command line, whose options have help texts of their own."""
    return any("command" in ast.unparse(decorator).partition("(")[0] for decorator in function.decorator_list)


def _parameters(function: Function) -> list[str]:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def _undocumented(source: str) -> list[str]:
    """Names of the public functions whose `Args:` block is missing or leaves out a parameter."""
    wrong = []
    for function in _public_functions(ast.parse(source)):
        if _is_command(function):
            continue
        names = _parameters(function)
        block = (ast.get_docstring(function) or "").partition("Args:\n")[2].partition("\n\n")[0]
        described = {line.strip().partition(":")[0] for line in block.splitlines() if line.startswith("    ")}
        if len(names) >= MIN_PARAMETERS and not described.issuperset(names):
            wrong.append(f"{function.name}: {sorted(set(names) - described)}")
    return wrong


@pytest.mark.parametrize("package", PACKAGES)
def test_public_functions_describe_their_arguments(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = [f"{file.relative_to(ROOT)}: {name}" for file in files for name in _undocumented(file.read_text())]
    assert wrong == []


def test_a_missing_argument_is_found() -> None:
    source = '''
def whole(a, b, *, c):
    """Adds.

    Args:
        a: One.
        b: Two,
            and more of it.
        c: Three.

    Raises:
        ValueError: Never.
    """

class Adder:
    def partly(self, a, b, c):
        """Adds.

        Args:
            a: One.
            c: Three.
        """

    def without(self, a, b, c):
        """Adds."""

    def few(self, a, b):
        """Adds."""

    def _private(self, a, b, c):
        """Adds."""

class _Inner:
    def method(self, a, b, c):
        """Adds."""

@main.command("add")
def typed(a, b, c):
    """Adds."""
'''
    assert _undocumented(source) == ["partly: ['b']", "without: ['a', 'b', 'c']"]
