"""One awkward input: how it is made, and what the program owes its owner."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]
Truth = dict[str, Mask]
Expected = Literal["reads", "warns", "asks"]

SIDE = 48
NUM_PAIRS = 12


@dataclass(frozen=True)
class Case:
    """An input and what is right for it.

    Attributes:
        name: Its name in the table.
        make: Writes the data set into an empty folder, and returns the true masks by the image's stem.
        expected: `reads`: every mask as it is; `warns`: the same, or read otherwise with a warning; `asks`: exit 2.
        says: A regular expression that the message or warning has to match.
        settings: `key=value` for the config.
        needs_gate: Whether only the gate, which trains a little, can see it.
        here: A folder, made by `make`, in which the command runs; it is on PYTHONPATH too.
    """

    name: str
    make: Callable[[Path], Truth]
    expected: Expected
    says: str = ""
    settings: tuple[str, ...] = ()
    needs_gate: bool = False
    here: str = ""


def blobs(num: int = NUM_PAIRS, hw: tuple[int, int] = (SIDE, SIDE), seed: int = 0) -> list[tuple[str, Pixels, Mask]]:
    """Names, images and masks: an ellipse, off the centre, brighter than its noisy ground.

    Args:
        num: The number of pairs.
        hw: Height and width in pixels.
        seed: Of positions, sizes and noise.

    Returns:
        A list of `(name, (H, W, 3) uint8, (H, W) bool)`.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    found = []
    for number in range(num):
        centre, radii = rng.uniform((0.2, 0.2), (0.45, 0.8)) * hw, rng.uniform(0.12, 0.25, 2) * hw
        mask = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1
        noise = rng.normal(80, 16, (*hw, 3)) + mask[..., None] * np.array([90, 50, -40])
        found.append((f"photo{number:02d}", noise.clip(0, 255).astype(np.uint8), mask))
    return found


def write_image(path: Path, image: Pixels) -> None:
    """Writes `path.png`; `path` has no suffix."""
    Image.fromarray(image).save(f"{path}.png")


def write_mask(path: Path, mask: Mask) -> None:
    """Writes `path.png` of 0 and 255; `path` has no suffix."""
    Image.fromarray(mask.astype(np.uint8) * 255).save(f"{path}.png")


def write_pairs(
    folder: Path,
    image: Callable[[Path, Pixels], None] = write_image,
    mask: Callable[[Path, Mask], None] = write_mask,
    pairs: list[tuple[str, Pixels, Mask]] | None = None,
) -> Truth:
    """Writes `images/` and `masks/`, and returns the masks by name.

    Args:
        folder: The data set's folder.
        image: Writes an image to a path without suffix.
        mask: Writes a mask to a path without suffix.
        pairs: What to write; default: `blobs()`.
    """
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    chosen = blobs() if pairs is None else pairs
    for name, pixels, truth in chosen:
        image(folder / "images" / name, pixels)
        mask(folder / "masks" / name, truth)
    return {name: truth for name, _, truth in chosen}


def in_turn(*writers: Callable[[Path, Mask], None]) -> Callable[[Path, Mask], None]:
    """Writes the first mask with the first writer, the second with the second, and so on around."""
    count = iter(range(10**9))

    def write(path: Path, mask: Mask) -> None:
        writers[next(count) % len(writers)](path, mask)

    return write
