"""Runs that an earlier version made can still be read, resumed and extended."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from earlier_runs import unpack_earlier_runs

from search.cli import main
from search.runs.journal import epochs_by_trial, read_events
from search.runs.paths import RunPaths
from search.runs.tables import read_table


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return unpack_earlier_runs(tmp_path)


def cli(*arguments: str) -> Result:
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == 0, done.output
    return done


def test_both_are_listed_with_what_became_of_them(results: Path) -> None:
    rows = {row["name"]: row for row in json.loads(cli("ls", "--json").stdout)}
    assert (rows["ended"]["status"], rows["ended"]["trials"]) == ("done", 4)
    assert rows["ended"]["iou"] == pytest.approx(0.5483909228287324)
    assert rows["killed"]["status"] == "stopped"


def test_the_ended_one_is_shown(results: Path) -> None:
    shown = cli("show", "ended").output
    for text in ("done", "trial 0", "0.5484", "all trials:", f"local:{results.parent / 'exported'}"):
        assert text in shown, text


@pytest.mark.parametrize("name", ["ended", "killed"])
def test_a_report_is_made_of_either(results: Path, name: str) -> None:
    cli("report", name, "--open", "no")
    assert "</html>" in (results / name / "report.html").read_text(encoding="utf-8")
    record = json.loads(cli("report", name, "--json").stdout)
    assert len(record["history"]["trials"]) >= 4


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_the_killed_one_is_resumed_and_no_epoch_told_twice(results: Path) -> None:
    paths = RunPaths(results / "killed")
    before = {number: dict(epochs) for number, epochs in epochs_by_trial(read_events(paths.events)).items()}
    cli("resume", "killed")
    after = epochs_by_trial(read_events(paths.events))
    for number, epochs in before.items():
        for epoch, row in epochs.items():
            assert after[number][epoch].time == row.time
    rows = read_table(paths.trials)
    assert len(rows) == 5
    assert {row["state"] for row in rows} <= {"complete", "pruned"}
    assert json.loads(paths.run.read_text())["status"] == "done"
    assert (paths.best / "card.json").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_the_ended_one_is_extended(results: Path) -> None:
    paths = RunPaths(results / "ended")
    cli("extend", "ended", "--num-samples", "2", "--set", "search.confirm=null")
    assert len(read_table(paths.trials)) == 6
    assert json.loads(paths.run.read_text())["status"] == "done"
