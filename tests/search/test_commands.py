import ast
import re
import shlex
from pathlib import Path

import pytest
from places import ROOT

from search.cli import main
from search.commands import config_command, first_command, quoted, results_option, run_command


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "my work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_run_in_the_results_of_this_folder_needs_its_name_only(here: Path) -> None:
    assert run_command("resume", Path("results/birds")) == "segsearch resume birds"
    assert run_command("resume", here / "results" / "birds") == "segsearch resume birds"


def test_a_run_below_this_folder_is_named_with_a_relative_folder_of_runs(here: Path) -> None:
    assert run_command("show", here / "old" / "birds") == "segsearch show birds --results old"
    assert run_command("show", here / "birds") == "segsearch show birds --results ."
    assert run_command("show", here / "my runs" / "birds") == "segsearch show birds --results 'my runs'"


def test_a_run_elsewhere_is_named_with_an_absolute_one_that_the_shell_leaves_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "it's $HOME" / "birds"
    command = run_command("export", elsewhere, "--to", "local:/models/a b")
    assert shlex.split(command) == [
        *("segsearch", "export", "birds", "--to", "local:/models/a b"),
        *("--results", str(elsewhere.parent)),
    ]


def test_the_folder_of_results_may_be_a_link(here: Path, tmp_path: Path) -> None:
    (tmp_path / "big disk").mkdir()
    (here / "results").symlink_to(tmp_path / "big disk")
    assert run_command("show", tmp_path / "big disk" / "birds") == "segsearch show birds"


def test_a_name_that_looks_like_an_option_is_given_as_a_path(here: Path) -> None:
    assert run_command("show", here / "results" / "-x") == "segsearch show results/-x"


def test_a_command_of_a_config_repeats_what_was_given() -> None:
    command = config_command("train", Path("my config.yaml"), overrides=("a=[1, 2]",), name="b", results=Path("r"))
    assert command == "segsearch train 'my config.yaml' --set 'a=[1, 2]' --name b --results r"
    assert config_command("train", Path("c.yaml")) == "segsearch train c.yaml"


def test_a_first_run_is_of_a_config_that_is_there(here: Path) -> None:
    config = Path(shlex.split(first_command(Path("results")))[2])
    assert config.is_file()
    (here / "configs").mkdir()
    (here / "configs" / "quickstart.yaml").touch()
    assert first_command(Path("results")) == "segsearch run configs/quickstart.yaml"
    assert first_command(Path("a b")) == "segsearch run configs/quickstart.yaml --results 'a b'"


def test_no_option_for_the_folder_where_runs_are_looked_for() -> None:
    assert results_option(Path("results")) == []
    assert quoted("optuna-dashboard", "sqlite:////a b/study.db") == "optuna-dashboard 'sqlite:////a b/study.db'"


def test_messages_name_no_command_but_by_these_functions() -> None:
    """A command that is written out in a message would not know where the runs are."""
    verbs = "|".join(main.commands)
    written = {}
    for path in (ROOT / "search").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node)
            if isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
            if is_text and re.search(rf"segsearch ({verbs})\b", str(node.value)):
                written[path.relative_to(ROOT).as_posix()] = str(node.value)
    assert set(written) == {"search/commands.py", "search/report/page.py"}, written
    assert "segsearch report . in its folder" in written["search/report/page.py"]
