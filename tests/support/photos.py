"""Photos to measure with: JPEG images and PNG masks of a usual size, made from noise and ellipses."""

from pathlib import Path

import cv2
import numpy as np

from segcore.data.pairs.samples import DatasetIndex, Sample

PHOTO_HW = (375, 500)


def make_photos(folder: Path, num_images: int, hw: tuple[int, int] = PHOTO_HW) -> list[tuple[Path, Path]]:
    """Writes `num_images` pairs, an image and its 0/255 mask, and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = []
    height, width = hw
    for number in range(num_images):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (height // 12, width // 12, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        mask = np.zeros(hw, np.uint8)
        centre = (int(rng.uniform(0.3, 0.7) * width), int(rng.uniform(0.3, 0.7) * height))
        axes = (int(rng.uniform(0.1, 0.3) * width), int(rng.uniform(0.1, 0.3) * height))
        cv2.ellipse(mask, centre, axes, rng.uniform(0, 180), 0, 360, 255, -1)
        image[mask > 0] = image[mask > 0] // 3 + np.array([20, 90, 150], np.uint8)
        image = np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
        paths = folder / f"{number:05d}.jpg", folder / f"{number:05d}.png"
        cv2.imwrite(str(paths[0]), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(str(paths[1]), mask)
        pairs.append(paths)
    return pairs


def index_of(pairs: list[tuple[Path, Path]], folder: Path) -> DatasetIndex:
    """All of them as the training split of a data set."""
    samples = tuple(Sample(image.stem, image, mask, "train", "", image.stem) for image, mask in pairs)
    return DatasetIndex(str(folder), "flat", samples, ())
