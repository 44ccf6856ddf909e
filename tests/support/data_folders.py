"""Small data folders of real files, for the tests."""

from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int = 0, hw: tuple[int, int] = (32, 40)) -> np.ndarray:
    """A photo-like `(H, W, 3) uint8` image: slopes and noise, so that no two seeds are equal."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : hw[0], 0 : hw[1]]
    base = (rows * 3 + columns * 2)[..., None] + rng.integers(0, 60, 3)
    return (base + rng.integers(0, 40, (*hw, 3))).clip(0, 255).astype(np.uint8)


def disk(hw: tuple[int, int] = (32, 40), radius: int = 9) -> np.ndarray:
    """A `(H, W) uint8` mask of 0 and 1 with a disk in the middle."""
    rows, columns = np.mgrid[0 : hw[0], 0 : hw[1]]
    return ((rows - hw[0] // 2) ** 2 + (columns - hw[1] // 2) ** 2 <= radius**2).astype(np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    """Save an array as an image file, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def write_pair(image: Path, mask: Path, seed: int = 0, hw: tuple[int, int] = (32, 40)) -> None:
    """Write an image and a 0/255 mask of its size."""
    save(image, picture(seed, hw))
    save(mask, disk(hw) * 255)


def write_flat(root: Path, names: list[str] | int, image_suffix: str = ".jpg") -> Path:
    """Write `images/NAME.jpg` and `masks/NAME.png` for each name, or for so many numbered ones."""
    names = [f"{i:03d}" for i in range(names)] if isinstance(names, int) else names
    for i, name in enumerate(names):
        write_pair(root / "images" / f"{name}{image_suffix}", root / "masks" / f"{name}.png", seed=i)
    return root


def write_split(root: Path, counts: dict[str, int], classes: tuple[str, ...] = ("a", "b")) -> Path:
    """Write `SPLIT/images/CLASS/NNN.jpg` and `SPLIT/gt/CLASS/NNN.png`; the counts are per class."""
    seed = 0
    for split, count in counts.items():
        for class_name in classes:
            for i in range(count):
                image = root / split / "images" / class_name / f"{i:03d}.jpg"
                write_pair(image, root / split / "gt" / class_name / f"{i:03d}.png", seed)
                seed += 1
    return root
