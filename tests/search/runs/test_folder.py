import itertools
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from search.config.tree import SearchConfig
from search.errors import DiskError, RunError
from search.runs import folder
from search.runs.folder import (
    absolute_paths,
    create_run,
    stage_seconds,
    stored_config,
    timed,
    update_run,
    working_on,
)
from search.runs.journal import EventLog
from search.runs.paths import RunPaths, read_json
from segcore.errors import DataError, LoaderError


def new_config(tmp_path: Path, **sections: object) -> SearchConfig:
    return SearchConfig.model_validate({"name": "birds", "results": str(tmp_path / "results"), **sections})


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return create_run(new_config(tmp_path), "search")


def status(paths: RunPaths) -> str:
    return str(read_json(paths.run)["status"])


def test_a_new_run_has_its_config_and_a_first_record(tmp_path: Path) -> None:
    config = new_config(tmp_path, train={"epochs": 3}, search={"seed": 7})
    before = time.time()
    paths = create_run(config, "search")
    assert paths.root == (tmp_path / "results" / "birds").resolve()
    assert stored_config(paths) == config
    record = read_json(paths.run)
    assert before <= record.pop("created") <= time.time()
    assert (record["name"], record["kind"], record["status"], record["seed"]) == ("birds", "search", "running", 7)
    assert record["timings"] == {}
    assert {"name", "cpus", "platform", "python", "cpu", "cpu_capability", "gpus"} <= set(record["host"])
    assert {"torch", "optuna", "ray"} <= set(record["versions"])


@pytest.mark.parametrize(
    ("ended", "hint"),
    [("done", "segsearch show birds"), ("interrupted", "segsearch resume birds"), ("failed", "segsearch resume birds")],
)
def test_a_name_that_is_taken_is_told_with_what_to_do(tmp_path: Path, ended: str, hint: str) -> None:
    paths = create_run(new_config(tmp_path), "search")
    update_run(paths, status=ended)
    EventLog(paths.events).epoch(0, 1, {"val/iou": 0.5})
    before = paths.run.read_bytes(), paths.config.read_bytes()
    match = rf"the run 'birds' is there already \(.*birds, status: {ended}\); see `{hint}[^`]*`, or .* --name"
    with pytest.raises(RunError, match=match):
        create_run(new_config(tmp_path, train={"epochs": 1}), "search")
    assert (paths.run.read_bytes(), paths.config.read_bytes()) == before


def test_a_run_that_never_came_to_a_report_is_no_obstacle(tmp_path: Path) -> None:
    """Its trials could not start, say; there is nothing in it to lose."""
    paths = create_run(new_config(tmp_path), "search")
    with pytest.raises(RunError, match="status: running"):
        create_run(new_config(tmp_path), "search")
    update_run(paths, status="failed", error="no node can run a trial")
    paths.study.write_text("of the earlier attempt")
    again = create_run(new_config(tmp_path, train={"epochs": 1}), "search")
    assert again == paths
    assert not paths.study.exists()
    assert read_json(paths.run)["status"] == "running"


def test_a_folder_without_a_run_in_it_may_be_taken(tmp_path: Path) -> None:
    """As a crash before the first record leaves it."""
    (tmp_path / "results" / "birds").mkdir(parents=True)
    (tmp_path / "results" / "birds" / "config.yaml").write_text("half")
    paths = create_run(new_config(tmp_path), "train")
    assert read_json(paths.run)["kind"] == "train"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file, not a folder")
    with pytest.raises(RunError, match=r"results: the run's folder .*birds cannot be written"):
        create_run(new_config(tmp_path), "search")


def test_no_token_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-of-forty-characters-or-so-012345")
    monkeypatch.setenv("YADISK_TOKEN", "another-secret")
    paths = create_run(new_config(tmp_path), "search")
    with working_on(paths):
        pass
    for path in paths.root.iterdir():
        assert "secret" not in path.read_text()


def test_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = absolute_paths(
        SearchConfig.model_validate(
            {
                "name": "birds",
                "data": {"root": "../birds", "cache_dir": "cache"},
                "model": {"encoder": "timm:resnet18", "encoder_weights": "weights/a.safetensors"},
                "space": {"model.encoder_weights": {"choice": ["imagenet", "weights/b.safetensors"]}},
                "export": {"targets": [{"local": "copies"}, {"yandex_disk": "/models"}]},
            }
        )
    )
    assert config.data.root == str(tmp_path.parent / "birds")
    assert config.data.cache_dir == str(tmp_path / "cache")
    assert config.model.encoder_weights == str(tmp_path / "weights" / "a.safetensors")
    assert config.space == {
        "model.encoder_weights": {"choice": ["imagenet", str(tmp_path / "weights" / "b.safetensors")]}
    }
    assert [spec.location for spec in config.export.targets] == [str(tmp_path / "copies"), "/models"]
    assert config.results == str(tmp_path / "results")
    assert absolute_paths(config) == config


def test_names_that_are_no_paths_stay() -> None:
    config = absolute_paths(SearchConfig.model_validate({"name": "birds", "data": {"root": "synthetic"}}))
    assert (config.data.root, config.data.cache_dir) == ("synthetic", None)
    assert config.model.encoder_weights == "none"


def test_two_workers_cannot_have_the_same_run(paths: RunPaths) -> None:
    with (
        working_on(paths),
        pytest.raises(RunError, match="the run 'birds' is being worked on by another process"),
        working_on(paths),
    ):
        pass
    with FileLock(paths.lock), pytest.raises(RunError, match="being worked on"), working_on(paths):
        pass
    with working_on(paths):
        assert status(paths) == "running"


def test_another_process_keeps_this_one_out_until_it_dies(paths: RunPaths) -> None:
    code = (
        "import pathlib, sys, time\n"
        "from search.runs.paths import RunPaths\n"
        "from search.runs.folder import working_on\n"
        "with working_on(RunPaths(pathlib.Path(sys.argv[1]))):\n"
        "    print('working', flush=True)\n"
        "    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(paths.root)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "working\n"
        assert read_json(paths.run)["worker"]["pid"] == other.pid
        with pytest.raises(RunError, match="being worked on by another process"), working_on(paths):
            pass
        assert status(paths) == "running"
    finally:
        other.kill()
        other.wait()
    with working_on(paths):
        assert read_json(paths.run)["worker"]["pid"] == os.getpid()


def test_how_the_work_ended_is_recorded(paths: RunPaths) -> None:
    with pytest.raises(DataError, match="no images"), working_on(paths):
        raise DataError("no images")
    record = read_json(paths.run)
    assert (record["status"], record["error"]) == ("failed", "DataError: no images")

    with pytest.raises(KeyboardInterrupt, match="stop"), working_on(paths):
        raise KeyboardInterrupt("stop")
    record = read_json(paths.run)
    assert record["status"] == "interrupted"
    assert "error" not in record

    with working_on(paths):
        update_run(paths, status="done")
    assert status(paths) == "done"


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device", "x.json"), DiskError("trial 3: no space"), RuntimeError("wrapped")]
)
def test_a_full_disk_is_an_interruption(paths: RunPaths, error: Exception) -> None:
    if str(error) == "wrapped":
        error.__context__ = DiskError("trial 3: no space")
    with pytest.raises(DiskError) as told, working_on(paths):
        raise error
    assert str(told.value).startswith(("x.json: No space left on device. The run", "trial 3: no space. The run stops"))
    assert f"continue with: segsearch resume {paths.name}" in str(told.value)
    assert told.value.exit_code == 1
    record = read_json(paths.run)
    assert record["status"] == "interrupted"
    assert "error" not in record


def test_a_disk_that_takes_no_note_does_not_hide_what_happened(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the record nor the log can be written; the old record stays, and no traceback is printed."""
    before = []

    def full_disk(*args: object) -> None:
        raise OSError(28, "No space left on device")

    def work() -> None:
        with working_on(paths):
            before.append(paths.run.read_bytes())
            monkeypatch.setattr(folder.LogFile, "flush", full_disk)
            monkeypatch.setattr(os, "fsync", full_disk)
            folder.log.warning("what the log has no room for")
            update_run(paths, status="done")

    with pytest.raises(DiskError, match="No space left on device"):
        work()
    assert paths.run.read_bytes() == before[0]
    assert "Traceback" not in capsys.readouterr().err


def test_a_failed_export_keeps_its_error(paths: RunPaths) -> None:
    with working_on(paths):
        update_run(paths, status="export_failed", error="local: no space")
    record = read_json(paths.run)
    assert (record["status"], record["error"]) == ("export_failed", "local: no space")
    update_run(paths, status="done")
    assert "error" not in read_json(paths.run)


def test_timings_add_up_over_sessions(paths: RunPaths) -> None:
    for _ in range(2):
        with working_on(paths):
            with timed(paths, "search"):
                time.sleep(0.06)
            with timed(paths, "seal"):
                pass
    with pytest.raises(ValueError, match="'a'"), working_on(paths), timed(paths, "search"):
        float(time.sleep(0.06) or "a")
    timings = read_json(paths.run)["timings"]
    assert set(timings) == {"search_s", "seal_s", "total_s"}
    assert 0.18 <= timings["search_s"] <= timings["total_s"] + 0.01
    assert 0.0 <= timings["seal_s"] <= timings["total_s"] - timings["search_s"] + 0.01


def test_a_killed_session_counts_up_to_its_last_report(paths: RunPaths) -> None:
    """What it leaves behind: it claims to run, it is in a stage, and nobody added up its seconds."""
    begun = time.time() - 1000
    worker = {"host": "h", "pid": 1, "since": begun}
    update_run(
        paths, status="running", worker=worker, timings={"search_s": 5.0}, stage={"name": "search", "since": begun + 10}
    )
    paths.events.write_text("{}\n")
    os.utime(paths.events, (begun + 110, begun + 110))
    assert stage_seconds(paths, "search") == pytest.approx(105.0)
    for _ in range(2):
        with working_on(paths):
            assert stage_seconds(paths, "search") == pytest.approx(105.0)
        timings = read_json(paths.run)["timings"]
        assert timings["search_s"] == pytest.approx(105.0)
        assert 110.0 <= timings["total_s"] < 112.0
        assert "stage" not in read_json(paths.run)


def test_a_stage_counts_while_it_lasts(paths: RunPaths) -> None:
    with working_on(paths), timed(paths, "search"):
        time.sleep(0.06)
        assert stage_seconds(paths, "search") >= 0.06
        assert stage_seconds(paths, "seal") == 0.0
    assert stage_seconds(paths, "search") == read_json(paths.run)["timings"]["search_s"]


def test_what_is_logged_is_kept_in_the_runs_log(paths: RunPaths) -> None:
    log = logging.getLogger("segsearch")
    handlers = list(log.handlers)
    level = log.level
    log.setLevel(logging.INFO)
    try:
        for text in ("первый", "second"):
            with working_on(paths):
                log.info("%s session", text)
        log.info("afterwards")
    finally:
        log.setLevel(level)
    lines = paths.log.read_text(encoding="utf-8").splitlines()
    assert [line.split(" INFO ")[1] for line in lines] == ["первый session", "second session"]
    assert log.handlers == handlers


def test_the_record_is_never_half_written(paths: RunPaths) -> None:
    """A reader that looks all the time, while the record grows and shrinks."""
    stop = threading.Event()
    seen: list[int] = []
    torn: list[bytes] = []

    def look() -> None:
        while not stop.is_set():
            content = paths.run.read_bytes()
            try:
                seen.append(len(json.loads(content).get("filler", "")))
            except ValueError:
                torn.append(content)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for size in itertools.islice(itertools.cycle([0, 200_000, 10]), 30):
            update_run(paths, filler="x" * size)
    finally:
        stop.set()
        reader.join()
    assert torn == []
    assert {0, 10, 200_000} & set(seen)


def test_a_full_disk_leaves_the_old_record(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    before = paths.run.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        update_run(paths, status="done")
    assert paths.run.read_bytes() == before


def test_a_run_that_lost_its_loader_names_the_resume(paths: RunPaths) -> None:
    with (
        pytest.raises(LoaderError, match=rf"SIGKILL\. Continue with: segsearch resume {paths.name}"),
        working_on(paths),
    ):
        raise LoaderError("a loader process died: SIGKILL")
    assert status(paths) == "failed"
