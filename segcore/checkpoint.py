"""What a trial writes so that it can go on, and so that its best epoch is never lost.

A checkpoint folder holds `state.pt` (the last epoch: weights, optimizer, schedule), `best.safetensors` (the best
epoch's weights), `best.json` (its epoch and metrics), `curve.json` and `overlays.npz` (its threshold curve and a few
validation images). The newest folder therefore always holds the best epoch too. Nothing in it needs a pickle:
`state.pt` is read with `weights_only=True`.
"""

import json
import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segcore.errors import TrainingError
from segcore.optim import LRSchedule

STATE_FILE = "state.pt"
WEIGHTS_FILE = "best.safetensors"
BEST_FILE = "best.json"
CURVE_FILE = "curve.json"
OVERLAYS_FILE = "overlays.npz"

_UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError,
    SafetensorError,
)  # fmt: skip
"""What the readers of these files raise when a crash or a full disk has cut one off."""


@dataclass(frozen=True)
class BestModel:
    """The best epoch so far: its weights on the CPU, its metrics, its curve and a few predictions."""

    epoch: int
    metrics: dict[str, float]
    weights: dict[str, Tensor]
    curve: dict[str, Any]
    overlays: dict[str, np.ndarray]

    @classmethod
    def copy_of(
        cls,
        model: nn.Module,
        epoch: int,
        metrics: dict[str, float],
        curve: dict[str, Any],
        overlays: dict[str, np.ndarray],
    ) -> Self:
        """Copies the weights, so that training may go on."""
        weights = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in model.state_dict().items()}
        return cls(epoch, dict(metrics), weights, curve, overlays)


@dataclass
class TrainingState:
    """The live objects of one training run, and how far it is."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    lr_schedule: LRSchedule
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None
    epoch: int = 0
    best: BestModel | None = None


def save_checkpoint(folder: Path, state: TrainingState) -> None:
    """Writes the state after an epoch into `folder`, which is created; each file is complete or absent."""
    folder.mkdir(parents=True, exist_ok=True)
    best = state.best
    if best is None:
        raise ValueError("nothing to save before the first epoch")
    payload: dict[str, Any] = {
        "epoch": state.epoch,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "optimizer_class": type(state.optimizer).__name__,
        "lr_schedule": state.lr_schedule.state_dict(),
        "scaler": state.scaler.state_dict(),
        "ema": None if state.ema is None else state.ema.state_dict(),
    }
    _write(folder / STATE_FILE, lambda path: torch.save(payload, path))
    write_best(folder, best)


def write_best(folder: Path, best: BestModel) -> None:
    """Writes the best epoch's files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / WEIGHTS_FILE, lambda path: save_file(best.weights, path))
    _write(folder / CURVE_FILE, lambda path: path.write_text(json.dumps(best.curve)))
    arrays = {**best.overlays, "threshold": np.float64(best.metrics["val/threshold"])}
    _write(folder / OVERLAYS_FILE, lambda path: _save_npz(path, arrays))
    _write(folder / BEST_FILE, lambda path: path.write_text(json.dumps({"epoch": best.epoch, "metrics": best.metrics})))


def read_best(folder: Path) -> BestModel:
    """Reads what `write_best` wrote.

    Raises:
        TrainingError: A file is missing or cannot be read.
    """
    try:
        record = json.loads((folder / BEST_FILE).read_text())
        weights = load_file(folder / WEIGHTS_FILE)
        curve = json.loads((folder / CURVE_FILE).read_text())
        with np.load(folder / OVERLAYS_FILE, allow_pickle=False) as arrays:
            overlays = {name: arrays[name] for name in arrays.files if name != "threshold"}
        return BestModel(int(record["epoch"]), dict(record["metrics"]), weights, curve, overlays)
    except _UNREADABLE as error:
        raise TrainingError(f"checkpoint {folder} cannot be read: {error}") from error


def read_state(folder: Path) -> dict[str, Any]:
    """Reads the last epoch's state that `save_checkpoint` wrote, onto the CPU.

    Raises:
        TrainingError: The file is missing or cannot be read.
    """
    try:
        payload: dict[str, Any] = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise TrainingError(f"checkpoint {folder} cannot be read: {error}") from error
    return payload


def first_readable(folders: list[Path], last_epoch: int | None = None) -> Path | None:
    """The first checkpoint folder that is whole; a crash may have left the newest half copied.

    One of an epoch after `last_epoch` is passed over.
    """
    for folder in folders:
        try:
            read_best(folder)
            epoch = int(read_state(folder)["epoch"])
        except TrainingError:
            continue
        if last_epoch is None or epoch <= last_epoch:
            return folder
    return None


def load_checkpoint(folder: Path, state: TrainingState, *, as_fork: bool = False) -> None:
    """Puts a saved state back into live objects; what they learned is taken over, their settings are not.

    The model's shape must be the saved one. Learning rates, weight decay, momentum and the schedule stay those that the
    objects were built with. The optimizer's moments start anew where its kind or its groups differ, as does a moving
    average that the saved run did not have.

    Args:
        folder: Written by `save_checkpoint`.
        state: Built from the config that is to go on.
        as_fork: Another trial goes on from here: the best epoch, earned with other settings, is left behind.

    Raises:
        TrainingError: A file is missing, cannot be read, or belongs to another model.
    """
    payload = read_state(folder)
    try:
        state.model.load_state_dict(payload["model"])
        _load_optimizer(payload, state.optimizer)
        state.lr_schedule.load_state_dict(payload["lr_schedule"])
        if payload["scaler"]:  # empty where the saved run did not scale
            state.scaler.load_state_dict(payload["scaler"])
        if state.ema is not None and payload["ema"] is not None:
            state.ema.load_state_dict(payload["ema"])
    except _UNREADABLE as error:
        raise TrainingError(f"checkpoint {folder} cannot be read: {error}") from error
    state.epoch = int(payload["epoch"])
    state.best = None if as_fork else read_best(folder)


def _load_optimizer(payload: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    saved = payload["optimizer"]
    shape = [(group.get("name"), len(group["params"])) for group in saved["param_groups"]]
    own_shape = [(group.get("name"), len(group["params"])) for group in optimizer.param_groups]
    own_class = type(optimizer).__name__
    if shape != own_shape or payload.get("optimizer_class", own_class) != own_class:
        return
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)  # brings the saved run's settings along
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def _write(path: Path, write: Any) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    os.replace(temporary, path)


def _save_npz(path: Path, arrays: dict[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
