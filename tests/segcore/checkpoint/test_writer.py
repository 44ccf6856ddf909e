"""What a trial saves, when it does so, and what is left when it cannot or when it is stopped."""

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from segcore.checkpoint import files as checkpoint_files
from segcore.checkpoint import state as checkpoint
from segcore.checkpoint import writer as checkpoint_writer
from segcore.checkpoint.files import drop_state, folder_bytes
from segcore.checkpoint.state import (
    BestModel,
    Tensors,
    TrainingState,
    first_readable,
    load_checkpoint,
    read_best,
    read_checkpoint,
    read_state,
)
from segcore.checkpoint.writer import CheckpointWriter
from segcore.config import LRSchedulerConfig, ModelConfig, OptimizerConfig
from segcore.errors import DiskError, TrainingError
from segcore.models.build import build_model
from segcore.training.groups import build_optimizer
from segcore.training.schedule import build_lr_scheduler
from segcore.training.step import build_ema


class Run:
    """A trial of a tiny model whose every epoch moves all tensors; `epoch` takes one from its steps to its report."""

    def __init__(self, ema_decay: float = 0.0) -> None:
        torch.manual_seed(0)
        model = build_model(ModelConfig(base_channels=2, depth=1)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = build_optimizer(model, OptimizerConfig(lr=0.1))
        schedule = build_lr_scheduler(optimizer, LRSchedulerConfig(name="plateau"), 20, 1)
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.state = TrainingState(model, optimizer, schedule, scaler, build_ema(model, ema_decay))

    def train(self) -> None:
        state = self.state
        state.optimizer.zero_grad()
        state.model(torch.rand(2, 3, 16, 16) * 255).mean().backward()
        state.optimizer.step()
        if state.ema is not None:
            state.ema.update_parameters(state.model)
        state.epoch += 1

    def validate(self, value: float) -> bool:
        """What validation changes; returns whether the epoch is the best so far."""
        state = self.state
        state.lr_schedule.end_epoch(value)
        is_best = state.best is None or value > state.best.metrics["val/iou"]
        if is_best:
            metrics = {"val/iou": value, "val/threshold": 0.5}
            curve = {"threshold": [0.0, 1.0], "epoch": [state.epoch, state.epoch]}
            state.best = BestModel.copy_of(state.eval_model, state.epoch, metrics, curve, {})
        return is_best

    def epoch(self, writer: CheckpointWriter, value: float) -> None:
        self.train()
        writer.begin(self.state)
        writer.end(self.state, is_best=self.validate(value))
        writer.reported()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_checkpoint_brings_everything_back_bit_by_bit(ema_decay: float, tmp_path: Path) -> None:
    run, other = Run(ema_decay), Run(ema_decay)
    with CheckpointWriter(tmp_path, save_at=[3]) as writer:
        for value in (0.5, 0.7, 0.6):
            run.epoch(writer, value)
    assert names(tmp_path) == ["checkpoint_000003"]
    load_checkpoint(read_checkpoint(tmp_path / "checkpoint_000003"), other.state)
    assert (other.state.epoch, other.state.best.epoch if other.state.best else None) == (3, 2)
    assert other.state.lr_schedule.state_dict() == run.state.lr_schedule.state_dict()
    for _ in range(2):  # the same steps from here on, from the same moments and averages
        torch.manual_seed(1)
        run.train()
        torch.manual_seed(1)
        other.train()
    for left, right in zip(run.state.model.state_dict().values(), other.state.model.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    if ema_decay:
        assert run.state.ema is not None
        assert other.state.ema is not None
        assert int(other.state.ema.n_averaged) == 5
        for name, value in run.state.ema.state_dict().items():
            assert torch.equal(value, other.state.ema.state_dict()[name])


def test_the_best_weights_are_written_once_and_linked_from_then_on(tmp_path: Path) -> None:
    run = Run()
    with CheckpointWriter(tmp_path, save_at=range(20)) as writer:
        run.epoch(writer, 0.5)
        first = tmp_path / "checkpoint_000001"
        assert (first / "best.safetensors").samefile(first / "weights.safetensors")
        inode = (first / "best.safetensors").stat().st_ino
        weights = load_file(first / "best.safetensors")
        run.epoch(writer, 0.4)
        run.epoch(writer, 0.3)
    third = tmp_path / "checkpoint_000003"
    assert (third / "best.safetensors").stat().st_ino == inode
    assert not (third / "best.safetensors").samefile(third / "weights.safetensors")
    best = read_best(third)
    assert (best.epoch, best.curve["epoch"]) == (1, [1, 1])
    assert all(torch.equal(best.weights[name], value) for name, value in weights.items())
    assert not all(
        torch.equal(load_file(third / "weights.safetensors")[name], value) for name, value in weights.items()
    )
    assert folder_bytes([third]) == writer.num_bytes == sum(path.stat().st_size for path in third.iterdir())


def test_where_links_fail_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(checkpoint_files.os, "link", no_links)
    run = Run()
    with CheckpointWriter(tmp_path, save_at=range(20)) as writer:
        run.epoch(writer, 0.5)
        run.epoch(writer, 0.4)
    assert read_best(tmp_path / "checkpoint_000002").epoch == 1
    assert not (tmp_path / "checkpoint_000002" / "best.safetensors").samefile(
        tmp_path / "checkpoint_000002" / "weights.safetensors"
    )


def test_an_older_best_epoch_is_written_anew_where_there_is_nothing_to_link(tmp_path: Path) -> None:
    run = Run()
    with CheckpointWriter(tmp_path / "a") as writer:
        run.epoch(writer, 0.5)
    with CheckpointWriter(tmp_path / "b", save_at=[2]) as writer:
        run.epoch(writer, 0.4)
    assert read_best(tmp_path / "b" / "checkpoint_000002").epoch == 1


def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Epochs whose tensors began to be written before they were validated, in the run of `epochs_of`."""
    early: list[int] = []
    start = CheckpointWriter._start

    def noted(self: CheckpointWriter, state: TrainingState) -> None:
        early.append(state.epoch)
        start(self, state)

    monkeypatch.setattr(CheckpointWriter, "_start", noted)
    return early


def test_tensors_are_written_early_where_the_epoch_is_sure_or_likely_to_be_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = started(monkeypatch)
    run, early, saved = Run(), [], []
    with CheckpointWriter(tmp_path, save_at=[8]) as writer:
        for epoch, value in enumerate((0.1, 0.2, 0.15, 0.3, 0.2, 0.2, 0.4, 0.1, 0.1), start=1):
            run.train()
            writer.begin(run.state)
            if epoch in begun:
                early.append(epoch)
            writer.end(run.state, is_best=run.validate(value))
            if (tmp_path / f"checkpoint_{epoch:06d}").exists():
                saved.append(epoch)
            writer.reported()
    assert saved == [1, 2, 4, 7, 8]
    assert early == [1, 2, 3, 4, 5, 8]  # 7 was the best after a row of others, so nothing was begun
    assert names(tmp_path) == ["checkpoint_000008"]


def test_a_trial_without_better_epochs_saves_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(checkpoint_writer.time, "monotonic", lambda: now[0])
    run, saved = Run(), []
    with CheckpointWriter(tmp_path) as writer:
        for epoch, value in enumerate((0.9, 0.1, 0.1, 0.1, 0.1, 0.1), start=1):
            now[0] += 12.0
            run.epoch(writer, value)
            if (tmp_path / f"checkpoint_{epoch:06d}").exists():
                saved.append(epoch)
    assert saved == [1, 4]  # 36 s after the first


def test_the_checkpoint_before_stays_until_the_report_has_arrived(tmp_path: Path) -> None:
    run = Run()
    older = [tmp_path / "session-1" / name for name in ("checkpoint_000009", "checkpoint_000008")]
    for path in older:
        path.mkdir(parents=True)
    own = tmp_path / "session-2"
    with CheckpointWriter(own, older=older) as writer:
        run.train()
        writer.begin(run.state)
        writer.end(run.state, is_best=run.validate(0.1))
        assert names(own) == ["checkpoint_000001"]
        assert all(path.exists() for path in older)
        writer.reported()
        run.epoch(writer, 0.2)
        run.train()
        writer.begin(run.state)
        writer.end(run.state, is_best=run.validate(0.3))
    assert names(own) == ["checkpoint_000002", "checkpoint_000003"]
    assert names(tmp_path / "session-1") == []


def test_an_epoch_that_is_not_saved_deletes_nothing(tmp_path: Path) -> None:
    run = Run()
    older = tmp_path / "old" / "checkpoint_000004"
    older.mkdir(parents=True)
    run.train()
    run.validate(0.9)
    with CheckpointWriter(tmp_path / "new", older=[older]) as writer:
        run.epoch(writer, 0.1)
    assert older.exists()


@pytest.mark.parametrize("failing", ["save_tensors", "torch.save", "np.savez", "link_file"])
@pytest.mark.parametrize("early", [True, False])
def test_a_full_disk_is_told_as_one_and_costs_no_earlier_checkpoint(
    failing: str, early: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run()
    with CheckpointWriter(tmp_path, save_at=[2] if early else []) as writer:
        run.epoch(writer, 0.5)
        writer._recent.clear()  # nothing is likely then
        owner: Any = {"torch.save": torch, "np.savez": checkpoint.np}.get(failing, checkpoint)
        monkeypatch.setattr(owner, failing.rpartition(".")[2], full_disk)
        with pytest.raises(DiskError, match=r"^epoch 2: its checkpoint .*written to .*000002: .*No space left"):
            run.epoch(writer, 0.6)
    monkeypatch.undo()
    assert names(tmp_path) == ["checkpoint_000001"]
    assert read_state(tmp_path / "checkpoint_000001")["epoch"] == 1


def test_what_could_not_be_written_in_vain_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    with CheckpointWriter(tmp_path) as writer:
        run.epoch(writer, 0.5)
        with monkeypatch.context() as full:
            full.setattr(torch, "save", full_disk)
            run.epoch(writer, 0.4)  # begun, because the first was the best
        run.epoch(writer, 0.6)
    assert names(tmp_path) == ["checkpoint_000003"]


class StoppedError(BaseException):
    """Ends a trial from outside, as Ray's SystemExit does."""


def test_a_stop_within_validation_leaves_nothing_half_written_and_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_writing, may_end = threading.Event(), threading.Event()
    write = Tensors.write

    def slow(self: Tensors, folder: Path) -> None:
        is_writing.set()
        may_end.wait(10)
        write(self, folder)

    run = Run()
    with contextlib.suppress(StoppedError), CheckpointWriter(tmp_path, save_at=[2]) as writer:
        run.epoch(writer, 0.5)
        monkeypatch.setattr(Tensors, "write", slow)
        run.train()
        writer.begin(run.state)
        assert is_writing.wait(10)
        assert names(tmp_path) == [".checkpoint_000002", "checkpoint_000001"]
        threading.Timer(0.2, may_end.set).start()
        raise StoppedError
    assert may_end.is_set(), "the thread was not waited for"
    assert names(tmp_path) == ["checkpoint_000001"]
    assert [thread for thread in threading.enumerate() if thread.name.startswith("checkpoint")] == []


@pytest.mark.parametrize("point", ["in the tensors", "before the rest", "before the renaming"])
def test_a_process_killed_within_a_save_leaves_the_checkpoint_before(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is a fork that ends itself at that point, with no chance to clean up."""
    run = Run()
    child = os.fork()
    if child == 0:
        die: Callable[..., None] = lambda *args, **kwargs: os._exit(7)  # noqa: E731
        torch.set_num_threads(1)
        with CheckpointWriter(tmp_path) as writer:
            run.epoch(writer, 0.5)
            if point == "in the tensors":
                checkpoint.torch.save = die
            elif point == "before the rest":
                checkpoint_writer.write_progress = die
            else:
                Path.rename = die  # type: ignore[method-assign, assignment]
            run.epoch(writer, 0.6)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert names(tmp_path) == [".checkpoint_000002", "checkpoint_000001"]
    found = sorted(tmp_path.glob("checkpoint_*"), reverse=True)
    assert first_readable(found).folder == tmp_path / "checkpoint_000001"  # type: ignore[union-attr]
    assert read_best(tmp_path / "checkpoint_000001").epoch == 1


def test_an_ended_trials_checkpoint_keeps_its_best_epoch_without_the_rest(tmp_path: Path) -> None:
    run = Run()
    with CheckpointWriter(tmp_path) as writer:
        run.epoch(writer, 0.5)
    folder = tmp_path / "checkpoint_000001"
    drop_state(folder)
    assert names(folder) == ["best.json", "best.safetensors", "curve.json", "overlays.npz"]
    assert read_best(folder).epoch == 1
    with pytest.raises(TrainingError, match="cannot be read"):
        read_state(folder)
    assert folder_bytes([folder]) < writer.num_bytes / 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpus_tensors_are_those_of_the_end_of_training_and_come_back_bit_by_bit(tmp_path: Path) -> None:
    model = torch.nn.Sequential(*(torch.nn.Conv2d(64, 64, 3) for _ in range(40))).cuda()
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.1))
    schedule = build_lr_scheduler(optimizer, LRSchedulerConfig(), 20, 1)
    state = TrainingState(model, optimizer, schedule, torch.amp.GradScaler("cuda", enabled=False), None)
    with CheckpointWriter(tmp_path) as writer:
        for _ in range(20):  # queued on the GPU, not done, when the writer begins
            optimizer.zero_grad()
            model(torch.rand(8, 64, 128, 128, device="cuda")).square().mean().backward()
            optimizer.step()
        state.epoch = 1
        writer.begin(state)
        state.best = BestModel.copy_of(model, 1, {"val/iou": 0.5, "val/threshold": 0.5}, {}, {})
        writer.end(state, is_best=True)
        writer.reported()
    saved = read_state(tmp_path / "checkpoint_000001")
    for name, value in model.state_dict().items():
        assert torch.equal(saved["model"][name], value.cpu())
    for key, moments in optimizer.state_dict()["state"].items():
        assert torch.equal(saved["optimizer"]["state"][key]["exp_avg"], moments["exp_avg"].cpu())
