from pathlib import Path

import numpy as np
import pytest
from data_folders import disk, picture, save
from PIL import Image

from segcore.data.masks.rule import MaskRule
from segcore.data.pixels.decode import (
    UnreadableFileError,
    image_size,
    read_image,
    read_mask,
    read_planes,
)

HW = (24, 30)


@pytest.fixture
def rgb() -> np.ndarray:
    return picture(1, HW)


@pytest.fixture
def mask() -> np.ndarray:
    return disk(HW, radius=7)


def test_an_rgb_png_is_read_as_it_is(tmp_path: Path, rgb: np.ndarray) -> None:
    read = read_image(save(tmp_path / "x.png", rgb))
    assert read.dtype == np.uint8
    assert read.flags.c_contiguous
    assert read.flags.writeable
    np.testing.assert_array_equal(read, rgb)


def test_grey_becomes_three_equal_channels(tmp_path: Path, rgb: np.ndarray) -> None:
    read = read_image(save(tmp_path / "x.png", rgb[..., 0]))
    np.testing.assert_array_equal(read, np.repeat(rgb[..., :1], 3, axis=2))


def test_colours_under_transparency_are_kept(tmp_path: Path, rgb: np.ndarray) -> None:
    alpha = np.tile(np.arange(HW[1], dtype=np.uint8), (HW[0], 1))[..., None]
    read = read_image(save(tmp_path / "x.png", np.concatenate([rgb, alpha], axis=2)))
    np.testing.assert_array_equal(read, rgb)


def test_grey_with_alpha_keeps_its_grey(tmp_path: Path, rgb: np.ndarray) -> None:
    path = tmp_path / "x.png"
    Image.merge("LA", [Image.fromarray(rgb[..., 0]), Image.new("L", HW[::-1], 9)]).save(path)
    np.testing.assert_array_equal(read_image(path)[..., 2], rgb[..., 0])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_values_keep_their_high_byte(tmp_path: Path, suffix: str) -> None:
    eight = np.arange(256, dtype=np.uint16).reshape(16, 16)
    read = read_image(save(tmp_path / f"x{suffix}", eight * 257))
    np.testing.assert_array_equal(read[..., 0], eight.astype(np.uint8))


def test_palette_and_one_bit_images_get_their_colours(tmp_path: Path, mask: np.ndarray) -> None:
    image = Image.fromarray(mask, mode="P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.save(tmp_path / "p.png")
    read = read_image(tmp_path / "p.png")
    np.testing.assert_array_equal(read[0, 0], [10, 20, 30])
    np.testing.assert_array_equal(read[12, 15], [200, 100, 50])
    Image.fromarray(mask.astype(bool)).save(tmp_path / "b.png")
    assert set(np.unique(read_image(tmp_path / "b.png"))) == {0, 255}


def test_the_exif_orientation_is_applied_to_pixels_and_size(tmp_path: Path, rgb: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    for name in ("x.jpg", "x.png"):
        Image.fromarray(rgb).save(tmp_path / name, exif=exif, quality=100)
        assert read_image(tmp_path / name).shape == (HW[1], HW[0], 3)
        assert image_size(tmp_path / name) == (HW[1], HW[0])
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), np.rot90(rgb, -1))


def test_size_comes_from_the_header_alone(tmp_path: Path, rgb: np.ndarray) -> None:
    path = save(tmp_path / "x.png", rgb)
    path.write_bytes(path.read_bytes()[:60])
    assert image_size(path) == HW


def test_resize_is_antialiased_bilinear_for_images_and_nearest_for_masks(tmp_path: Path) -> None:
    stripes = np.zeros((32, 32), np.uint8)
    stripes[:, ::2] = 255
    path = save(tmp_path / "x.png", stripes)
    image = read_image(path, (8, 8))
    assert image.shape == (8, 8, 3)
    # Averages of black and white; without antialiasing all samples would fall on one kind of column.
    assert abs(float(image.mean()) - 127.5) < 3
    small = read_mask(path, MaskRule(), (8, 8))
    np.testing.assert_array_equal(small, (stripes[2::4, 2::4] > 0).astype(np.uint8))


def test_an_own_size_is_not_resampled(tmp_path: Path, rgb: np.ndarray) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "x.png", rgb), HW), rgb)


@pytest.mark.parametrize("keep", [0, 8, 40, 0.6])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
def test_a_cut_file_is_unreadable(tmp_path: Path, suffix: str, keep: float) -> None:
    path = save(tmp_path / f"cut{suffix}", picture(0, (64, 64)))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    for read in (read_image, read_planes):
        with pytest.raises(UnreadableFileError, match=rf"cut\{suffix}: "):
            read(path)


def test_what_is_unreadable_says_why(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(UnreadableFileError, match=r"empty\.png: the file is empty"):
        read_image(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(UnreadableFileError, match=r"text\.png: not an image file"):
        image_size(tmp_path / "text.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UnreadableFileError, match=r"folder\.png: .*directory"):
        read_planes(tmp_path / "folder.png")
    Image.fromarray(np.zeros(HW, np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(UnreadableFileError, match=r"f\.tif: 32-bit float pixels"):
        read_image(tmp_path / "f.tif")
    Image.fromarray(np.full(HW, 70_000, np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(UnreadableFileError, match=r"i\.tif: pixel values from 70000 to 70000 exceed 16 bits"):
        read_image(tmp_path / "i.tif")


@pytest.mark.shared
def test_the_original_0_1_horse_masks_and_rgba_nuclei_images(horses_dir: Path, nuclei_dir: Path) -> None:
    files = sorted((horses_dir / "awkward_raw").glob("mask01_*.png"))
    assert files
    for path in files:
        raw = np.asarray(Image.open(path))
        assert set(np.unique(raw)) == {0, 1}
        np.testing.assert_array_equal(read_mask(path, MaskRule()), raw)
    files = sorted((nuclei_dir / "awkward_raw").glob("rgba_*.png"))
    assert files
    for path in files:
        raw = np.asarray(Image.open(path))
        assert raw.shape[2] == 4
        np.testing.assert_array_equal(read_image(path), raw[..., :3])
