"""The sealed model: weights and a card in one folder, nothing to unpickle, every file's hash checked on load.

`model.safetensors` holds the weights with the input normalisation as buffers; `card.json` holds the config, the
threshold and how it was chosen, scores with their split and interval, the data's fingerprint, versions, and the
sha256 of every other file. One image at a time goes through the model, so that a score or a mask does not depend on
which images happen to share a batch.
"""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from segcore.config import TrainConfig
from segcore.data.decode import read_image, read_mask
from segcore.errors import BundleError
from segcore.models import SegmentationModel, build_model

FORMAT = 1
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "card.json"
VERSIONED_PACKAGES = ("segsearch", "torch", "timm", "numpy", "pillow", "albumentations", "ray", "optuna")


@dataclass(frozen=True)
class Bundle:
    """A loaded sealed model, ready to predict."""

    folder: Path
    card: dict[str, Any]
    config: TrainConfig
    model: SegmentationModel
    threshold: float
    device: torch.device

    @torch.inference_mode()
    def predict_probs(self, image: np.ndarray) -> np.ndarray:
        """Foreground probability of one image.

        Args:
            image: `(H, W, 3) uint8` RGB at the model's own size, `config.data.image_hw`, or any other.

        Returns:
            `(H, W) float32` in [0, 1].
        """
        tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).unsqueeze(0).to(self.device)
        probs: np.ndarray = self.model(tensor).float().sigmoid()[0, 0].cpu().numpy()
        return probs

    def predict_file(self, path: Path, *, original_size: bool = True) -> np.ndarray:
        """Mask of one image file, `(H, W) uint8` of 0 and 255, at the file's size or at the model's.

        The model always sees the size that it was trained at. For the file's own size its probabilities, not its
        mask, are resized (bilinear), which gives smoother edges.
        """
        hw = self.config.data.image_hw
        probs = self.predict_probs(read_image(path, hw))
        if original_size:
            height, width = read_image(path, None).shape[:2]
            resized = Image.fromarray(probs).resize((width, height), Image.Resampling.BILINEAR)
            probs = np.asarray(resized)
        return np.where(probs >= self.threshold, 255, 0).astype(np.uint8)


@dataclass(frozen=True)
class ImageScore:
    """One image's overlap at the bundle's threshold; IoU and Dice are 1 where prediction and target are both empty."""

    name: str
    iou: float
    dice: float
    intersection: int
    union: int


def score_images(
    bundle: Bundle,
    pairs: Iterable[tuple[str, Path, Path]],
    progress: Callable[[int], None] | None = None,
) -> list[ImageScore]:
    """Scores `(name, image path, mask path)` at the model's image size, the way `predict_file` predicts."""
    hw = bundle.config.data.image_hw
    scores = []
    for done, (name, image_path, mask_path) in enumerate(pairs, start=1):
        pred = bundle.predict_file(image_path, original_size=False) > 0
        target = read_mask(mask_path, hw) > 0
        intersection, total = int((pred & target).sum()), int(pred.sum() + target.sum())
        union = total - intersection
        iou = intersection / union if union else 1.0
        dice = 2 * intersection / total if total else 1.0
        scores.append(ImageScore(name, iou, dice, intersection, union))
        if progress is not None:
            progress(done)
    return scores


def summarize(scores: list[ImageScore], *, seed: int = 0, draws: int = 2000, confidence: float = 0.95) -> dict[str, Any]:
    """Means over images, pooled values, and a percentile bootstrap interval of the mean IoU over images.

    References:
        Efron, Bootstrap Methods, Annals of Statistics 1979.
    """
    iou = np.array([score.iou for score in scores])
    rng = np.random.default_rng(seed)
    means = np.array([iou[rng.integers(0, len(iou), len(iou))].mean() for _ in range(draws)])
    tail = (1 - confidence) / 2
    intersection = sum(score.intersection for score in scores)
    union = sum(score.union for score in scores)
    return {
        "num_images": len(scores),
        "iou": float(iou.mean()),
        "iou_interval": [float(np.quantile(means, tail)), float(np.quantile(means, 1 - tail))],
        "confidence": confidence,
        "dice": float(np.mean([score.dice for score in scores])),
        "iou_pooled": intersection / union if union else 1.0,
        "dice_pooled": 2 * intersection / (intersection + union) if union else 1.0,
    }


def write_bundle(folder: Path, weights: dict[str, Tensor], config: TrainConfig, card: dict[str, Any]) -> None:
    """Seals weights and card into `folder`, replacing an earlier one whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        save_file(weights, staging / WEIGHTS_FILE, metadata={"format": "pt"})
        record = {
            "format": FORMAT,
            "config": config.model_dump(mode="json"),
            **card,
            "versions": {"python": platform.python_version(), **installed_versions()},
            "files": {WEIGHTS_FILE: {"sha256": sha256(staging / WEIGHTS_FILE), "size": (staging / WEIGHTS_FILE).stat().st_size}},
        }
        (staging / CARD_FILE).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        previous = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        if folder.exists():
            os.replace(folder, previous)
        os.replace(staging, folder)
        shutil.rmtree(previous, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def update_card(folder: Path, changes: dict[str, Any]) -> None:
    """Adds to a sealed model's card, for example its scores; the weights stay as they are."""
    card = read_card(folder)
    temporary = folder / f".{CARD_FILE}.tmp"
    temporary.write_text(json.dumps({**card, **changes}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, folder / CARD_FILE)


def read_card(folder: Path) -> dict[str, Any]:
    """Reads the card alone.

    Raises:
        BundleError: There is none, or it is of a format that this version does not know.
    """
    path = folder / CARD_FILE
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{folder} is no sealed model: it has no {CARD_FILE}") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise BundleError(f"{path}: format {found!r} is not one that this version reads ({FORMAT})")
    return card


def verify_bundle(folder: Path) -> dict[str, Any]:
    """Checks every file's size and sha256 against the card, and returns the card.

    Raises:
        BundleError: A file is missing or altered.
    """
    card = read_card(folder)
    for name, expected in card.get("files", {}).items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{folder}: {name} is missing; the model is incomplete")
        found = sha256(path)
        if found != expected["sha256"]:
            raise BundleError(
                f"{path} was altered or is damaged: its sha256 is {found[:12]}..., the card says "
                f"{expected['sha256'][:12]}..."
            )
    return card


def load_bundle(folder: Path, device: torch.device | None = None) -> Bundle:
    """Loads a sealed model after checking its hashes.

    Raises:
        BundleError: A file is missing or altered, or the card does not describe the weights.
    """
    card = verify_bundle(folder)
    try:
        config = TrainConfig.model_validate(card["config"])
        threshold = float(card["threshold"]["value"])
        model = build_model(config.model, load_pretrained=False)
        model.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except (KeyError, TypeError, ValidationError, RuntimeError) as error:
        raise BundleError(f"{folder}: the card does not describe the weights: {error}") from error
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device=device, memory_format=torch.channels_last).eval()
    return Bundle(folder, card, config, model, threshold, device)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def installed_versions() -> dict[str, str]:
    """Versions of the packages that a result may depend on."""
    versions = {}
    for name in VERSIONED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
