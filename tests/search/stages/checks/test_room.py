"""Before the first training: what a run will write against what is free."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_searches import QUIET, new_config

from search.space.search import Search
from search.stages.checks import room
from search.stages.checks.check import Checked, NotChecked, Preparation
from segcore.data import loader_processes
from segcore.disk import Room
from segcore.models.build import build_model_outline

MB = 1_000_000


def job(folder: Path, **sections: object) -> Preparation:
    return Preparation(Search.of(new_config(folder, **sections)), "search", QUIET)


def free(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    monkeypatch.setattr(room, "room_at", lambda path: Room(num_bytes, 1000 * MB, 1))


def test_the_need_follows_from_the_models_and_the_trials(tmp_path: Path) -> None:
    """One model of W bytes with AdamW: a whole checkpoint has 3 W of its parameters, and each of 4 trials keeps W."""
    search = job(tmp_path).search
    model = build_model_outline(search.base.model)
    parameters = 4 * sum(value.numel() for value in model.parameters())
    weights = parameters + sum(value.numel() * value.element_size() for value in model.buffers())
    need = room.need_of(search, is_search=True)
    assert need.least == 4 * weights + (weights + 2 * parameters) + weights
    assert need.likely == 4 * weights + 4 * (weights + 2 * parameters) + weights + 4 * 500_000


def test_a_disk_that_is_certainly_too_small_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free(monkeypatch, 10_000)
    room.results_disk(job(tmp_path))
    told = r"results: the run does not fit: it writes 0\.\d MB or more, .* only 0\.0 MB of 1\.00 GB are free\."
    assert re.search(told, caplog.text)


def test_a_disk_that_may_fill_up_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free(monkeypatch, 2 * MB)
    assert isinstance(room.results_disk(job(tmp_path)), Checked)
    assert "the run may not fit: it writes up to 2." in caplog.text
    caplog.clear()
    free(monkeypatch, 500 * MB)
    with caplog.at_level(logging.WARNING):
        room.results_disk(job(tmp_path))
    assert not caplog.text


def test_less_is_kept_where_the_config_says_so(tmp_path: Path) -> None:
    settings = {"cpus_per_trial": 1, "gpus_per_trial": 0}
    many = {"num_samples": 4000, "scheduler": {"name": "none"}, "gate": False}
    without = job(tmp_path, search=many, resources={**settings, "checkpoints_gb": None})
    within = job(tmp_path, search=many, resources={**settings, "checkpoints_gb": 0.01})
    assert room.need_of(without.search, is_search=True).least > 40 * MB
    assert room.need_of(within.search, is_search=True).least < 11 * MB


def test_loader_processes_are_checked_where_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(room.loader_memory(job(tmp_path)), NotChecked)
    monkeypatch.setattr(loader_processes.os, "statvfs", lambda path: SimpleNamespace(f_bavail=10, f_frsize=4096))
    found = room.loader_memory(job(tmp_path, train={"epochs": 1, "batch_size": 8, "num_workers": 2}))
    assert found == Checked("0 of 2 loader processes have room")
    assert "--shm-size" in caplog.text
