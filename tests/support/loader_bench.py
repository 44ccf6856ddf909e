"""How fast samples come: decoding files for each sample, the usual way, against our cache and augmentation.

Everything runs in this process, one after the other, in batches, and is measured in the seconds that the process
computes, so that a busy machine distorts it little. Needs torch, numpy, pyarrow and OpenCV; where albumentations is
missing, the usual way is augmented by our own steps, and the result says so.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset

from segcore.data.augment import build_augmentation
from segcore.data.augment_plan import mixed_seeds
from segcore.data.cache_file import SampleCache, cache_schema, encode_metadata, open_cache
from segcore.data.dataset import build_loader
from segcore.device import begin_trial

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
    pairs: Sequence[tuple[Path, Path]] | None = None, *, hw: tuple[int, int] = (256, 256), batch_size: int = 32,
    seconds: float = 1.0, rounds: int = 3,
) -> LoaderResult:  # fmt: skip
    """Measure each way in turn, several times over, and keep each way's fastest round.

    Args:
        pairs: Image and mask files; None: photo-like JPEGs of 500x375 pixels with PNG masks are made.
        hw: Height and width that samples are resized to.
        batch_size: Samples per batch.
        seconds: Shortest time of one measurement.
        rounds: Measurements of each way.
    """
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        pairs = list(pairs) if pairs is not None else write_files(Path(folder) / "files", 2 * batch_size)
        path = Path(folder) / "cache.arrow"
        write_cache(path, [decode(*pair, hw) for pair in pairs], hw)
        with open_cache(path) as cache:
            ways, who = _ways(pairs, cache, hw, batch_size)
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
    who = "albumentations"
    for policy in POLICIES:
        try:
            augment = _albumentations(policy)
        except ImportError:
            augment, who = _own_steps(policy, hw), "our own steps (albumentations is not installed)"
        ways[f"decode+{policy}"] = _usual(pairs, hw, batch_size, augment)
    for name in ("none", *POLICIES):
        ways[name] = _ours(cache, batch_size, name, "loader")
    ways["plan"] = _ours(cache, batch_size, "light", "device")
    return ways, who


def augment_settings(policy: str) -> Any:
    """The default settings of a policy, where the config's types may not be installed."""
    return SimpleNamespace(
        policy=policy, probability=0.5, vertical_flip=False, scale=0.2, rotate=15.0, color=0.2
    )  # fmt: skip


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
        cache, range(len(cache)), batch_size=batch_size, augment=augment_settings(policy), shuffle=True,
        drop_last=False, seed=0, num_workers=0, pin_memory=False, augment_on=augment_on,
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
    augmentation = build_augmentation(augment_settings(policy))

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


def write_files(folder: Path, count: int, hw: tuple[int, int] = (375, 500)) -> list[tuple[Path, Path]]:
    """Write photo-like JPEGs (about 100 KB each) and PNG masks."""
    folder.mkdir(parents=True)
    rng, pairs, size = np.random.default_rng(0), [], (hw[1], hw[0])
    for number in range(count):
        coarse = rng.integers(0, 256, (hw[0] // 8, hw[1] // 8, 3), np.uint8)
        image = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC) + rng.normal(0, 6, (*hw, 3))
        mask = cv2.resize(rng.integers(0, 256, (6, 8), np.uint8), size, interpolation=cv2.INTER_CUBIC) > 128
        pair = folder / f"{number}.jpg", folder / f"{number}.png"
        cv2.imwrite(str(pair[0]), image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(str(pair[1]), mask.astype(np.uint8) * 255)
        pairs.append(pair)
    return pairs


def write_cache(path: Path, samples: list[tuple[np.ndarray, np.ndarray]], hw: tuple[int, int]) -> None:
    """Write a cache of decoded samples without what building one from a data set needs to be installed."""
    schema = cache_schema(hw, len(samples), len(samples))
    rows = [
        {
            "image": np.ascontiguousarray(image).tobytes(), "mask": np.ascontiguousarray(mask).tobytes(),
            "name": str(number), "class_name": "", "split": "train", "group": "", "height": hw[0], "width": hw[1],
        }
        for number, (image, mask) in enumerate(samples)
    ]  # fmt: skip
    with path.open("wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
        tail = encode_metadata({"fingerprint": "benchmark", "warnings": []})
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=schema), custom_metadata=tail)


if __name__ == "__main__":
    begin_trial(1, 0)  # a process as training has it
    found = measure_loader()
    for name, value in found.images_s.items():
        print(f"{name:16s} {value:10.0f} images/s   {1e6 / value:8.1f} us")
    print(json.dumps(found.ratios | {"baseline": found.baseline_augmentation}))
