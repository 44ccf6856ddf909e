"""What a trial writes so that it can resume, and so that its best epoch is never lost.

A checkpoint folder holds the last epoch: `weights.safetensors` (the validated weights), `state.pt` (optimizer, loss
scale, and the raw weights where a moving average is validated) and `progress.json` (its number and the schedule). It
also holds the best epoch: `best.safetensors` (its weights), `best.json` (its number and metrics), `curve.json` and
`overlays.npz` (its threshold curve and a few validation images) and `images.npz` (each validation image's pixel
counts). Files that two epochs or two checkpoints share are hard links. No arbitrary pickle is loaded: `state.pt` is
read with `weights_only=True`.

Validation does not change tensors, so `Tensors` may be written while it runs; `write_progress` adds the rest.
"""

import json
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segcore.checkpoint.files import (
    BEST_FILE,
    CURVE_FILE,
    IMAGES_FILE,
    LAST_WEIGHTS_FILE,
    OVERLAYS_FILE,
    PROGRESS_FILE,
    STATE_FILE,
    WEIGHTS_FILE,
    files_of_best,
    link_file,
    write_file,
)
from segcore.errors import TrainingError
from segcore.scores.image_counts import ImageCounts
from segcore.tensor_file import save_tensors
from segcore.training.schedule import LRSchedule

_UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError,
    SafetensorError,
)  # fmt: skip
"""What the readers of these files raise when a crash or a full disk has truncated one."""


@dataclass(frozen=True)
class BestModel:
    """The best epoch so far.

    Attributes:
        epoch: Its number, from 1.
        metrics: Its metrics by key.
        weights: Its weights by name, on the CPU.
        curve: Its threshold curve, from `CurveResult.to_dict`.
        overlays: A few validation images with probabilities, from `Evaluation.overlays`.
        images: Each validation image's pixel counts; None in checkpoints of versions that did not write them.
    """

    epoch: int
    metrics: dict[str, float]
    weights: dict[str, Tensor]
    curve: dict[str, Any]
    overlays: dict[str, np.ndarray]
    images: ImageCounts | None = None

    @classmethod
    def copy_of(
        cls,
        model: nn.Module,
        epoch: int,
        metrics: dict[str, float],
        curve: dict[str, Any],
        overlays: dict[str, np.ndarray],
        images: ImageCounts | None = None,
    ) -> Self:
        """Copy the weights to the CPU, so that training may continue.

        Args:
            model: The validated model.
            epoch: The epoch, from 1.
            metrics: The epoch's metrics by key.
            curve: The threshold curve, from `CurveResult.to_dict`.
            overlays: A few validation images with probabilities, from `Evaluation.overlays`.
            images: Each validation image's pixel counts.
        """
        weights = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in model.state_dict().items()}
        return cls(epoch, dict(metrics), weights, curve, overlays, images)


@dataclass
class TrainingState:
    """The live objects of one training run, and its progress."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    lr_schedule: LRSchedule
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None
    epoch: int = 0
    best: BestModel | None = None

    @property
    def eval_model(self) -> nn.Module:
        """The model that is validated: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module


@dataclass(frozen=True)
class Tensors:
    """References to an epoch's tensors after its training steps, to be written before the next epoch's steps."""

    weights: dict[str, Tensor]
    rest: dict[str, Any]

    @classmethod
    def of(cls, state: TrainingState) -> Self:
        """The tensors of a state, without copying them."""
        rest: dict[str, Any] = {
            "epoch": state.epoch,
            "optimizer": state.optimizer.state_dict(),
            "optimizer_class": type(state.optimizer).__name__,
            "scaler": state.scaler.state_dict(),
            "model": None if state.ema is None else state.model.state_dict(),
            "num_averaged": None if state.ema is None else state.ema.n_averaged,
        }
        return cls(state.eval_model.state_dict(), rest)

    def write(self, folder: Path) -> None:
        """Write the tensors into a folder; those on a GPU are copied on the calling thread's current stream."""
        weights = {name: value.detach().cpu().contiguous() for name, value in self.weights.items()}
        write_file(folder / LAST_WEIGHTS_FILE, lambda path: save_tensors(weights, path))
        write_file(folder / STATE_FILE, lambda path: torch.save(self.rest, path))


def write_progress(folder: Path, state: TrainingState, previous: Path | None = None) -> None:
    """Complete a folder that holds the epoch's tensors with the results of its validation.

    Args:
        folder: The folder that `Tensors.write` wrote to.
        state: The state after the epoch.
        previous: A checkpoint with the same best epoch, whose files are linked where this epoch is not the best.
    """
    best = state.best
    if best is None:
        raise ValueError("nothing to save before the first epoch")
    progress = {"epoch": state.epoch, "lr_schedule": state.lr_schedule.state_dict()}
    write_file(folder / PROGRESS_FILE, lambda path: path.write_text(json.dumps(progress)))
    if best.epoch == state.epoch:
        write_file(folder / WEIGHTS_FILE, lambda path: link_file(folder / LAST_WEIGHTS_FILE, path))
        _write_best_records(folder, best)
    elif previous is None:
        write_best(folder, best)
    else:
        for name in files_of_best(previous):
            write_file(folder / name, partial(link_file, previous / name))


def save_checkpoint(folder: Path, state: TrainingState) -> None:
    """Write the state after an epoch into `folder`, which is created; each file is complete or absent."""
    if state.best is None:
        raise ValueError("nothing to save before the first epoch")
    folder.mkdir(parents=True, exist_ok=True)
    Tensors.of(state).write(folder)
    write_progress(folder, state)


def write_best(folder: Path, best: BestModel) -> None:
    """Write the best epoch's files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / WEIGHTS_FILE, lambda path: save_tensors(best.weights, path))
    _write_best_records(folder, best)


def read_best(folder: Path) -> BestModel:
    """Read what `write_best` wrote.

    Raises:
        TrainingError: A file is missing or cannot be read.
    """
    try:
        record = json.loads((folder / BEST_FILE).read_text())
        weights = load_file(folder / WEIGHTS_FILE)
        curve = json.loads((folder / CURVE_FILE).read_text())
        with np.load(folder / OVERLAYS_FILE, allow_pickle=False) as arrays:
            overlays = {name: arrays[name] for name in arrays.files if name != "threshold"}
        images = read_images(folder) if IMAGES_FILE in files_of_best(folder) else None
        return BestModel(int(record["epoch"]), dict(record["metrics"]), weights, curve, overlays, images)
    except (*_UNREADABLE, TrainingError) as error:
        raise TrainingError(f"checkpoint {folder} cannot be read: {error}") from error


def read_images(folder: Path) -> ImageCounts:
    """Read the pixel counts of the best epoch's validation images, without reading its weights.

    Raises:
        TrainingError: The file is missing, as from an earlier version, or cannot be read.
    """
    return ImageCounts.load(folder / IMAGES_FILE)


def read_state(folder: Path) -> dict[str, Any]:
    """Read the last epoch's state that `save_checkpoint` wrote, onto the CPU.

    Raises:
        TrainingError: The file is missing or cannot be read.
    """
    try:
        payload: dict[str, Any] = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
        weights = load_file(folder / LAST_WEIGHTS_FILE)
        progress = json.loads((folder / PROGRESS_FILE).read_text())
        is_averaged = payload["model"] is not None
        return {
            **payload,
            "model": payload["model"] if is_averaged else weights,
            "average": weights if is_averaged else None,
            "lr_schedule": dict(progress["lr_schedule"]),
        }
    except _UNREADABLE as error:
        raise TrainingError(f"checkpoint {folder} cannot be read: {error}") from error


@dataclass
class Checkpoint:
    """A checkpoint folder that was completely read, on the CPU.

    `load_checkpoint` moves `state` and `best` out, so that no tensor is held twice while training continues.

    Attributes:
        folder: The folder it was read from.
        state: Its last epoch, from `read_state`.
        best: Its best epoch; None for another trial's checkpoint, whose best epoch had other settings.
    """

    folder: Path
    state: dict[str, Any]
    best: BestModel | None

    @property
    def epoch(self) -> int:
        """The number of its last epoch."""
        return int(self.state["epoch"])


def read_checkpoint(folder: Path, *, as_fork: bool = False) -> Checkpoint:
    """Read a checkpoint folder.

    Args:
        folder: Written by `save_checkpoint`.
        as_fork: Another trial continues from here, so the best epoch, which had other settings, is not read.

    Raises:
        TrainingError: A file is missing or cannot be read.
    """
    return Checkpoint(folder, best=None if as_fork else read_best(folder), state=read_state(folder))


def first_readable(folders: Sequence[Path], last_epoch: int | None = None) -> Checkpoint | None:
    """The first complete checkpoint; a crash may have left the newest one incomplete.

    Args:
        folders: Checkpoint folders, newest first.
        last_epoch: Checkpoints of later epochs are skipped; None skips none.
    """
    for folder in folders:
        try:
            found = read_checkpoint(folder)
        except TrainingError:
            continue
        if last_epoch is None or found.epoch <= last_epoch:
            return found
    return None


def load_checkpoint(checkpoint: Checkpoint, state: TrainingState) -> None:
    """Restore a saved state into live objects: what they learned, but not their settings.

    The model's shape must be the saved one. Learning rates, weight decay, momentum and the schedule stay those that the
    objects were built with. The optimizer's moments are not restored where its class or its groups differ, nor is a
    moving average that the saved run did not have.

    Args:
        checkpoint: From `read_checkpoint`; its contents are moved out of it.
        state: Built from the config that training continues with.

    Raises:
        TrainingError: The checkpoint belongs to another model.
    """
    payload = checkpoint.state
    try:
        state.model.load_state_dict(payload["model"])
        _load_optimizer(payload, state.optimizer)
        state.lr_schedule.load_state_dict(payload["lr_schedule"])
        if payload["scaler"]:  # empty where the saved run did not scale
            state.scaler.load_state_dict(payload["scaler"])
        if state.ema is not None and payload["average"] is not None:
            state.ema.module.load_state_dict(payload["average"])
            state.ema.n_averaged.copy_(payload["num_averaged"])
    except _UNREADABLE as error:
        raise TrainingError(f"checkpoint {checkpoint.folder} cannot be read: {error}") from error
    state.epoch, state.best = checkpoint.epoch, checkpoint.best
    checkpoint.state, checkpoint.best = {}, None


def _load_optimizer(payload: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    saved = payload["optimizer"]
    shape = [(group.get("name"), len(group["params"])) for group in saved["param_groups"]]
    own_shape = [(group.get("name"), len(group["params"])) for group in optimizer.param_groups]
    own_class = type(optimizer).__name__
    if shape != own_shape or payload.get("optimizer_class", own_class) != own_class:
        return
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)  # also loads the saved run's settings, which are restored below
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def _write_best_records(folder: Path, best: BestModel) -> None:
    arrays = {**best.overlays, "threshold": np.float64(best.metrics["val/threshold"])}
    record = {"epoch": best.epoch, "metrics": best.metrics}
    write_file(folder / CURVE_FILE, lambda path: path.write_text(json.dumps(best.curve)))
    write_file(folder / OVERLAYS_FILE, lambda path: _save_npz(path, arrays))
    if best.images is None:
        (folder / IMAGES_FILE).unlink(missing_ok=True)
    else:
        write_file(folder / IMAGES_FILE, best.images.save)
    write_file(folder / BEST_FILE, lambda path: path.write_text(json.dumps(record)))


def _save_npz(path: Path, arrays: dict[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)  # compressing would take longer than everything else written after validation
