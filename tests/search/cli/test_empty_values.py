"""`--name ''` is a mistake of a script, such as a variable that is not set: never taken as if nothing were given."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from search.cli import main

TEXTS = [
    (command.name, param)
    for command in main.commands.values()
    for param in command.params
    if isinstance(param.type, click.Path | click.types.StringParamType)
]


def given(command: str, param: click.Parameter, value: str) -> list[str]:
    """The command with every argument that it needs, and this value for one of its parameters."""
    words = [command]
    for other in main.commands[command].params:
        text = value if other is param else "1"
        if isinstance(other, click.Argument):
            words.append(text)
        elif other is param or other.required:
            words += [other.opts[-1], text]
    return words


def test_there_is_something_to_try() -> None:
    tried = {(command, param.name) for command, param in TEXTS}
    assert {
        ("run", "name"),
        ("run", "overrides"),
        ("run", "results"),
        ("predict", "out"),
        ("predict", "images"),
    } <= tried
    assert {("export", "targets"), ("ls", "results"), ("evaluate", "model"), ("check", "picture")} <= tried


@pytest.mark.parametrize(("command", "param"), TEXTS, ids=[f"{command} {param.name}" for command, param in TEXTS])
def test_an_empty_text_is_refused(
    command: str, param: click.Parameter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, given(command, param, ""))
    assert result.exit_code == 2, result.output
    flat = " ".join(result.output.replace("│", " ").split())
    shown = param.opts[-1] if isinstance(param, click.Option) else param.make_metavar(click.Context(main))
    assert "it is empty; give " in flat
    assert shown in flat
    assert list(tmp_path.iterdir()) == []


def test_one_of_several_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["predict", "model", "a.png", "", "-o", "out"])
    assert result.exit_code == 2
    assert "it is empty" in result.output


def test_an_empty_split_is_no_choice() -> None:
    result = CliRunner().invoke(main, ["evaluate", "model", "data", "--split", ""])
    assert result.exit_code == 2
    assert "it is empty" in result.output


def test_an_empty_name_says_what_a_name_is() -> None:
    result = CliRunner().invoke(main, ["run", "c.yaml", "--name="])
    assert result.exit_code == 2
    flat = " ".join(result.output.split())
    assert "Invalid value for '--name'" in flat
    assert "letters, digits, `.`, `_`, `-`" in flat
