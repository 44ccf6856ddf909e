"""Forks: how their parameters are altered, and what they begin with."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fork_space import SPACE

from search.runs.paths import RunPaths, trial_dirname
from search.schedulers.forks import (
    Snapshots,
    perturb,
)
from search.space.parse import apply, parse_space
from search.space.tree import Space
from segcore.config import TrainConfig

PARENT = {
    "optimizer.lr": 1e-3, "loss.dice": 1.0, "model.dropout": 0.2, "train.batch_size": 10,
    "lr_scheduler.name": "plateau", "lr_scheduler.patience": 3,
}  # fmt: skip


def altered(probability: float, count: int = 300, params: dict[str, Any] = PARENT) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [perturb(SPACE, params, rng, probability) for _ in range(count)]


def test_without_resampling_each_number_moves_by_a_fifth_and_a_choice_stays() -> None:
    found = altered(0.0)
    assert {round(params["optimizer.lr"], 9) for params in found} == {8e-4, 1.2e-3}
    assert {params["loss.dice"] for params in found} == {0.8, 1.2}
    assert {params["train.batch_size"] for params in found} == {8, 12}
    assert {round(params["model.dropout"], 6) for params in found} == {0.1, 0.3}  # one step: a fifth is less
    assert {params["lr_scheduler.patience"] for params in found} == {2, 4}
    assert {params["lr_scheduler.name"] for params in found} == {"plateau"}
    assert len({tuple(params.values()) for params in found}) == 32  # each on its own


def test_the_ends_of_a_range_hold() -> None:
    corner = {**PARENT, "optimizer.lr": 1e-1, "loss.dice": 0.0, "model.dropout": 0.4, "train.batch_size": 4}
    for params in altered(0.0, params=corner):
        assert round(params["optimizer.lr"], 9) in (0.1, 0.08)
        assert round(params["loss.dice"], 9) in (0.0, 0.4)
        assert round(params["model.dropout"], 6) in (0.3, 0.4)
        assert params["train.batch_size"] in (4, 5)


def test_resampling_happens_as_often_as_it_should_and_over_the_whole_range() -> None:
    found = altered(0.25, 2000)
    drawn = [p["optimizer.lr"] for p in found if not np.isclose(p["optimizer.lr"], [8e-4, 1.2e-3]).any()]
    assert len(drawn) / 2000 == pytest.approx(0.25, abs=0.03)
    assert np.log10(drawn).mean() == pytest.approx(-2.5, abs=0.15)  # even on the logarithm
    switched = [params for params in found if params["lr_scheduler.name"] == "constant"]
    assert len(switched) / 2000 == pytest.approx(0.125, abs=0.03)
    assert all("lr_scheduler.patience" not in params for params in switched)


def test_a_new_branch_brings_its_own_parameters() -> None:
    parent = {key: value for key, value in PARENT.items() if key != "lr_scheduler.patience"}
    found = altered(0.5, params={**parent, "lr_scheduler.name": "constant"})
    patiences = {p["lr_scheduler.patience"] for p in found if p["lr_scheduler.name"] == "plateau"}
    assert patiences == {1, 2, 3, 4, 5}


def test_a_fork_is_a_point_of_the_space_and_never_its_parent() -> None:
    for params in altered(0.25):
        assert params != PARENT
        SPACE.to_params(params)
        apply(TrainConfig(), params)
    only = parse_space({"loss.smooth": {"choice": [0.0, 1.0]}}, TrainConfig())
    assert perturb(only, {"loss.smooth": 1.0}, np.random.default_rng(0), 0.0) == {"loss.smooth": 0.0}


def test_a_key_that_the_parent_did_not_have_is_drawn() -> None:
    """The space of a search may have grown since the parent ran."""
    older = {key: value for key, value in PARENT.items() if key != "loss.dice"}
    assert len({params["loss.dice"] for params in altered(0.0, params=older)}) == 300


def test_a_fork_is_nothing_that_is_forbidden() -> None:
    raw = {"loss.dice": {"uniform": [0, 2]}, "loss.bce": {"uniform": [0, 2]}, "forbid": ["loss.dice > loss.bce"]}
    space = parse_space(raw, TrainConfig())
    rng = np.random.default_rng(0)
    for _ in range(100):
        params = perturb(space, {"loss.dice": 1.0, "loss.bce": 1.0}, rng, 0.25)
        assert params["loss.dice"] <= params["loss.bce"]


def test_a_snapshot_outlives_the_checkpoint_that_it_links_to(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    checkpoint = paths.tune / "session-1" / trial_dirname(3) / "checkpoint_000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.pt").write_bytes(b"weights")
    snapshots = Snapshots(paths)
    snapshots.keep(3, 2)
    kept = paths.snapshot(3, 2) / "state.pt"
    assert kept.samefile(checkpoint / "state.pt")
    shutil.rmtree(checkpoint)
    snapshots.start_fork(7, 3, 2)
    snapshots.drop(3, 2)
    assert (paths.fork_start(7) / "state.pt").read_bytes() == b"weights"
    assert not snapshots.has(3, 2)
    assert paths.trial_checkpoints(7) == []  # what a fork begins with is none of its own


def test_a_file_system_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    paths = RunPaths(tmp_path)
    checkpoint = paths.tune / "session-1" / trial_dirname(0) / "checkpoint_000001"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.pt").write_bytes(b"weights")
    Snapshots(paths).keep(0, 1)
    assert (paths.snapshot(0, 1) / "state.pt").read_bytes() == b"weights"


def test_space_types_are_what_a_fork_needs() -> None:
    assert isinstance(SPACE, Space)
    assert SPACE.from_params(SPACE.to_params(PARENT)) == PARENT
