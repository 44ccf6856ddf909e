"""A loader process that is killed ends a training with its cause, and a resume comes to what an undisturbed one has."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from rich.console import Console

from search.config.load import load_config
from search.runs.journal import epochs_by_trial, read_events
from search.runs.paths import RunPaths
from search.runs.tables import read_table
from search.stages import job

pytestmark = pytest.mark.slow

SEED = 5
EPOCHS = 4
TREE = {
    "data": {"root": "synthetic", "image_size": 32, "synthetic": {"num_images": 120}},
    "model": {"base_channels": 4, "depth": 2},
    "augment": {"policy": "flip"},
    "train": {"epochs": EPOCHS, "batch_size": 4, "num_workers": 1},
    "search": {"gate": False},
    "tracking": {"wandb": {"mode": "disabled"}},
}


def begin(folder: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from search.cli import main; main()", *command], cwd=folder, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")},
    )  # fmt: skip


def children(parent: int) -> list[int]:
    """Processes that a process has started, loader processes among them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
    return found


def epochs_of(paths: RunPaths) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key.partition("/")[0] != "time"}
        for row in read_table(paths.epochs)
    ]


def test_a_killed_loader_costs_an_epoch_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, console = random.Random(SEED), Console(quiet=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tiny.yaml").write_text(json.dumps(TREE))
    calm = job.train(load_config(tmp_path / "tiny.yaml", ["name=calm"]), console)
    assert calm.exit_code == 0

    killed = RunPaths(tmp_path / "results" / "killed")
    process = begin(tmp_path, "train", "tiny.yaml", "--name", "killed")
    deadline = time.monotonic() + 120
    reached = rng.randint(1, 2)
    while len(epochs_by_trial(read_events(killed.events)).get(0, {})) < reached or not children(process.pid):
        assert process.poll() is None, "it came to its end before the kill: make it longer"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    for loader in children(process.pid):
        os.kill(loader, signal.SIGKILL)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1, said
    assert "loader process" in said
    assert "Traceback" not in said
    assert len(epochs_by_trial(read_events(killed.events))[0]) < EPOCHS

    assert job.resume(killed, console).exit_code == 0
    assert epochs_of(killed) == epochs_of(calm.paths)
    assert [row["epoch"] for row in epochs_of(killed)] == list(range(1, EPOCHS + 1))
