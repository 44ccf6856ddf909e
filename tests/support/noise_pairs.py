"""Folders of noise and its masks, which a test spoils."""

from pathlib import Path

import numpy as np
from PIL import Image


def image(path: Path, size: tuple[int, int] = (40, 30)) -> None:
    """Writes colour noise of a width and height in pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(len(path.name)).integers(0, 255, (*size[::-1], 3), np.uint8)).save(path)


def mask(path: Path, size: tuple[int, int] = (40, 30)) -> None:
    """Writes a mask with one rectangle of a width and height in pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros(size[::-1], np.uint8)
    array[5:15, 5:20] = 255
    Image.fromarray(array).save(path)


def good_pairs(root: Path, count: int = 10) -> None:
    """Writes numbered pairs as `images/N.png` and `masks/N.png`."""
    for number in range(count):
        image(root / "images" / f"{number}.png")
        mask(root / "masks" / f"{number}.png")
