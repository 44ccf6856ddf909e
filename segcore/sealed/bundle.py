"""The sealed model: weights and a card in one folder, nothing to unpickle, every file's hash checked on load.

`model.safetensors` holds the weights with the input normalisation as buffers; `card.json` holds the config, the
threshold and how it was chosen, scores with their split and interval, the data's fingerprint, versions, and the
sha256 of every other file. The model processes one image at a time, so that a score or a mask does not depend on which
images share a batch.
"""

import glob
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from segcore.config import TrainConfig
from segcore.errors import BundleError, ConfigError
from segcore.models.build import build_model
from segcore.models.unet import SegmentationModel
from segcore.sealed.card import (
    FORMAT,
    WEIGHTS_FILE,
    Card,
    FileEntry,
    installed_versions,
    portable_config,
    sha256,
    verify_bundle,
    write_card,
)
from segcore.sealed.predictor import Predictor
from segcore.task import Task, task_of
from segcore.tensor_file import save_tensors


@dataclass(frozen=True)
class Bundle:
    """A loaded sealed model, ready to predict."""

    folder: Path
    card: Card
    config: TrainConfig
    model: SegmentationModel
    threshold: float
    device: torch.device

    @property
    def task(self) -> Task:
        """What the model's masks mean."""
        return task_of(self.config)

    @property
    def predictor(self) -> Predictor:
        """The predictor that maps images to probabilities."""
        return Predictor(self.model, self.task, self.config.data.image_hw, self.device)

    def predict_probs(self, image: np.ndarray) -> np.ndarray:
        """Foreground probability of one image.

        Args:
            image: `(H, W, 3) uint8` RGB at the model's own size, `config.data.image_hw`, or any other.

        Returns:
            `(H, W) float32` in [0, 1].
        """
        (foreground,) = self.predictor.probs_as_it_is(image)
        return np.asarray(foreground)

    def predict_file(self, path: Path, *, original_size: bool = True) -> np.ndarray:
        """Mask of one image file, `(H, W) uint8` of 0 and 255, at the file's own size or at the model's."""
        mask = self.predictor.mask_of_file(path, self.threshold, original_size=original_size)
        return self.task.written(mask)


def write_bundle(folder: Path, weights: dict[str, Tensor], config: TrainConfig, card: Card) -> None:
    """Seal weights and card into `folder`, replacing an earlier model atomically.

    Only a process that dies between the two renames at the end leaves no `folder`; the earlier model is then kept
    beside it, and the next call restores it first.

    Args:
        folder: The model's folder.
        weights: Tensors by name, including the normalisation.
        config: The training's config.
        card: What is known about the model; format, config, versions and hashes are filled in here.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _settle(folder)
    staging = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        save_tensors(weights, staging / WEIGHTS_FILE)
        sealed = FileEntry(sha256=sha256(staging / WEIGHTS_FILE), size=(staging / WEIGHTS_FILE).stat().st_size)
        whole = card.but(
            format=FORMAT,
            config=portable_config(config),
            versions={"python": platform.python_version(), **installed_versions()},
            files={WEIGHTS_FILE: sealed},
        )
        write_card(staging, whole)
        previous = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        if folder.exists():
            os.replace(folder, previous)
        try:
            os.replace(staging, folder)
        except BaseException:
            if previous.exists():
                os.replace(previous, folder)
            raise
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _settle(folder: Path) -> None:
    """Restore a model that a killed process had renamed, and remove leftovers of other processes."""
    for previous in folder.parent.glob(f".{glob.escape(folder.name)}.*.old"):
        if not folder.exists():
            os.replace(previous, folder)
        shutil.rmtree(previous, ignore_errors=True)
    for staging in folder.parent.glob(f".{glob.escape(folder.name)}.*.tmp"):
        shutil.rmtree(staging, ignore_errors=True)


def load_bundle(folder: Path, device: torch.device | None = None) -> Bundle:
    """Load a sealed model after checking its hashes.

    Raises:
        BundleError: A file is missing or altered, or the card does not describe the weights.
    """
    card = verify_bundle(folder)
    try:
        config = TrainConfig.model_validate(card.config)
        if card.threshold is None:
            raise ValueError("it has no threshold")
        model = build_model(config.model, load_pretrained=False)
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (ValueError, RuntimeError, ConfigError, SafetensorError) as error:
        raise BundleError(f"{folder}: the card does not describe the weights: {error}") from error
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    return Bundle(folder, card, config, model, card.threshold.value, device)
