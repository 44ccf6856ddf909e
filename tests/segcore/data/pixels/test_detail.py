from pathlib import Path

import numpy as np
import pytest
from data_folders import disk, picture, save

from segcore.config import DataConfig
from segcore.data.masks.rule import MaskRule
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import open_cache
from segcore.data.pixels.detail import iou_after_resizing, sample_warnings


def lines(hw: tuple[int, int], width: int) -> np.ndarray:
    """Every eighth pixel a vertical line of so many."""
    mask = np.zeros(hw, np.uint8)
    for first in range(width):
        mask[:, first + 1 :: 8] = 1
    return mask


@pytest.mark.parametrize(
    ("width", "hw", "expected"),
    [
        (1, (64, 64), 1.0),
        (4, (64, 32), 3 / 5),  # of columns 1 to 4 the odd ones are kept, and come back as 0 to 3
        (1, (64, 16), 0.0),  # pixel 2 of each four is taken: no line is left
        (0, (3, 5), 1.0),  # nothing to lose
    ],
)
def test_what_a_size_leaves_of_lines(width: int, hw: tuple[int, int], expected: float) -> None:
    assert iou_after_resizing(lines((64, 64), width), hw) == pytest.approx(expected)


def test_a_size_that_destroys_thin_masks_is_told_with_one_that_does_not(tmp_path: Path) -> None:
    masks = [save(tmp_path / f"{i}.png", lines((64, 160), 1) * 255) for i in range(3)]
    # Of 40 columns with 5 lines, one kept pixel is on a line; it comes back 5 wide: 1 of 9 is in both.
    assert sample_warnings(masks, MaskRule(), (32, 32)) == [
        "data.image_size 32 x 32: a perfect model could not exceed IoU 0.111 at the images' own size (thin or small "
        "masks); 160 would allow 0.95"
    ]
    assert sample_warnings(masks, MaskRule(), (64, 160)) == []


def test_masks_that_may_be_inverted_are_told(tmp_path: Path) -> None:
    masks = [save(tmp_path / f"{i}.png", (1 - disk((32, 40), 8)) * np.uint8(255)) for i in range(3)]
    (warning,) = sample_warnings(masks, MaskRule(), (32, 40))
    assert warning == (
        "the masks' foreground (whatever is not 0, or not black) covers 85% of the pixels and 100% of the borders; if "
        "it is the background: --set data.foreground=0"
    )
    assert sample_warnings(masks, MaskRule(foreground=(0,)), (32, 40)) == []


def test_the_warning_comes_with_the_cache(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"d/images/{i}.png", picture(i, (64, 64)))
        save(tmp_path / f"d/masks/{i}.png", lines((64, 64), 2) * 255)
    for size, warned in ((16, True), (64, False)):
        config = DataConfig(root=str(tmp_path / "d"), cache_dir=str(tmp_path / "cache"), image_size=size)
        with open_cache(build_cache(discover(config), config)) as cache:
            assert [line for line in cache.warnings if "could not exceed" in line] == (
                list(cache.warnings) if warned else []
            )
            assert len(cache.warnings) == warned
