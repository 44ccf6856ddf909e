"""How fast samples come: decoding files for each sample, the usual way, against our cache and augmentation.

Everything runs in this process, one after the other, in batches, and is measured in the seconds that the process
computes, so that a busy machine distorts it little. Needs torch, numpy, pyarrow and OpenCV; where albumentations is
missing, the usual way is augmented by our own steps, and the result says so.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from photos import index_of
from plain_config import plain_config
from torch.utils.data import DataLoader, Dataset

from segcore.data.augment.plan import mixed_seeds
from segcore.data.augment.policy import build_augmentation
from segcore.data.loader import build_loader
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import SampleCache, open_cache

POLICIES = ("flip", "light", "medium")
Augment = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class LoaderResult:
    """What was measured.

    Attributes:
        images_s: Images per CPU-second: `decode`, `decode+P` for each policy P, and ours: `none`, each policy P, and
            `plan`, which leaves `light` to the device.
        ratios: `loader/P`: ours with policy P over decoding and augmenting with P; `decode/P`: the time that decoding
            and resizing take, over what P adds to a sample from the cache; `decode/whole P`: the same, over all that
            a sample from the cache with P takes.
        baseline_augmentation: Who augmented the decoded samples.
    """

    images_s: dict[str, float]
    ratios: dict[str, float]
    baseline_augmentation: str


def measure_loader(
    pairs: Sequence[tuple[Path, Path]], *, hw: tuple[int, int] = (256, 256), batch_size: int = 32,
    seconds: float = 1.0, rounds: int = 3,
) -> LoaderResult:  # fmt: skip
    """Measure each way in turn, several times over, and keep each way's fastest round.

    Args:
        pairs: Image and mask files.
        hw: Height and width that samples are resized to.
        batch_size: Samples per batch.
        seconds: Shortest time of one measurement.
        rounds: Measurements of each way.
    """
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        data = plain_config({"data.image_size": hw, "data.cache_dir": folder}).data
        with open_cache(build_cache(index_of(list(pairs), Path(folder)), data)) as cache:
            ways, who = _ways(list(pairs), cache, hw, batch_size)
            fastest = dict.fromkeys(ways, 0.0)
            for _ in range(rounds):
                for name, epoch in ways.items():
                    fastest[name] = max(fastest[name], _images_per_second(epoch, seconds))
    ratios = {f"loader/{policy}": fastest[policy] / fastest[f"decode+{policy}"] for policy in POLICIES}
    for policy in POLICIES:
        added = 1 / fastest[policy] - 1 / fastest["none"]
        ratios[f"decode/{policy}"] = (1 / fastest["decode"]) / max(added, 1e-9)
        ratios[f"decode/whole {policy}"] = fastest[policy] / fastest["decode"]
    return LoaderResult(fastest, ratios, who)


def _ways(
    pairs: list[tuple[Path, Path]], cache: SampleCache, hw: tuple[int, int], batch_size: int
) -> tuple[dict[str, Callable[[int], Iterator[int]]], str]:
    ways: dict[str, Callable[[int], Iterator[int]]] = {"decode": _usual(pairs, hw, batch_size, None)}
    who = ""
    for policy in POLICIES:
        augment, who = usual_augmentation(policy, hw)
        ways[f"decode+{policy}"] = _usual(pairs, hw, batch_size, augment)
    for name in ("none", *POLICIES):
        ways[name] = _ours(cache, batch_size, name, "loader")
    ways["plan"] = _ours(cache, batch_size, "light", "device")
    return ways, who


class _Files(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The usual data set: each item is read, decoded, resized and augmented when it is asked for."""

    def __init__(self, pairs: list[tuple[Path, Path]], hw: tuple[int, int], augment: Augment | None) -> None:
        self.pairs, self.hw, self.augment, self.count = pairs, hw, augment, 0

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, mask = decode(*self.pairs[index], self.hw)
        self.count += 1
        if self.augment is not None:
            image, mask = self.augment(image, mask, self.count)
        return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(np.ascontiguousarray(mask))


def _usual(
    pairs: list[tuple[Path, Path]], hw: tuple[int, int], batch_size: int, augment: Augment | None
) -> Callable[[int], Iterator[int]]:
    loader = DataLoader(_Files(pairs, hw, augment), batch_size=batch_size, shuffle=True)

    def epoch(number: int) -> Iterator[int]:
        for images, _ in loader:
            yield len(images)

    return epoch


def _ours(cache: SampleCache, batch_size: int, policy: str, augment_on: Any) -> Callable[[int], Iterator[int]]:
    loader = build_loader(
        cache, range(len(cache)), batch_size=batch_size, augment=plain_config({"augment.policy": policy}).augment,
        shuffle=True, drop_last=False, seed=0, num_workers=0, pin_memory=False, augment_on=augment_on,
    )  # fmt: skip

    def epoch(number: int) -> Iterator[int]:
        loader.set_epoch(number)
        for batch in loader:
            yield len(batch)

    return epoch


def _images_per_second(epoch: Callable[[int], Iterator[int]], seconds: float) -> float:
    for _ in epoch(0):
        pass
    count, number, started = 0, 1, time.process_time()
    while (spent := time.process_time() - started) < seconds or count == 0:
        count += sum(epoch(number))
        number += 1
    return count / spent


def usual_augmentation(policy: str, hw: tuple[int, int]) -> tuple[Augment, str]:
    """The policy sample by sample, and by whom: albumentations, or our own steps where it is not installed."""
    try:
        return _albumentations(policy), "albumentations"
    except ImportError:
        return _own_steps(policy, hw), "our own steps (albumentations is not installed)"


def _albumentations(policy: str) -> Augment:
    """The policy in albumentations' transforms, as a notebook has them."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A

    p, color = 0.5, 0.2
    transforms: list[Any] = [A.HorizontalFlip(p=p)]
    if policy != "flip":
        transforms += [
            A.Affine(
                scale=(0.8, 1.2), rotate=(-15, 15), translate_percent=(-0.0625, 0.0625),
                border_mode=cv2.BORDER_REFLECT_101, p=p,
            ),
            A.RandomBrightnessContrast(brightness_limit=color, contrast_limit=color, p=p),
        ]  # fmt: skip
    if policy == "medium":
        transforms += [
            A.HueSaturationValue(hue_shift_limit=10, sat_shift_limit=20, val_shift_limit=10, p=p),
            A.GaussNoise(std_range=(0.01, 0.06), noise_scale_factor=0.5, p=p),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.2, 1.2), p=p),
        ]
    compose = A.Compose(transforms, seed=0)

    def augment(image: np.ndarray, mask: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        result = compose(image=image, mask=mask)
        return result["image"], result["mask"]

    return augment


def _own_steps(policy: str, hw: tuple[int, int]) -> Augment:
    augmentation = build_augmentation(plain_config({"augment.policy": policy}).augment)

    def augment(image: np.ndarray, mask: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        seeds = mixed_seeds(0, 0, [count])
        out_image, out_mask = np.empty((1, *hw, 3), np.uint8), np.empty((1, *hw), np.uint8)
        augmentation.apply(augmentation.plan(hw, seeds), seeds, [image], [mask], out_image, out_mask)
        return out_image[0], out_mask[0]

    return augment


def decode(image_path: Path, mask_path: Path, hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Read, decode and resize one sample with OpenCV: `(H, W, 3) uint8` and `(H, W) uint8` of 0 and 1."""
    size = (hw[1], hw[0])
    image = cv2.imdecode(np.fromfile(image_path, np.uint8), cv2.IMREAD_COLOR)
    mask = cv2.imdecode(np.fromfile(mask_path, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None or mask is None:
        raise ValueError(f"{image_path if image is None else mask_path}: cannot be decoded")
    image = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), size, interpolation=cv2.INTER_LINEAR)
    return image, (cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) > 0).astype(np.uint8)
