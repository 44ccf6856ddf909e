"""A run that goes on from another one's checkpoint with settings of its own: they are what is applied."""

import copy
import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from segcore.checkpoint.state import (
    TrainingState,
    load_checkpoint,
    read_best,
    read_checkpoint,
    read_state,
    save_checkpoint,
    write_best,
)
from segcore.config import LRSchedulerConfig, OptimizerConfig, TrainConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import SampleCache, open_cache
from segcore.training import loop as training
from segcore.training import step
from segcore.training.groups import build_optimizer
from segcore.training.loop import EpochResult, fit
from segcore.training.schedule import build_lr_scheduler

CPU = torch.device("cpu")
EPOCHS = 4
BASE: dict[str, Any] = {
    "data": {"root": "synthetic", "image_size": 32, "synthetic": {"num_images": 24, "noise": 0.1}},
    "model": {"base_channels": 4, "depth": 2, "dropout": 0.1},
    "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.01},
    "lr_scheduler": {"name": "cosine"},
    "train": {"epochs": EPOCHS, "batch_size": 4},
}


def config(changes: dict[str, Any] | None = None) -> TrainConfig:
    """`BASE` with dotted keys replaced."""
    tree = copy.deepcopy(BASE)
    for key, value in (changes or {}).items():
        section, _, leaf = key.partition(".")
        if leaf:
            tree.setdefault(section, {})[leaf] = value
        else:
            tree[section] = value
    return TrainConfig.model_validate(tree)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleCache]:
    """24 generated images of 32 px: 16 train, 4 val, 4 test; 4 steps an epoch at batch size 4."""
    data = config({"data": {**BASE["data"], "cache_dir": str(tmp_path_factory.mktemp("cache"))}}).data
    with open_cache(build_cache(discover(data), data)) as opened:
        yield opened


def saved_after(epoch: int, run: TrainConfig, cache: SampleCache, folder: Path) -> Path:
    for result in fit(run, cache, device=CPU):
        if result.epoch == epoch:
            save_checkpoint(folder, result.state)
            break
    return folder


@pytest.fixture(scope="module")
def parent(cache: SampleCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of `BASE` after epoch 2."""
    return saved_after(2, config(), cache, tmp_path_factory.mktemp("parent"))


def fork(changes: dict[str, Any], cache: SampleCache, checkpoint: Path) -> list[EpochResult]:
    return list(fit(config(changes), cache, device=CPU, checkpoint=read_checkpoint(checkpoint, as_fork=True)))


def settings_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in optimizer.param_groups]


def test_a_fork_with_its_parents_settings_trains_as_its_parent_does(cache: SampleCache, parent: Path) -> None:
    """So nothing but the settings makes the difference."""
    going_on = list(fit(config(), cache, device=CPU, checkpoint=read_checkpoint(parent)))
    forked = fork({}, cache, parent)
    for mine, other in zip(forked, going_on, strict=True):
        assert mine.metrics["train/loss"] == other.metrics["train/loss"]
        assert mine.metrics["val/iou"] == other.metrics["val/iou"]
    assert [result.epoch for result in forked] == [3, 4]


def test_the_best_epoch_of_a_fork_is_one_of_its_own(cache: SampleCache, parent: Path, tmp_path: Path) -> None:
    better = Path(shutil.copytree(parent, tmp_path / "better"))
    best = read_best(parent)
    write_best(better, replace(best, metrics={**best.metrics, "val/iou": 0.999}))
    assert not next(iter(fit(config(), cache, device=CPU, checkpoint=read_checkpoint(better)))).is_best
    first = next(iter(fit(config(), cache, device=CPU, checkpoint=read_checkpoint(better, as_fork=True))))
    assert first.is_best
    assert first.state.best is not None
    assert first.state.best.epoch == 3
    save_checkpoint(tmp_path, first.state)
    assert read_best(tmp_path).metrics["val/iou"] == first.metrics["val/iou"]


CHANGES: list[dict[str, Any]] = [
    {"optimizer.lr": 0.002},
    {"optimizer.weight_decay": 0.3},
    {"optimizer.name": "sgd", "optimizer.momentum": 0.5},
    {"optimizer.name": "nadam"},
    {"lr_scheduler.name": "constant"},
    {"lr_scheduler.name": "onecycle", "lr_scheduler.pct_start": 0.6},
    {"lr_scheduler.name": "polynomial", "lr_scheduler.power": 2.0},
    {"lr_scheduler.min_lr_factor": 0.5},
    {"train.batch_size": 8},
    {"train.batch_size": 2, "optimizer.lr": 0.005},
]


@pytest.mark.slow
@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: ",".join(f"{k}={v}" for k, v in changes.items()))
def test_optimizer_and_schedule_are_those_of_the_forks_config(
    changes: dict[str, Any], cache: SampleCache, parent: Path
) -> None:
    """As in a run of that config that never saw the parent: the same groups, and the same learning rate each epoch."""
    fresh = list(fit(config(changes), cache, device=CPU))
    forked = fork(changes, cache, parent)
    assert [r.metrics["lr"] for r in forked] == pytest.approx([r.metrics["lr"] for r in fresh[2:]])
    assert type(forked[-1].state.optimizer) is type(fresh[-1].state.optimizer)
    assert settings_of(forked[-1].state.optimizer) == settings_of(fresh[-1].state.optimizer)
    if changes.keys() != {"train.batch_size"}:
        base = config()
        old = build_optimizer(forked[-1].state.model, base.optimizer)
        schedule = build_lr_scheduler(old, base.lr_scheduler, EPOCHS, 4)
        is_lr_same = [r.metrics["lr"] for r in forked] == pytest.approx([schedule.lr] * 2)
        assert not is_lr_same or settings_of(old) != settings_of(forked[-1].state.optimizer)


def test_the_learning_rate_that_is_shown_is_the_one_that_moves_the_weights(cache: SampleCache, parent: Path) -> None:
    before = read_state(parent)["model"]
    still = fork({"optimizer.lr": 1e-12}, cache, parent)[-1].state.model.state_dict()
    moved = fork({}, cache, parent)[-1].state.model.state_dict()
    weights = [name for name, value in before.items() if name.endswith("weight") and value.ndim > 1]
    assert weights
    for name in weights:
        assert torch.allclose(still[name], before[name], atol=1e-9), name
        assert not torch.allclose(moved[name], before[name], atol=1e-5), name


def test_the_moments_are_taken_over_where_the_optimizer_is_the_same(cache: SampleCache, parent: Path) -> None:
    steps = {
        name: int(next(iter(fork(changes, cache, parent)[-1].state.optimizer.state.values()))["step"])
        for name, changes in (("same", {"optimizer.lr": 0.002}), ("other", {"optimizer.name": "nadam"}))
    }
    assert steps == {"same": 16, "other": 8}  # 4 steps an epoch, two epochs before the fork and two after


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), list(itertools.permutations(["adamw", "sgd", "nadam"], 2)))
def test_any_optimizer_goes_on_from_any_other(old: str, new: str, cache: SampleCache, tmp_path: Path) -> None:
    checkpoint = saved_after(1, config({"optimizer.name": old}), cache, tmp_path)
    results = fork({"optimizer.name": new, "train.epochs": 2}, cache, checkpoint)
    assert type(results[-1].state.optimizer).__name__.lower() == new


def test_plateaus_factor_is_left_behind_with_plateau(cache: SampleCache, tmp_path: Path) -> None:
    plateau = {"lr_scheduler.name": "plateau", "lr_scheduler.patience": 0, "lr_scheduler.factor": 0.5}
    checkpoint = saved_after(2, config(plateau), cache, tmp_path)
    progress = json.loads((checkpoint / "progress.json").read_text())
    progress["lr_schedule"]["plateau_factor"] = 0.25
    (checkpoint / "progress.json").write_text(json.dumps(progress))
    assert fork({"lr_scheduler.name": "constant"}, cache, checkpoint)[0].metrics["lr"] == 0.01
    lower = fork({**plateau, "optimizer.lr": 0.02}, cache, checkpoint)[0].metrics["lr"]
    assert lower == pytest.approx(0.005)  # the plateau that was reached holds for the new learning rate too


@pytest.mark.parametrize(("old", "new"), [(0.0, 0.9), (0.9, 0.0), (0.9, 0.5)])
def test_a_moving_average_may_begin_end_or_change(old: float, new: float, cache: SampleCache, tmp_path: Path) -> None:
    checkpoint = saved_after(2, config({"train.ema_decay": old}), cache, tmp_path)
    state = fork({"train.ema_decay": new}, cache, checkpoint)[-1].state
    assert (state.ema is not None) == (new > 0)
    if state.ema is not None:
        assert int(state.ema.n_averaged) == (16 if old else 8)
        for average, weight in zip(state.ema.module.parameters(), state.model.parameters(), strict=True):
            assert torch.allclose(average, weight, atol=0.2)  # no average with weights that were never trained


def test_loss_augmentation_dropout_clipping_and_threshold_are_the_forks(
    cache: SampleCache, parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: dict[str, Any] = {}

    def spy(module: Any, name: str) -> None:
        real = getattr(module, name)

        def record(*args: Any, **kwargs: Any) -> Any:
            built.setdefault(name, []).append((args, kwargs))
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, record)

    for module, name in ((step, "build_loss"), (training, "build_loader"), (step, "TrainStep")):
        spy(module, name)
    changes = {
        "loss": {"bce": 0.3, "dice": 0.0, "tversky": 1.7}, "augment": {"policy": "heavy", "rotate": 3.0},
        "model.dropout": 0.35, "train.grad_clip": 0.01, "threshold": 0.37,
    }  # fmt: skip
    wanted = config(changes)
    result = fork(changes, cache, parent)[0]
    assert built["build_loss"][0][0] == (wanted.loss,)
    assert built["build_loader"][0][1]["augment"] == wanted.augment
    assert built["TrainStep"][0][1]["grad_clip"] == 0.01
    assert result.metrics["val/threshold"] == pytest.approx(0.37, abs=1e-3)
    dropouts = [module.p for module in result.state.model.modules() if isinstance(module, nn.Dropout2d)]
    assert dropouts == [0.35]


def test_groups_that_differ_start_with_new_moments() -> None:
    class Split(nn.Module):
        has_timm_encoder = True

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = nn.Linear(2, 2), nn.Linear(2, 1)

        def encoder_parameters(self) -> Iterator[nn.Parameter]:
            return self.encoder.parameters()

        def freeze_encoder(self) -> None:
            self.encoder.requires_grad_(False)

    def state(factor: float) -> TrainingState:
        model = Split()
        optimizer = build_optimizer(model, OptimizerConfig(encoder_lr_factor=factor))  # type: ignore[arg-type]
        schedule = build_lr_scheduler(optimizer, LRSchedulerConfig(), 2, 2)
        return TrainingState(model, optimizer, schedule, torch.amp.GradScaler("cpu", enabled=False), None)

    trained = state(0.5)
    trained.model.head(trained.model.encoder(torch.ones(1, 2))).sum().backward()  # type: ignore[operator]
    trained.optimizer.step()
    payload = {"optimizer": trained.optimizer.state_dict(), "optimizer_class": "AdamW"}
    from segcore.checkpoint.state import _load_optimizer

    taken, frozen = state(0.1), state(0.0)
    _load_optimizer(payload, taken.optimizer)
    _load_optimizer(payload, frozen.optimizer)
    assert len(taken.optimizer.state) == 4
    assert [group["peak_lr"] for group in taken.optimizer.param_groups] == [1e-4, 1e-4, 1e-3, 1e-3]
    assert len(frozen.optimizer.state) == 0


@pytest.mark.parametrize(("old", "new"), [(True, False), (False, True), (True, True)])
def test_a_loss_scale_may_begin_or_end(old: bool, new: bool, cache: SampleCache, parent: Path, tmp_path: Path) -> None:
    state = next(iter(fit(config(), cache, device=CPU, checkpoint=read_checkpoint(parent)))).state
    state.scaler = torch.amp.GradScaler("cpu", enabled=old, init_scale=8.0)
    state.scaler.scale(torch.ones(1))
    save_checkpoint(tmp_path, state)
    state.scaler = torch.amp.GradScaler("cpu", enabled=new, init_scale=2.0)
    load_checkpoint(read_checkpoint(tmp_path, as_fork=True), state)
    assert state.scaler.get_scale() == ((8.0 if old else 2.0) if new else 1.0)
