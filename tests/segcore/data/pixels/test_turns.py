"""Images whose EXIF turn was applied, beside masks that may not have been turned."""

from pathlib import Path

import numpy as np
import pytest
from data_folders import disk, picture, save
from PIL import Image

from segcore.data.masks.rule import MaskRule
from segcore.data.pairs.samples import Pair
from segcore.data.pixels.content import Content, decode_pair


def decode(root: Path, orientation: int, image_hw: tuple[int, int], mask_hw: tuple[int, int], tag: int = 1) -> Content:
    """An image stored at `image_hw` with an orientation, and a mask stored at `mask_hw`, tagged or not."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(0, image_hw)).save(root / "x.jpg", exif=exif)
    mask_exif = Image.Exif()
    mask_exif[0x0112] = tag
    Image.fromarray(disk(mask_hw, 5) * 255).save(root / "x.png", exif=mask_exif if tag != 1 else None)
    return decode_pair(Pair("x", root / "x.jpg", root / "x.png", None, ""), None, root, MaskRule())


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_of_the_stored_size_contradicts_the_turn(tmp_path: Path, orientation: int) -> None:
    problems = decode(tmp_path, orientation, (20, 30), (20, 30)).problems
    ((kind, examples),) = problems.errors.items()
    assert kind.startswith("masks are not turned as their image is: its EXIF orientation was applied")
    assert "exiftool -Orientation= FILES" in kind
    assert examples == [f"x.png is 30x20; x.jpg has orientation {orientation}: 30x20 stored, 20x30 upright"]


@pytest.mark.parametrize(
    ("orientation", "hw", "unproven"),
    [(1, (20, 30), 1), (2, (20, 30), 2), (3, (20, 30), 3), (4, (20, 30), 4), (6, (24, 24), 6), (8, (24, 24), 8)],
)
def test_where_sizes_say_nothing_the_turn_is_in_doubt(
    tmp_path: Path, orientation: int, hw: tuple[int, int], unproven: int
) -> None:
    content = decode(tmp_path, orientation, hw, hw)
    assert not content.problems.errors
    assert content.unproven_turn == unproven
    warned = [f"x.jpg (orientation {orientation})"] if unproven != 1 else []
    assert [example for examples in content.problems.oddities.values() for example in examples] == warned


def test_an_upright_mask_or_one_with_a_tag_of_its_own_leaves_no_doubt(tmp_path: Path) -> None:
    for content in (decode(tmp_path, 6, (20, 30), (30, 20)), decode(tmp_path, 6, (24, 24), (24, 24), tag=6)):
        assert content.problems.errors == content.problems.oddities == {}
        assert content.unproven_turn == 1
    assert content.mask is not None
    turned_alone = decode(tmp_path, 1, (20, 30), (20, 30), tag=6).problems.errors
    assert turned_alone == {
        "masks of another size than their image": ["x.png is 20x30, turned by its EXIF orientation 6, x.jpg is 30x20"]
    }


def test_pages_and_bands_that_are_not_read_are_warned_of(tmp_path: Path) -> None:
    pages = [Image.fromarray(picture(seed)) for seed in range(3)]
    pages[0].save(tmp_path / "x.tif", save_all=True, append_images=pages[1:])
    save(tmp_path / "m.png", disk() * 255)
    content = decode_pair(Pair("x", tmp_path / "x.tif", tmp_path / "m.png", None, ""), None, tmp_path, MaskRule())
    np.testing.assert_array_equal(content.image, picture(0))
    (warning,) = content.problems.warnings()
    assert warning.startswith("1 images have several pages or frames, of which the first alone is read")
    assert warning.endswith("x.tif (3 pages)")
