"""Kills at random moments, and the search still ends as if nothing had happened."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from places import ROOT

from search.config.load import load_config
from search.runs.folder import create_run
from search.runs.journal import epochs_by_trial, read_events
from search.runs.paths import RunPaths
from search.runs.records import read_run
from search.runs.tables import read_table
from search.study.observations import PARAMS_ATTR
from search.study.storage import close_study, open_study

pytestmark = pytest.mark.slow

KINDS = ["worker"] * 6 + ["driver", "group", "raylet", "gcs_server"]
"""What is killed: a worker, the driver, the driver with its whole Ray (raylet, GCS and workers) at once, or a part."""
TRIALS = 16
EPOCHS = 6
SLOW_S, FAST_S = 0.3, 0.01
"""Seconds of an epoch: while kills are to come, so that they all hit a running search, and afterwards."""
SEED = 11

DRIVER = """
import json, logging, os, sys, time
from pathlib import Path

import ray

from search.config.load import load_config
from search.runs.folder import record_interruption, working_on
from search.runs.paths import RunPaths
from search.space.search import Search
from search.tune.cluster import watch
from search.tune.cluster.session import RaySession
from search.tune.search import run_search

watch.GRACE_S = 4.0
folder, epoch_s = Path(sys.argv[1]), float(sys.argv[2])
logging.basicConfig(level=logging.WARNING)
config = load_config(folder / "tiny.yaml")
paths = RunPaths(folder / "results" / config.name)


def train(spec):
    import tempfile

    from ray import tune

    (folder / "workers" / str(os.getpid())).touch()
    lr, epochs = spec["train"]["optimizer"]["lr"], spec["train"]["train"]["epochs"]
    files = [Path(checkpoint) / "epoch" for checkpoint in spec["checkpoints"]]
    saved = [int(file.read_text() or 0) for file in files if file.exists()]
    done = next((epoch for epoch in saved if epoch <= spec["reached"]), 0)
    for epoch in range(done + 1, epochs + 1):
        time.sleep(epoch_s)
        value = 1.0 - abs(lr - 0.03) - 1.0 / (epoch + 1)
        report = {"number": spec["number"], "epoch": epoch, "best_epoch": epoch, "finished": epoch == epochs,
                  "val/iou": value, "time/train_s": 0.0}
        if epoch % 2 == 0:
            tune.report(report)
            continue
        with tempfile.TemporaryDirectory() as written:
            (Path(written) / "epoch").write_text(str(epoch))
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(written))


ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
session = RaySession.open(None)
with working_on(paths), session.watched(paths.log, "again", lambda: record_interruption(paths)):
    ended = run_search(Search.of(config), paths, folder, trainable=train)
print("ended" if ended else "not ended", flush=True)
os._exit(0)
"""


def new_run(folder: Path) -> RunPaths:
    """A run whose trials are fixed before it begins, so that no suggestion depends on what had ended when."""
    (folder / "workers").mkdir(parents=True)
    tree = {
        "name": "tiny",
        "data": {"root": "synthetic"},
        "train": {"epochs": EPOCHS},
        "space": {"optimizer.lr": {"uniform": [0.001, 0.1]}},
        "search": {"num_samples": TRIALS, "sampler": "random", "scheduler": {"name": "none"}, "gate": False},
        "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0},
        "results": str(folder / "results"),
    }
    (folder / "tiny.yaml").write_text(json.dumps(tree))
    paths = create_run(load_config(folder / "tiny.yaml"), "search")
    study = open_study(paths.storage_url, paths.name, mode="max", sampler=None)
    for number in range(TRIALS):
        study.enqueue_trial({"optimizer.lr": round(0.002 * (number + 1), 4)})
    close_study(study)
    return paths


def start(folder: Path, epoch_s: float) -> subprocess.Popen[str]:
    """A driver in a process group of its own, to which its Ray and its workers belong."""
    for note in (folder / "workers").iterdir():
        note.unlink()
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder), str(epoch_s)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=(folder / "stderr.txt").open("a"), text=True, start_new_session=True,
        env={**os.environ, "RAY_ADDRESS": "", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
             "TUNE_PRINT_ALL_TRIAL_ERRORS": "0"},
    )  # fmt: skip


def kill_group(process: subprocess.Popen[str]) -> None:
    """Ends the driver with its whole Ray: raylet, GCS and workers."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def live_workers(folder: Path) -> list[int]:
    pids = [int(path.name) for path in (folder / "workers").iterdir()]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def outcome(paths: RunPaths) -> dict[str, Any]:
    """What a search left behind, without times and Ray's ids."""
    study = optuna.load_study(study_name=paths.name, storage=paths.storage_url)
    rows = read_table(paths.trials)
    epochs = read_table(paths.epochs)
    assert dict(Counter(trial.state.name for trial in study.trials)) == {"COMPLETE": len(rows)}
    assert [trial.user_attrs[PARAMS_ATTR]["optimizer.lr"] for trial in study.trials] == [
        row["param/optimizer.lr"] for row in rows
    ]
    assert {trial.number: trial.intermediate_values for trial in study.trials} == {
        number: {epoch: row.metrics["val/iou"] for epoch, row in rows.items()}
        for number, rows in epochs_by_trial(read_events(paths.events)).items()
    }
    return {
        "trials": [
            (row["number"], row["state"], row["value"], row["best_epoch"], row["epochs"], row["param/optimizer.lr"])
            for row in rows
        ],
        "epochs": [(row["number"], row["epoch"], row["val/iou"]) for row in epochs],
    }


def wait_for_moment(
    rng: random.Random, paths: RunPaths, folder: Path, process: subprocess.Popen[str], kind: str
) -> None:
    """Waits until a random number of reports has come in, and a random moment more; a worker has to be there first."""
    reports = num_reports(paths) + rng.randint(0, 5)
    deadline = time.monotonic() + 120
    while num_reports(paths) < reports or (kind == "worker" and not live_workers(folder)):
        assert process.poll() is None, (folder / "stderr.txt").read_text()[-3000:]
        assert time.monotonic() < deadline, f"no {reports} reports: {(folder / 'stderr.txt').read_text()[-3000:]}"
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 0.3))


def num_reports(paths: RunPaths) -> int:
    return paths.events.read_bytes().count(b'"epoch"') if paths.events.exists() else 0


def undisturbed() -> dict[str, Any]:
    """What `outcome` finds when nothing happens."""
    rates = [round(0.002 * (number + 1), 4) for number in range(TRIALS)]
    values = [[1.0 - abs(lr - 0.03) - 1.0 / (epoch + 1) for epoch in range(1, EPOCHS + 1)] for lr in rates]
    return {
        "trials": [
            (number, "complete", values[number][-1], EPOCHS, EPOCHS, lr) for number, lr in enumerate(rates)
        ],
        "epochs": [
            (number, epoch, values[number][epoch - 1]) for number in range(TRIALS) for epoch in range(1, EPOCHS + 1)
        ],
    }  # fmt: skip


def pid_of_part(driver: int, part: str) -> int:
    """The process of the driver's Ray that runs a program of that name."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            program = (process / "cmdline").read_bytes().split(b"\0")[0].decode()
            if program.endswith(f"/{part}") and os.getpgid(int(process.name)) == driver:
                return int(process.name)
    raise AssertionError(f"no {part} in the group of {driver}")


def kill_part(process: subprocess.Popen[str], part: str, folder: Path, paths: RunPaths) -> None:
    """Kills the raylet or the GCS of a driver, which has to end by itself within a minute and say why.

    Without its raylet, Tune would wait for ever; without its GCS, Ray would end the process after a minute, in words of
    its own.
    """
    os.kill(pid_of_part(process.pid, part), signal.SIGKILL)
    said = process.communicate(timeout=60)[0]
    told, log = (folder / "stderr.txt").read_text(), paths.log.read_text()
    name = "raylet" if part == "raylet" else "GCS"
    assert f"Ray is gone: its {name} died; the search stops here" in log, (process.returncode, said, told)
    assert "Traceback" not in told
    ended_by_itself = process.returncode == 0 and said.endswith("not ended\n")
    assert ended_by_itself or (process.returncode == 130 and "nothing is lost. Continue with: again" in log)
    assert ended_by_itself or read_run(paths).status == "interrupted"
    study = optuna.load_study(study_name=paths.name, storage=paths.storage_url)
    assert "FAIL" not in {trial.state.name for trial in study.trials}, "a dead Ray is no fault of a trial"


def test_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    kinds = rng.sample(KINDS, len(KINDS))
    paths = new_run(tmp_path)
    while kinds:
        process = start(tmp_path, SLOW_S)
        try:
            while kinds:
                kind = kinds.pop()
                wait_for_moment(rng, paths, tmp_path, process, kind)
                if kind == "worker":
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(rng.choice(live_workers(tmp_path)), signal.SIGKILL)
                    continue
                if kind == "driver":
                    os.kill(process.pid, signal.SIGKILL)
                elif kind != "group":
                    kill_part(process, kind, tmp_path, paths)
                break
        finally:
            kill_group(process)
    assert num_reports(paths) < TRIALS * EPOCHS, "the search came to its end before all kills: make it longer"

    process = start(tmp_path, FAST_S)
    try:
        said = process.communicate(timeout=150)[0]
    finally:
        kill_group(process)
    assert said == "ended\n", (tmp_path / "stderr.txt").read_text()[-3000:]
    assert outcome(paths) == undisturbed()
