"""Whatever is damaged in a run: no traceback, the file is named, what can be done is said, and other runs are shown."""

import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from corruptions import damage_bytes
from earlier_runs import unpack_earlier_runs

from search.cli import main
from search.runs.journal import EventLog, read_journal
from search.runs.paths import RunPaths
from search.runs.records import read_run
from search.runs.tables import read_table
from search.stages.repairing import repair

FILES = (
    "run.json", "config.yaml", "events.jsonl", "study.db", "trials.parquet", "epochs.parquet", "confirm.json",
    "export.json", "best/card.json",
)  # fmt: skip
LIGHT = (["ls"], ["show", "ended"], ["show", "ended", "--json"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_earlier_runs(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def results(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("ended", "killed"):
        shutil.copytree(whole / name, tmp_path / "results" / name, ignore=shutil.ignore_patterns("reruns", "tune"))
    return tmp_path / "results"


def cli(*arguments: str) -> Result:
    done = CliRunner().invoke(main, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code in (0, 1, 2), done.output
    return done


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("seed", range(3))
def test_any_damage_is_told_with_its_file(results: Path, file: str, seed: int) -> None:
    path = results / "ended" / file
    damage_bytes(path, random.Random(f"{file} {seed}"))
    for command in LIGHT:
        done = cli(*command)
        if command[0] == "ls":
            assert "killed" in done.output
        if done.exit_code:
            assert str(path) in done.output, done.output


@pytest.mark.parametrize(
    ("file", "command"),
    [("run.json", "resume"), ("confirm.json", "resume"), ("export.json", "resume")],
)
def test_what_can_be_made_anew_is_said_with_the_command(results: Path, file: str, command: str) -> None:
    (results / "ended" / file).write_text("{")
    done = cli("show", "ended")
    assert done.exit_code == 2
    assert f"{results / 'ended' / file} cannot be read: " in done.output
    assert f"Made anew from the other files by: segsearch {command} ended" in done.output


def test_tables_that_are_damaged_are_shown_from_the_journal(results: Path) -> None:
    """The journal of an earlier version lacks what the trials ran with, which the study has."""
    before = cli("show", "ended").output
    (results / "ended" / "trials.parquet").write_bytes(b"PAR1")
    done = cli("show", "ended")
    assert done.exit_code == 0
    assert "0.5484" in done.output
    assert f"{results / 'ended' / 'trials.parquet'} cannot be read" in done.output
    assert before.splitlines()[-1] in done.output


def test_a_run_without_its_record_is_still_listed_and_says_how_to_get_one(results: Path) -> None:
    (results / "killed" / "run.json").unlink()
    assert "killed" in cli("ls").output
    done = cli("show", "killed")
    assert done.exit_code == 2
    assert "segsearch resume killed" in done.output


def test_a_journal_damaged_in_the_middle_loses_only_those_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for epoch in range(1, 7):
        log.epoch(0, epoch, {"val/iou": 0.5})
    log.close()
    lines = log.path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1][:20] + b"\n"
    lines[3] = b"\x00" * len(lines[3][:-1]) + b"\n"
    lines[4] = lines[4].replace(b'"epoch": 5', b'"epoch": "five"')
    log.path.write_bytes(b"".join(lines))
    journal = read_journal(log.path)
    assert [event.epoch for event in journal.events] == [1, 3, 6]
    assert journal.damaged == (2, 4, 5)
    journal.warn()
    assert "3 of its 6 lines cannot be read (lines 2, 4, 5)" in caplog.text


def test_what_a_crash_has_cut_off_is_no_damage(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.epoch(0, 1, {"val/iou": 0.5})
    log.epoch(0, 2, {"val/iou": 0.5})
    log.close()
    log.path.write_bytes(log.path.read_bytes()[:-20])
    assert read_journal(log.path).damaged == ()
    log.epoch(0, 2, {"val/iou": 0.6})
    log.close()
    journal = read_journal(log.path)
    assert [event.epoch for event in journal.events] == [1, 2]
    assert journal.damaged == ()


def test_a_resume_makes_the_record_anew(results: Path) -> None:
    paths = RunPaths(results / "ended")
    paths.run.write_bytes(b"\x00" * 300)
    repair(paths)
    record = read_run(paths)
    assert (record.kind, record.name, record.status) == ("search", "ended", "interrupted")
    assert paths.run.with_name("run.json.damaged-1").read_bytes() == b"\x00" * 300


def test_a_resume_of_a_run_that_is_done_finds_what_is_damaged(results: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = RunPaths(results / "ended")
    assert not repair(paths)
    assert read_run(paths).status == "done"
    rows = read_table(paths.epochs)
    paths.epochs.write_bytes(b"PAR1")
    (paths.best / "model.safetensors").unlink()
    assert repair(paths)
    assert read_run(paths).status == "interrupted"
    assert not paths.epochs.exists()
    assert len(rows) > 0
    assert f"{paths.epochs} is damaged" in caplog.text
    assert "model.safetensors is missing" in caplog.text
