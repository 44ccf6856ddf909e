from pathlib import Path

import numpy as np
import pytest
from data_folders import disk, picture, save
from PIL import Image

from segcore.data.decode import (
    NotAMaskError,
    UnreadableFileError,
    decode_mask,
    image_size,
    read_image,
    read_mask,
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
    small = read_mask(path, (8, 8))
    np.testing.assert_array_equal(small, (stripes[2::4, 2::4] > 0).astype(np.uint8))


def test_an_own_size_is_not_resampled(tmp_path: Path, rgb: np.ndarray) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "x.png", rgb), HW), rgb)


MASK_ENCODINGS = {
    "0/255": lambda m: m * np.uint8(255),
    "0/1": lambda m: m,
    "0/38": lambda m: m * np.uint8(38),
    "bool": lambda m: m.astype(bool),
    "16-bit 0/65535": lambda m: m.astype(np.uint16) * 65535,
    "16-bit 0/1": lambda m: m.astype(np.uint16),
    "rgb white": lambda m: np.repeat(m[..., None] * np.uint8(255), 3, axis=2),
    "rgb red": lambda m: m[..., None] * np.array([255, 0, 0], np.uint8),
    "rgba opaque": lambda m: np.concatenate(
        [np.repeat(m[..., None] * np.uint8(255), 3, axis=2), np.full((*m.shape, 1), 255, np.uint8)], axis=2
    ),
    "rgba alpha is the mask, black ink": lambda m: np.concatenate(
        [np.zeros((*m.shape, 3), np.uint8), m[..., None] * np.uint8(200)], axis=2
    ),
    "rgba white ink on transparent black": lambda m: np.repeat(m[..., None] * np.uint8(255), 4, axis=2),
}


@pytest.mark.parametrize("encoding", MASK_ENCODINGS)
def test_every_usual_way_to_write_a_mask_reads_the_same(tmp_path: Path, mask: np.ndarray, encoding: str) -> None:
    reading = decode_mask(save(tmp_path / "m.png", MASK_ENCODINGS[encoding](mask)))
    assert reading.mask.dtype == np.uint8
    np.testing.assert_array_equal(reading.mask, mask)
    assert not reading.is_soft


@pytest.mark.parametrize(
    ("palette", "foreground_index"),
    [
        ([0, 0, 0, 128, 0, 0], 1),  # VOC: index 0 is black
        ([255, 255, 255, 0, 0, 0], 0),  # black is the background wherever it stands
        ([0, 0, 0, 255, 255, 255], 1),
        ([90, 10, 10, 10, 90, 10], 1),  # no black: index 0 is the background
        ([40, 40, 40, 200, 200, 200], 1),
    ],
)
def test_a_palette_mask(tmp_path: Path, mask: np.ndarray, palette: list[int], foreground_index: int) -> None:
    image = Image.fromarray(mask, mode="P")
    image.putpalette(palette)
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), (mask == foreground_index).astype(np.uint8))


def test_a_gif_mask(tmp_path: Path, mask: np.ndarray) -> None:
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.gif", mask * 255)), mask)


@pytest.mark.parametrize("value", [0, 1, 255])
@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_a_constant_mask_is_empty_or_full(tmp_path: Path, value: int, kind: str) -> None:
    shape = HW if kind == "grey" else (*HW, 3)
    reading = read_mask(save(tmp_path / "m.png", np.full(shape, value, np.uint8)))
    assert (reading == (value > 0)).all()


def test_class_numbers_instances_and_trimaps_are_foreground_wherever_they_are_not_0(tmp_path: Path) -> None:
    labels = np.zeros((48, 48), np.uint8)
    for number, (row, column) in enumerate([(2, 2), (2, 20), (20, 2), (20, 20), (34, 34)], start=1):
        labels[row : row + 10, column : column + 10] = number
    for values in (labels, labels * 37, labels.astype(np.uint16) * 500):
        np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", values)), (labels > 0).astype(np.uint8))
    colours = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [0, 0, 128], [9, 9, 9], [224, 224, 192]], np.uint8)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "c.png", colours[labels])), (labels > 0).astype(np.uint8))


def test_a_jpeg_mask_is_cut_at_half_and_told(tmp_path: Path) -> None:
    big = disk((64, 64), radius=20)
    path = tmp_path / "m.jpg"
    Image.fromarray(big * 255).save(path, quality=60)
    reading = decode_mask(path)
    assert reading.is_soft
    assert (reading.mask != big).mean() < 0.01
    Image.open(path).save(tmp_path / "resaved.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "resaved.png"), reading.mask)


def test_antialiased_edges_are_cut_at_half(tmp_path: Path) -> None:
    soft = Image.fromarray(disk((200, 200), radius=60) * 255).resize((50, 50), Image.Resampling.BILINEAR)
    soft.save(tmp_path / "m.png")
    reading = decode_mask(tmp_path / "m.png")
    assert reading.is_soft
    np.testing.assert_array_equal(reading.mask, (np.asarray(soft) >= 127.5).astype(np.uint8))


def test_an_empty_jpeg_mask_stays_empty_through_its_noise(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 6, (32, 32)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "m.jpg", quality=95)
    assert not read_mask(tmp_path / "m.jpg").any()


@pytest.mark.parametrize(
    ("suffix", "channels"), [(".jpg", "rgb"), (".jpg", "grey"), (".png", "rgb"), (".png", "grey"), (".png", "rgba")]
)
def test_a_picture_is_not_a_mask(tmp_path: Path, suffix: str, channels: str) -> None:
    image = picture(3, (64, 64))
    array = {"rgb": image, "grey": image[..., 0], "rgba": np.dstack([image, np.full((64, 64), 255, np.uint8)])}[
        channels
    ]
    path = save(tmp_path / f"photo{suffix}", array)
    with pytest.raises(NotAMaskError, match=rf"photo\{suffix}: .*between dark and bright"):
        read_mask(path)


@pytest.mark.parametrize("keep", [0, 8, 40, 0.6])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
def test_a_cut_file_is_unreadable(tmp_path: Path, suffix: str, keep: float) -> None:
    path = save(tmp_path / f"cut{suffix}", picture(0, (64, 64)))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    for read in (read_image, read_mask):
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
        read_mask(tmp_path / "folder.png")
    Image.fromarray(np.zeros(HW, np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(UnreadableFileError, match=r"f\.tif: 32-bit float pixels"):
        read_image(tmp_path / "f.tif")
    Image.fromarray(np.full(HW, 70_000, np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(UnreadableFileError, match=r"i\.tif: pixel values from 70000 to 70000 exceed 16 bits"):
        read_image(tmp_path / "i.tif")


@pytest.mark.parametrize(
    ("values", "expected"), [([0.0, 1.0], [0, 1]), ([0.0, 255.0], [0, 1]), ([0.0, float("nan")], [0, 0])]
)
def test_float_masks_are_read_by_value(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    array = np.repeat(np.array(values, np.float32), 8)[None].repeat(8, axis=0)
    read = read_mask(save(tmp_path / "m.tif", array))
    np.testing.assert_array_equal(read[0, ::8], expected)


@pytest.mark.shared
def test_the_original_0_1_horse_masks_and_rgba_nuclei_images(horses_dir: Path, nuclei_dir: Path) -> None:
    files = sorted((horses_dir / "awkward_raw").glob("mask01_*.png"))
    assert files
    for path in files:
        raw = np.asarray(Image.open(path))
        assert set(np.unique(raw)) == {0, 1}
        np.testing.assert_array_equal(read_mask(path), raw)
    files = sorted((nuclei_dir / "awkward_raw").glob("rgba_*.png"))
    assert files
    for path in files:
        raw = np.asarray(Image.open(path))
        assert raw.shape[2] == 4
        np.testing.assert_array_equal(read_image(path), raw[..., :3])


@pytest.mark.shared
@pytest.mark.parametrize("name", ["horses", "nuclei"])
def test_real_masks_pass_scaled_and_compressed_and_real_photos_do_not(
    shared_dir: Path, tmp_path: Path, name: str
) -> None:
    masks = sorted((shared_dir / "data" / name).glob("*/gt/*/*.png"))[::40]
    photos = sorted((shared_dir / "data" / name).glob("*/images/*/*.jpg"))[::40]
    assert len(masks) > 5
    for path in masks:
        mask = Image.open(path)
        truth = np.asarray(mask) > 0
        mask.save(tmp_path / "m.jpg", quality=40)
        assert (read_mask(tmp_path / "m.jpg") != truth).mean() < 0.01
        mask.resize((96, 96), Image.Resampling.BILINEAR).save(tmp_path / "m.png")
        assert decode_mask(tmp_path / "m.png").is_soft
    for path in photos:
        with pytest.raises(NotAMaskError, match="between dark and bright"):
            read_mask(path)
