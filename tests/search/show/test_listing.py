"""The list of runs: what a run that is running, was killed or has ended shows, and what reading it may load."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from earlier_runs import unpack_earlier_runs
from places import ROOT
from report_runs import write_run

from search.config.tree import SearchConfig
from search.errors import RunError
from search.runs.folder import create_run, update_run
from search.runs.journal import EventLog
from search.runs.paths import RunPaths
from search.runs.reading import Run
from search.runs.records import Status, Worker
from search.show.listing import SO_FAR, run_line, run_lines

HEAVY = {
    "pandas", "pyarrow", "torch", "ray", "optuna", "sqlalchemy", "wandb", "albumentations", "timm", "cv2", "yadisk",
    "numpy",
}  # fmt: skip


def write_live_run(results: Path, name: str = "live") -> RunPaths:
    """A search of which the journal alone tells: two trials that run and one that has failed."""
    config = SearchConfig.model_validate(
        {"name": name, "results": str(results), "space": {"optimizer.lr": {"loguniform": [1e-4, 1e-2]}}}
    )
    paths = create_run(config, "search")
    events = EventLog(paths.events)
    for number, values in enumerate([(0.25, 0.5), (0.75,), ()]):
        events.began(number, {"optimizer.lr": 1e-3 * (number + 1)}, "random")
        for epoch, value in enumerate(values, start=1):
            events.epoch(number, epoch, {"val/iou": value, "val/dice": value, "val/threshold": 0.5})
    events.error(2, "out of memory", "tried to allocate 2 GiB")
    events.ended(2, "failed", "out of memory")
    events.close()
    return paths


def kill(paths: RunPaths) -> None:
    """What `run.json` says of a run whose process was killed."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    update_run(paths, worker=Worker(host=socket.gethostname(), pid=dead.pid))


@pytest.mark.parametrize(("killed", "status"), [(False, "running"), (True, "stopped")])
def test_a_search_without_tables_has_its_trials_and_its_best_so_far(tmp_path: Path, killed: bool, status: str) -> None:
    paths = write_live_run(tmp_path)
    if killed:
        kill(paths)
    line = run_line(Run(paths))
    assert (line.status, line.trials, line.iou, line.split) == (status, 3, 0.75, SO_FAR)


def test_an_ended_run_is_told_by_its_record_and_its_card_alone(tmp_path: Path) -> None:
    paths = write_run(tmp_path)
    update_run(paths, trials=7)
    for file in (paths.trials, paths.epochs, paths.study, paths.events):
        file.unlink(missing_ok=True)
    line = run_line(Run(paths))
    assert (line.status, line.trials, line.iou, line.split) == ("done", 7, 0.6, "test")


@pytest.mark.parametrize("status", ["interrupted", "failed", "running"])
def test_while_trials_may_have_come_since_they_are_counted(tmp_path: Path, status: Status) -> None:
    paths = write_live_run(tmp_path)
    update_run(paths, trials=1, status=status)
    assert run_line(Run(paths)).trials == 3


def test_a_run_of_format_1_is_counted_by_its_card_and_one_that_was_killed_by_its_journal(tmp_path: Path) -> None:
    results = unpack_earlier_runs(tmp_path)
    lines = {line.name: line for line in run_lines(results)}
    assert (lines["ended"].trials, lines["ended"].split) == (4, "test")
    assert (lines["killed"].status, lines["killed"].split) == ("stopped", SO_FAR)
    assert lines["killed"].trials is not None
    assert lines["killed"].trials >= 4


def test_a_damaged_run_hides_no_other(tmp_path: Path) -> None:
    write_live_run(tmp_path, "whole")
    write_live_run(tmp_path, "newer").run.write_text(json.dumps({"format": 3, "status": "done"}))
    lines = {line.name: line for line in run_lines(tmp_path)}
    assert lines["whole"].trials == 3
    assert lines["newer"].kind == "?"
    assert "written by a newer segsearch (format 3; this one reads up to 2)" in lines["newer"].status


def test_a_file_is_no_folder_of_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file; --results names the folder of the runs") as error:
        run_lines(tmp_path / "file")
    assert error.value.exit_code == 2


def loaded_by(folder: Path, *arguments: str) -> tuple[set[str], str]:
    """The modules that a command loads in a fresh interpreter, and what it prints."""
    code = (
        "import json, sys\nfrom search.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('\\n' + json.dumps(sorted(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text, _, modules = done.stdout.rstrip().rpartition("\n")
    return set(json.loads(modules)), text


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of every kind in `results`."""
    folder = tmp_path_factory.mktemp("mixed")
    results = unpack_earlier_runs(folder)
    write_live_run(results)
    kill(write_live_run(results, "stopped"))
    return folder


def test_the_list_loads_nothing_heavy_whatever_the_runs(mixed: Path) -> None:
    loaded, text = loaded_by(mixed, "ls")
    assert {name for name in loaded if name.split(".")[0] in HEAVY} == set()
    assert {"search.config.tree", "segcore.config", "search.runs.tables"} & loaded == set()
    for name in ("ended", "killed", "live", "stopped"):
        assert name in text


def test_ls_does_not_load_more_and_more(mixed: Path) -> None:
    """What a start costs is modules; 0.2 s of CPU was 560 of them."""
    loaded, _ = loaded_by(mixed, "ls")
    assert len(loaded) < 700


@pytest.mark.parametrize("name", ["live", "stopped", "ended"])
def test_showing_a_run_loads_nothing_heavy(mixed: Path, name: str) -> None:
    loaded, text = loaded_by(mixed, "show", name)
    heavy = HEAVY - {"numpy", "pyarrow"} | {"pyarrow.dataset"}
    assert {part for part in loaded if part in heavy or part.split(".")[0] in heavy} == set()
    assert "trials, best first" in text
    if name != "ended":
        assert "best so far: trial 1, val/iou 0.7500 after epoch 1" in text


def test_as_json_both_say_the_same(mixed: Path) -> None:
    _, text = loaded_by(mixed, "ls", "--json")
    lines: list[dict[str, Any]] = json.loads(text)
    assert {line["name"] for line in lines} == {"ended", "killed", "live", "stopped"}
    _, text = loaded_by(mixed, "show", "live", "--json")
    details = json.loads(text)
    assert (details["best_trial"], details["states"]) == (1, {"failed": 1, "running": 2})
    assert [row["number"] for row in details["trials"]] == [1, 0, 2]
    assert details["trials"][2]["error"] == "out of memory: tried to allocate 2 GiB"
    assert details["trials"][0]["param/optimizer.lr"] == 2e-3
    (line,) = [line for line in lines if line["name"] == "live"]
    assert {key: details["run"][key] for key in line} == line
