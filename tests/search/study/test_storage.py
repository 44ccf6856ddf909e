import math
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from places import ROOT

from search.errors import RunError
from search.study import storage
from search.study.optuna_internals import write_reports
from search.study.storage import (
    ReportBuffer,
    close_study,
    open_study,
    stored_trials,
)


def reopen(url: str) -> optuna.Study:
    return open_study(url, "birds", mode="max", sampler=None)


def values(url: str) -> dict[int, dict[int, float]]:
    """As another process, Optuna's own dashboard for one, reads them."""
    return {
        trial.number: trial.intermediate_values for trial in optuna.load_study(study_name="birds", storage=url).trials
    }


def test_reports_are_written_together_and_as_optuna_writes_them(url: str) -> None:
    study = reopen(url)
    ours, theirs = study.ask(), study.ask()
    told = {1: 0.5, 2: math.inf, 3: -math.inf, 4: 0.25}
    for epoch, value in told.items():
        theirs.report(value, epoch)
    write_reports(study, {(ours.number, epoch): value for epoch, value in told.items()})
    write_reports(study, {})
    assert values(url) == {0: told, 1: told}
    write_reports(study, {(ours.number, 5): math.nan, (ours.number, 1): 0.75})
    again = values(url)[0]
    assert math.isnan(again.pop(5))
    assert again == {**told, 1: 0.75}


def test_a_study_in_memory_takes_reports_too() -> None:
    study = optuna.create_study()
    write_reports(study, {(study.ask().number, 1): 0.5})
    assert study.trials[0].intermediate_values == {1: 0.5}


def test_reports_wait_for_their_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = reopen(url)
    study.ask()
    buffer = ReportBuffer(study)
    buffer.add(0, 1, 0.5)
    buffer.flush_if_due()
    assert values(url) == {0: {}}
    monkeypatch.setattr(storage, "FLUSH_S", 0.0)
    buffer.flush_if_due()
    assert values(url) == {0: {1: 0.5}}
    buffer.add(0, 1, 0.7)
    buffer.add(0, 2, 0.6)
    buffer.flush()
    assert values(url) == {0: {1: 0.7, 2: 0.6}}


def test_a_thousand_reports_take_less_than_a_second(url: str) -> None:
    study = reopen(url)
    study.ask()
    buffer = ReportBuffer(study)
    started = time.process_time()
    for epoch in range(1000):
        buffer.add(0, epoch, 0.5)
        if epoch % 100 == 99:
            buffer.flush()
    assert time.process_time() - started < 1.0
    assert len(values(url)[0]) == 1000


def test_another_process_reads_while_the_study_is_written(url: str) -> None:
    study = reopen(url)
    trial = study.ask()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM trial_intermediate_values").fetchone() == (0,)
        started = time.monotonic()
        write_reports(study, {(trial.number, 1): 0.5})  # does not wait for the reader to end
        assert time.monotonic() - started < 5
    assert values(url) == {0: {1: 0.5}}


def test_a_killed_process_loses_nothing_that_was_written(url: str) -> None:
    code = (
        "import os, sys\n"
        "from search.study.optuna_internals import write_reports\nfrom search.study.storage import open_study\n"
        "study = open_study(sys.argv[1], 'birds', mode='max', sampler=None)\n"
        "trial = study.ask()\n"
        "write_reports(study, {(trial.number, epoch): 0.5 for epoch in range(50)})\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, url], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert [len(trial.intermediate_values) for trial in stored_trials(url, "birds")] == [50]


def test_a_closed_study_is_one_file_that_can_be_copied(url: str, tmp_path: Path) -> None:
    study = reopen(url)
    write_reports(study, {(study.ask().number, 1): 0.5})
    assert {path.name for path in tmp_path.iterdir()} == {"study.db", "study.db-wal", "study.db-shm"}
    close_study(study)
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]
    copy = shutil.copy(tmp_path / "study.db", tmp_path / "copy.db")
    assert values(f"sqlite:///{copy}") == {0: {1: 0.5}}
    assert study.trials[0].intermediate_values == {1: 0.5}, "and it opens again"


def test_a_study_that_someone_reads_is_closed_without_waiting(url: str, tmp_path: Path) -> None:
    study = reopen(url)
    study.ask()
    with sqlite3.connect(tmp_path / "study.db") as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM trials").fetchone()
        started = time.monotonic()
        close_study(study)
        assert time.monotonic() - started < 5
    assert len(stored_trials(url, "birds")) == 1


def test_a_file_that_is_no_study_is_told(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("not a database, whatever its name says" * 50)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with pytest.raises(RunError, match=r"study\.db cannot be opened as an Optuna study: file is not a database"):
        open_study(url, "birds", mode="max", sampler=None)
    with pytest.raises(RunError, match=r"study\.db cannot be opened as an Optuna study: file is not a database"):
        stored_trials(url, "birds")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be opened as an Optuna study: unable to open database file"):
        open_study(f"sqlite:///{tmp_path / 'absent' / 'study.db'}", "birds", mode="max", sampler=None)


@pytest.mark.parametrize("begun", ["empty file", "tables, no study"])
def test_a_study_that_was_never_begun_has_no_trials(tmp_path: Path, begun: str) -> None:
    """Killed while the file was being made; the next session opens it as if it were new."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    (tmp_path / "study.db").touch()
    if begun == "tables, no study":
        optuna.storages.RDBStorage(url)
    assert stored_trials(url, "birds") == []
    assert open_study(url, "birds", mode="max", sampler=None).trials == []
