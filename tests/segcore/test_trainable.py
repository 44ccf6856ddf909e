"""The trainable without Ray around it: what is saved when, and where a fork begins."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from segcore import trainable
from segcore.checkpoint.state import read_best, read_state
from segcore.config import TrainConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.errors import TrainingError
from segcore.models.build import build_model
from segcore.trainable import train_trial
from segcore.training.cost import num_parameters

pytestmark = pytest.mark.slow

CONFIG = TrainConfig.model_validate(
    {
        "data": {"root": "synthetic", "image_size": 32, "synthetic": {"num_images": 16}},
        "model": {"base_channels": 4, "depth": 2},
        "optimizer": {"lr": 1e-9, "weight_decay": 0.0},  # so small that hardly an epoch is better than the first
        "train": {"epochs": 6, "batch_size": 4},
    }
)


@pytest.fixture(scope="module")
def cache_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = CONFIG.data.model_copy(update={"cache_dir": str(tmp_path_factory.mktemp("cache"))})
    return build_cache(discover(data), data)


class StoppedError(Exception):
    """Ray ends the function of a trial that is stopped in its report."""


def run(
    spec: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int = 99
) -> tuple[list[dict[str, Any]], list[int]]:
    """The reports, and the epochs that were saved when they were reported; copies are left in `folder/EPOCH`."""
    reports: list[dict[str, Any]] = []
    saved: list[int] = []

    def report(metrics: dict[str, Any]) -> None:
        reports.append(metrics)
        checkpoint = folder / "own" / f"checkpoint_{metrics['epoch']:06d}"
        if checkpoint.exists():
            saved.append(metrics["epoch"])
            shutil.copytree(checkpoint, folder / str(metrics["epoch"]))
        if metrics["epoch"] >= stop_after:
            raise StoppedError

    monkeypatch.setattr(trainable.tune, "report", report)
    with contextlib.suppress(StoppedError):
        train_trial({**spec, "folder": str(folder / "own")})
    return reports, saved


def spec_of(cache_path: Path, **changes: Any) -> dict[str, Any]:
    return {
        "number": 0, "train": CONFIG.model_dump(mode="json"), "cache": str(cache_path), "metric": "val/iou",
        "num_cpus": 1, "gpu_fraction": 0.0, "checkpoints": [], **changes,
    }  # fmt: skip


@pytest.mark.slow
def test_a_rung_is_saved_even_when_its_epoch_is_not_the_best(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports, without = run(spec_of(cache_path), tmp_path / "without", monkeypatch)
    best = sorted({report["best_epoch"] for report in reports})
    assert without == best
    rungs = sorted(set(range(2, 6)) - set(best))[:2]
    assert rungs, "every epoch was the best: this shows nothing"
    _, saved = run(spec_of(cache_path, save_at=rungs), tmp_path / "with", monkeypatch)
    assert saved == sorted({*best, *rungs})
    for epoch in rungs:
        assert read_state(tmp_path / "with" / str(epoch))["epoch"] == epoch
        assert read_best(tmp_path / "with" / str(epoch)).epoch == max(e for e in best if e <= epoch)


def test_a_fork_goes_on_from_its_parent_and_later_from_its_own(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(spec_of(cache_path, save_at=[2]), tmp_path / "parent", monkeypatch, stop_after=2)
    train = CONFIG.model_copy(update={"optimizer": CONFIG.optimizer.model_copy(update={"lr": 1e-2})})
    fork = spec_of(
        cache_path, number=5, train=train.model_dump(mode="json"), fork_from=str(tmp_path / "parent" / "2"), save_at=[4]
    )
    reports, saved = run(fork, tmp_path / "fork", monkeypatch, stop_after=4)
    assert [report["epoch"] for report in reports] == [3, 4]
    assert {report["number"] for report in reports} == {5}
    assert saved == [3, 4]
    assert reports[0]["best_epoch"] == 3
    assert reports[0]["lr"] > 1e-3

    resumed, _ = run({**fork, "checkpoints": [str(tmp_path / "fork" / "4")]}, tmp_path / "resumed", monkeypatch)
    assert [report["epoch"] for report in resumed] == [5, 6]
    assert min(report["best_epoch"] for report in resumed) >= 3
    assert resumed[-1]["finished"]


def test_a_fork_whose_start_cannot_be_read_does_not_begin_anew(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match=r"checkpoint .*gone.* cannot be read"):
        run(spec_of(cache_path, fork_from=str(tmp_path / "gone")), tmp_path, monkeypatch)


@pytest.mark.parametrize("as_fork", [False, True])
def test_a_trial_that_continues_reads_each_file_of_its_checkpoint_once(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_fork: bool
) -> None:
    run(spec_of(cache_path), tmp_path / "first", monkeypatch, stop_after=2)
    start = tmp_path / "first" / "2"
    reads: list[str] = []
    for name, reader in (("load_file", load_file), ("torch.load", torch.load), ("np.load", np.load)):

        def count(path: Any, *args: Any, reader: Any = reader, **options: Any) -> Any:
            reads.append(Path(path).name)
            return reader(path, *args, **options)

        monkeypatch.setattr(f"segcore.checkpoint.state.{name}", count)
    again = {"fork_from": str(start)} if as_fork else {"checkpoints": [str(start)], "reached": 2}
    reports, _ = run(spec_of(cache_path, **again), tmp_path / "again", monkeypatch, stop_after=3)
    assert [report["epoch"] for report in reports] == [3]
    last, best = ["state.pt", "weights.safetensors"], ["best.safetensors", "images.npz", "overlays.npz"]
    assert sorted(reads) == (last if as_fork else sorted([*last, *best]))


@pytest.mark.slow
@pytest.mark.parametrize("measured", [False, True])
def test_every_report_says_what_the_model_costs_and_how_long_it_takes_if_asked(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: bool
) -> None:
    calls = []

    def measure(model: torch.nn.Module, image_hw: tuple[int, int]) -> float:
        calls.append((num_parameters(model), image_hw))
        return 1.5

    monkeypatch.setattr(trainable, "measure_latency_ms", measure)
    reports, _ = run(spec_of(cache_path, measure_latency=measured), tmp_path, monkeypatch)
    count = num_parameters(build_model(CONFIG.model))
    assert len(reports) == 6
    assert [type(report["cost/parameters"]) for report in reports] == [int] * 6
    assert {report["cost/parameters"] for report in reports} == {count}
    assert [report.get("cost/latency_ms") for report in reports] == [1.5 if measured else None] * 6
    assert calls == ([(count, (32, 32))] if measured else [])
