"""A home without settings or keys, and what the tests of tracking log."""

import json
import os

import numpy as np
import pytest
from servers.wandb_server import API_KEY


@pytest.fixture(autouse=True)
def _only_loopback(tmp_path, monkeypatch):
    """No settings or key of this machine, and no address but 127.0.0.1."""
    home = tmp_path / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    paths = {"HOME": home, "NETRC": home / "netrc", "WANDB_CONFIG_DIR": home / "config"}
    paths |= {"WANDB_CACHE_DIR": home / "cache", "WANDB_DATA_DIR": home / "data"}
    for name, path in paths.items():
        monkeypatch.setenv(name, str(path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.chdir(home)
    monkeypatch.setattr("search.tracking.wandb_run.FINISH_TIMEOUT_S", 3.0)
    monkeypatch.setattr("search.tracking.wandb_run.INIT_TIMEOUT_S", 3.0)
    monkeypatch.setattr("search.tracking.wandb_run.ASK_TIMEOUT_S", 1.0)
    monkeypatch.setattr("search.tracking.wandb_log.ASK_TIMEOUT_S", 1.0)


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "results" / "horses"


@pytest.fixture
def online(monkeypatch):
    """Points wandb at a server, with its key."""

    def use(server):
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)

    return use


@pytest.fixture
def leave_checkpoint(run_dir):
    """Writes what a trial leaves in the run's folder, and returns where."""

    def leave(number):
        folder = run_dir / "tune" / "session-1" / f"trial_{number:05d}" / "checkpoint_000003"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        np.savez(
            folder / "overlays.npz",
            images=rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8),
            targets=rng.integers(0, 2, (2, 16, 16), dtype=np.uint8),
            probs=rng.random((2, 16, 16)).astype(np.float16),
            threshold=np.float64(0.5),
        )
        (folder / "curve.json").write_text(json.dumps({"threshold": [0.0, 0.5, 1.0], "iou": [0.1, 0.8, 0.0]}))
        (folder / "best.json").write_text(json.dumps({"epoch": 3, "metrics": {"val/iou": 0.93}}))
        return folder

    return leave


@pytest.fixture
def error_file(tmp_path):
    path = tmp_path / "error.txt"
    path.write_text(
        "Traceback (most recent call last):\n  x\nsegcore.errors.NonFiniteLossError: loss is nan in epoch 3\n"
    )
    return path
