"""Every command that a message names is pasted where it was printed, with the runs in another folder."""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from earlier_runs import unpack_earlier_runs
from PIL import Image

from search.cli import main
from search.config.tree import SearchConfig
from search.runs.paths import RunPaths
from search.stages import exporting, job
from search.stages.job import EXIT_INTERRUPTED, Outcome
from segcore.objective import Objective

SYNTHETIC = "data: {root: synthetic, image_size: 32, synthetic: {num_images: 24}}\n"
SPACE = "space: {optimizer.lr: {loguniform: [1e-3, 1e-2]}}\n"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the runs `ended` and `killed`; the current folder is beside it."""
    results = unpack_earlier_runs(tmp_path).rename(tmp_path / "the user's runs")
    for config in results.glob("*/config.yaml"):
        config.write_text(config.read_text().replace(str(tmp_path / "results"), str(results)))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return results


def segsearch(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def printed(output: str, pattern: str) -> str:
    """The command that stands at a place of the output, whole on one line."""
    match = re.search(pattern.replace("COMMAND", r"((?:segsearch|optuna-dashboard) [^\n`]+)"), output)
    assert match, output
    return match[1].strip()


def pasted(command: str) -> Result:
    """What a shell would run."""
    words = shlex.split(command)
    assert words[0] == "segsearch"
    done = segsearch(*words[1:])
    assert "no run" not in done.output, done.output
    assert "no model '" not in done.output, done.output
    assert "Usage:" not in done.output, done.output
    assert "Traceback" not in done.output
    return done


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Resuming is only noted down: the folders of the runs."""
    found: list[Path] = []

    def note(paths: Any, console: Any) -> Outcome:
        found.append(paths.root)
        return Outcome(0, paths)

    monkeypatch.setattr(job, "resume", note)
    return found


def test_show_names_how_to_resume(runs: Path, resumed: list[Path]) -> None:
    shown = segsearch("show", "killed", "--results", str(runs)).output
    pasted(printed(shown, "continue with: COMMAND"))
    assert resumed == [runs / "killed"]
    dashboard = printed(shown, "all trials: COMMAND")
    assert shlex.split(dashboard) == ["optuna-dashboard", f"sqlite:///{runs / 'killed' / 'study.db'}"]


@pytest.mark.parametrize(("name", "verb"), [("ended", "show"), ("killed", "resume")])
def test_a_name_that_is_taken(runs: Path, resumed: list[Path], name: str, verb: str) -> None:
    Path("c.yaml").write_text(SYNTHETIC + SPACE + "search: {gate: false}\n")
    refused = segsearch("run", "c.yaml", "--name", name, "--results", str(runs))
    assert refused.exit_code == 2, refused.output
    command = printed(refused.output, "see `COMMAND`")
    assert command.startswith(f"segsearch {verb} ")
    assert pasted(command).exit_code == 0
    assert resumed == ([runs / "killed"] if verb == "resume" else [])


@pytest.mark.parametrize("arguments", [("export", "killed"), ("predict", "killed", "x.png", "-o", "out")])
def test_a_run_without_a_model(runs: Path, resumed: list[Path], arguments: Sequence[str]) -> None:
    Image.new("RGB", (8, 8)).save("x.png")
    shutil.rmtree(runs / "killed" / "best", ignore_errors=True)
    refused = segsearch(*arguments, "--results", str(runs))
    assert refused.exit_code == 2, refused.output
    pasted(printed(refused.output, "continue with: COMMAND"))
    assert resumed == [runs / "killed"]


def test_explain_before_any_trial_has_a_value(runs: Path, resumed: list[Path]) -> None:
    (runs / "killed" / "trials.parquet").unlink(missing_ok=True)
    (runs / "killed" / "events.jsonl").write_text("")
    refused = segsearch("explain", "killed", "--results", str(runs))
    assert refused.exit_code == 2, refused.output
    pasted(printed(refused.output, "continue with: COMMAND"))
    assert resumed == [runs / "killed"]


@pytest.mark.parametrize("options", [[], ["--seeds", "2", "--from", "optimizer.lr=5e-3"]])
def test_explain_that_is_interrupted_names_itself(
    runs: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    from search.stages import explaining

    monkeypatch.setattr(explaining, "_train", lambda *_: False)
    arguments = ["explain", "ended", *options, "--results", str(runs)]
    done = segsearch(*arguments)
    assert done.exit_code == 130, done.output
    command = printed(done.output, "Continue with: COMMAND")
    assert shlex.split(command)[1:] == arguments
    assert pasted(command).exit_code == 130


def test_an_export_that_failed(runs: Path, tmp_path: Path) -> None:
    taken = tmp_path / "a folder"
    taken.mkdir()
    (taken / "thesis.doc").write_text("precious")
    failed = segsearch("export", "ended", "--to", f"local:{taken}", "--results", str(runs))
    assert failed.exit_code == 3, failed.output
    command = printed(failed.output, "try again with: COMMAND")
    assert pasted(command).exit_code == 3
    (taken / "thesis.doc").unlink()
    assert pasted(command).exit_code == 0
    assert (taken / "card.json").is_file()


def test_a_target_that_is_not_ready(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("c.yaml").write_text(SYNTHETIC + SPACE + "export: {targets: [{yandex_disk: /models/my birds}]}\n")
    refused = segsearch("run", "c.yaml", "--name", "ended", "--results", str(runs))
    assert refused.exit_code == 2, refused.output
    tried: list[str] = []
    monkeypatch.setattr(exporting, "_send", lambda _, __, ___, specs, asked: [tried.append(str(s)) for s in specs][:0])
    assert pasted(printed(refused.output, "and later: COMMAND")).exit_code == 0
    assert tried == ["yandex_disk:/models/my birds"]


def test_a_report_that_cannot_be_made(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = runs / "ended" / "report.html"
    report.unlink(missing_ok=True)
    report.mkdir()
    said = with_log(lambda: job.make_report(RunPaths(runs / "ended")))
    command = printed(said, "try again with: COMMAND")
    report.rmdir()
    assert pasted(f"{command} --open no").exit_code == 0
    assert report.is_file()


def with_log(call: Callable[[], object]) -> str:
    """What a call logs, by the handler of the command line."""
    import click

    @click.command()
    def wrapped() -> None:
        call()

    main.add_command(wrapped, name="wrapped")
    try:
        return segsearch("wrapped").output
    finally:
        del main.commands["wrapped"]


def test_a_page_can_be_made_anew_in_its_folder(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert segsearch("report", "ended", "--results", str(runs), "--open", "no").exit_code == 0
    page = runs / "ended" / "report.html"
    command = printed(page.read_text(encoding="utf-8"), r"again with: (segsearch report \.) in its folder")
    page.unlink()
    monkeypatch.chdir(runs / "ended")
    assert pasted(f"{command} --open no").exit_code == 0
    assert page.is_file()


def test_a_training_that_is_interrupted(runs: Path, resumed: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("search.stages.training_run.train_run", interrupted)
    Path("c.yaml").write_text(SYNTHETIC + "search: {gate: false}\nmodel: {base_channels: 2, depth: 2}\n")
    done = segsearch("train", "c.yaml", "--results", str(runs))
    assert done.exit_code == EXIT_INTERRUPTED, done.output
    pasted(printed(done.output, "Continue with: COMMAND"))
    assert resumed == [runs / "c"]


def test_no_runs_yet(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "none yet"
    seen: list[str] = []

    def note(config: SearchConfig, console: Any) -> Outcome:
        seen.append(config.results)
        return Outcome(0, RunPaths(empty / config.name))

    monkeypatch.setattr(job, "run", note)
    listed = segsearch("ls", "--results", str(empty))
    assert pasted(printed(listed.output, "start one with: COMMAND")).exit_code == 0
    assert seen == [str(empty)]


def test_nothing_to_search(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("my config.yaml").write_text(SYNTHETIC)
    seen: list[tuple[str, int]] = []

    def note(config: SearchConfig, console: Any) -> Outcome:
        seen.append((config.name, config.train.epochs))
        return Outcome(0, RunPaths(runs / config.name))

    monkeypatch.setattr(job, "train", note)
    options = ["--set", "train.epochs=7", "--name", "bare", "--results", str(runs)]
    refused = segsearch("run", "my config.yaml", *options)
    assert refused.exit_code == 2
    assert pasted(printed(refused.output, "with: COMMAND")).exit_code == 0
    shown = segsearch("space", "my config.yaml", "--set", "train.epochs=8")
    assert pasted(printed(shown.output, "is: COMMAND")).exit_code == 0
    assert seen == [("bare", 7), ("my-config", 8)]


def test_a_front_names_how_to_seal_one_of_it(runs: Path) -> None:
    from search.runs.reading import Run
    from search.runs.rows import TrialRow
    from search.runs.trials import Trials
    from search.show.run import render_run

    run = Run.open(runs / "ended")
    run.objective = Objective("val/iou", "max", "cost/parameters")
    run.trials = Trials([TrialRow(1, value=0.5, metrics={"cost/parameters": 100.0})], run.objective)
    parts = render_run(run, 5)
    command = next(str(part) for part in parts if "seal one of them" in str(part)).partition(": ")[2]
    refused = pasted(command.replace(" N ", " 99 "))
    assert "has no model of a trial 99" in refused.output


def test_a_command_stays_on_one_line_of_a_terminal(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from search.cli import group

    long = runs.parent / ("a long name " * 12) / "runs"
    long.parent.mkdir()
    shutil.move(runs, long)
    monkeypatch.setattr(group, "output", Console(width=60))
    shown = segsearch("show", "killed", "--results", str(long)).output
    assert str(long) in printed(shown, "continue with: COMMAND")
    assert json.loads(segsearch("ls", "--json", "--results", str(long)).output)
