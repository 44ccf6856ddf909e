import json
import os
from pathlib import Path

import pytest

from search.errors import RunError
from search.runs.paths import (
    RunPaths,
    find_run,
    list_runs,
    read_json,
    trial_dirname,
    write_json,
    write_text,
)


def make_run(results: Path, name: str, *, age_s: float = 0.0) -> RunPaths:
    folder = results / name
    folder.mkdir(parents=True)
    write_json(folder / "run.json", {"status": "done"})
    written = (folder / "run.json").stat().st_mtime - age_s
    os.utime(folder / "run.json", (written, written))
    return RunPaths(folder)


def make_checkpoints(paths: RunPaths, *names: str) -> None:
    for name in names:
        (paths.tune / name).mkdir(parents=True)


def test_every_file_lies_below_the_run() -> None:
    paths = RunPaths(Path("/results/birds"))
    assert paths.name == "birds"
    files = {
        name: getattr(paths, name)
        for name, member in vars(RunPaths).items()
        if isinstance(member, property) and name not in ("name", "storage_url", "reruns")
    }
    assert {path.name for path in files.values()} == {
        "config.yaml", "run.json", ".lock", "study.db", "events.jsonl", "trials.parquet", "epochs.parquet", "tune",
        "best", "export.json", "report.html", "segsearch.log", "gate.png", "trainings.json", "confirm.json",
        "ledger.json",
    }  # fmt: skip
    assert all(path.parent == paths.root for path in files.values())
    assert paths.reruns.root == paths.root / "reruns"


def test_the_storage_url_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunPaths(Path("results/birds")).storage_url == f"sqlite:///{tmp_path.resolve()}/results/birds/study.db"


def test_checkpoints_of_a_trial_come_newest_first_over_all_sessions(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    make_checkpoints(
        paths,
        "session-1/trial_00003/checkpoint_000009", "session-2/trial_00003/checkpoint_000000",
        "session-2/trial_00003/checkpoint_000002", "session-10/trial_00003/checkpoint_000001",
        "session-2/trial_00031/checkpoint_000005", "session-2/trial_00003/rank_0",
    )  # fmt: skip
    found = [path.relative_to(paths.tune).as_posix() for path in paths.trial_checkpoints(3)]
    assert found == [
        "session-10/trial_00003/checkpoint_000001", "session-2/trial_00003/checkpoint_000002",
        "session-2/trial_00003/checkpoint_000000", "session-1/trial_00003/checkpoint_000009",
    ]  # fmt: skip
    assert paths.trial_checkpoints(4) == []


def test_each_attempt_at_a_trial_has_a_folder_and_the_last_one_is_the_newest(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    assert [paths.begin_attempt("session-1", 3) for _ in range(12)] == list(range(12))
    assert [paths.begin_attempt("session-2", 3) for _ in range(2)] == [0, 1]
    assert paths.begin_attempt("session-1", 30) == 0
    make_checkpoints(
        paths,
        "session-1/trial_00003/checkpoint_000001", "session-1/trial_00003-2/checkpoint_000000",
        "session-1/trial_00003-11/checkpoint_000000", "session-2/trial_00003-1/checkpoint_000000",
        "session-1/trial_00030/checkpoint_000007",
    )  # fmt: skip
    found = [path.parent.relative_to(paths.tune).as_posix() for path in paths.trial_checkpoints(3)]
    assert found == [
        "session-2/trial_00003-1", "session-1/trial_00003-11", "session-1/trial_00003-2", "session-1/trial_00003"
    ]  # fmt: skip


def test_sessions_are_counted_on(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    assert paths.next_session() == "session-1"
    make_checkpoints(paths, "session-9", "session-10", "session-old")
    assert paths.next_session() == "session-11"


def test_trial_folders_sort_in_trial_order() -> None:
    assert trial_dirname(7) == "trial_00007"
    assert sorted(trial_dirname(n) for n in (100, 9, 10)) == [trial_dirname(n) for n in (9, 10, 100)]


def test_a_run_is_found_by_name_and_by_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make_run(tmp_path / "results", "birds")
    results = tmp_path / "results"
    assert find_run("birds", results) == paths
    assert find_run(str(paths.root), results) == paths
    assert find_run(str(paths.root), tmp_path / "elsewhere") == paths
    monkeypatch.chdir(results)
    assert find_run("birds", Path("nowhere")).root == paths.root.resolve()
    assert find_run("./birds/", Path("nowhere")).name == "birds"


def test_a_run_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run 'birds': looked for .*birds and birds; there are no runs there yet"):
        find_run("birds", tmp_path / "results")
    make_run(tmp_path / "results", "cells")
    make_run(tmp_path / "results", "horses", age_s=60)
    with pytest.raises(RunError, match="runs there: cells, horses"):
        find_run("birds", tmp_path / "results")


def test_runs_are_listed_newest_first_and_nothing_else(tmp_path: Path) -> None:
    make_run(tmp_path, "old", age_s=100)
    make_run(tmp_path, "new")
    make_run(tmp_path, "middle", age_s=50)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "README.md").touch()
    assert [paths.name for paths in list_runs(tmp_path)] == ["new", "middle", "old"]
    assert list_runs(tmp_path / "absent") == []


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    write_text(path, "old: Ж\n")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old: Ж\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.yaml"]


def test_json_comes_back(tmp_path: Path) -> None:
    record = {"name": "Ж", "timings": {"total_s": 1.5}, "none": None}
    write_json(tmp_path / "run.json", record)
    assert read_json(tmp_path / "run.json") == record
    assert (tmp_path / "run.json").read_text(encoding="utf-8").endswith("}\n")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, r"run\.json cannot be read: .*No such file"),
        ("{", r"run\.json cannot be read"),
        ("", r"run\.json cannot be read"),
        ("[1]", r"run\.json should hold a JSON object, found list"),
    ],
)
def test_json_that_cannot_be_read_is_told(tmp_path: Path, content: str | None, match: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=match):
        read_json(tmp_path / "run.json")


def test_json_in_another_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(json.dumps({"a": "Ж"}, ensure_ascii=False).encode("cp1251"))
    with pytest.raises(RunError, match="cannot be read"):
        read_json(tmp_path / "run.json")


def test_checkpoints_of_all_trials_are_those_of_each_and_half_made_ones_are_apart(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    make_checkpoints(
        paths,
        "session-2/trial_00003/checkpoint_000001", "session-10/trial_00003/checkpoint_000000",
        "session-2/trial_00003-2/checkpoint_000000", "session-2/trial_00003-1/checkpoint_000004",
        "session-2/trial_00003-1/.checkpoint_000005", "session-2/trial_123456-1/checkpoint_000002",
        "session-2/trial_123456/.checkpoint_000001.gone", "session-2/trial_00004/rank_0",
    )  # fmt: skip
    assert paths.checkpoints() == {number: paths.trial_checkpoints(number) for number in (3, 123456)}
    names = {path.relative_to(paths.tune).as_posix() for path in paths.half_made_checkpoints()}
    assert names == {"session-2/trial_00003-1/.checkpoint_000005", "session-2/trial_123456/.checkpoint_000001.gone"}
    assert [path.name for path in paths.half_made_checkpoints(3)] == [".checkpoint_000005"]
    assert paths.half_made_checkpoints(4) == []
