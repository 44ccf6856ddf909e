from pathlib import Path

import numpy as np
import pytest
from data_folders import disk, picture, save
from PIL import Image

from segcore.data.masks.foreground import MaskReading
from segcore.data.masks.planes import ByteArray
from segcore.data.pixels import decode
from segcore.data.pixels.surveying import require_rule
from segcore.errors import DataError

HW = (24, 30)


def decode_mask(path: Path) -> MaskReading:
    """A mask that is a data set by itself."""
    return decode.decode_mask(path, require_rule([path], None, path.parent))


def read_mask(path: Path) -> ByteArray:
    return decode_mask(path).mask


@pytest.fixture
def mask() -> np.ndarray:
    return disk(HW, radius=7)


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


@pytest.mark.parametrize(
    ("palette", "index", "expected"),
    [
        ([0, 0, 0, 255, 255, 255], 0, 0),
        ([0, 0, 0, 255, 255, 255], 1, 1),
        ([255, 255, 255, 0, 0, 0], 0, 1),
        ([255, 255, 255, 0, 0, 0], 1, 0),
        ([90, 10, 10, 10, 90, 10], 0, 0),
        ([90, 10, 10, 10, 90, 10], 1, 1),
    ],
)
def test_a_palette_mask_of_one_colour(tmp_path: Path, palette: list[int], index: int, expected: int) -> None:
    image = Image.fromarray(np.full(HW, index, np.uint8), mode="P")
    image.putpalette(palette)
    image.save(tmp_path / "m.png")
    assert (read_mask(tmp_path / "m.png") == expected).all()


def test_stray_pixels_are_shown_with_the_likelier_answer(tmp_path: Path) -> None:
    values = np.where(disk(HW, 7), 255, 0).astype(np.uint8)
    values[0, :2] = 1
    with pytest.raises(DataError, match=r"1 \(0\.3% of pixels, 1 files\).*\n.*--set 'data\.foreground=255'"):
        read_mask(save(tmp_path / "m.png", values))


def test_a_gif_mask(tmp_path: Path, mask: np.ndarray) -> None:
    np.testing.assert_array_equal(read_mask(save(tmp_path / "m.gif", mask * 255)), mask)


@pytest.mark.parametrize("value", [0, 1, 255])
@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_a_constant_mask_is_empty_or_full(tmp_path: Path, value: int, kind: str) -> None:
    shape = HW if kind == "grey" else (*HW, 3)
    reading = read_mask(save(tmp_path / "m.png", np.full(shape, value, np.uint8)))
    assert (reading == (value > 0)).all()


def test_class_numbers_and_instances_are_foreground_wherever_they_are_not_0(tmp_path: Path) -> None:
    labels = np.zeros((48, 48), np.uint8)
    for number, (row, column) in enumerate([(2, 2), (2, 20), (20, 2), (20, 20), (34, 34)], start=1):
        labels[row : row + 10, column : column + 10] = number
    for values in (labels, labels * 37, labels.astype(np.uint16) * 500):
        np.testing.assert_array_equal(read_mask(save(tmp_path / "m.png", values)), (labels > 0).astype(np.uint8))
    colours = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0], [0, 0, 128], [9, 9, 9], [64, 0, 128]], np.uint8)
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
    save(tmp_path / "other.jpg", disk((32, 32)) * 255)
    rule = require_rule([tmp_path / "m.jpg", tmp_path / "other.jpg"], None, tmp_path)
    assert not decode.read_mask(tmp_path / "m.jpg", rule).any()
    with pytest.raises(DataError, match=r"nothing reaches 32 of 255: 0/1 or class numbers do not survive .*as PNG"):
        read_mask(tmp_path / "m.jpg")


@pytest.mark.parametrize(
    ("suffix", "channels"), [(".jpg", "rgb"), (".jpg", "grey"), (".png", "rgb"), (".png", "grey"), (".png", "rgba")]
)
def test_a_picture_is_not_a_mask(tmp_path: Path, suffix: str, channels: str) -> None:
    image = picture(3, (64, 64))
    array = {"rgb": image, "grey": image[..., 0], "rgba": np.dstack([image, np.full((64, 64), 255, np.uint8)])}[
        channels
    ]
    path = save(tmp_path / f"photo{suffix}", array)
    with pytest.raises(DataError, match=rf"photo\{suffix}: .*between dark and bright"):
        read_mask(path)


@pytest.mark.parametrize(("values", "expected"), [([0.0, 1.0], [0, 1]), ([0.0, 255.0], [0, 1]), ([0.0, 0.7], [0, 1])])
def test_float_masks_are_read_by_value(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    array = np.repeat(np.array(values, np.float32), 8)[None].repeat(8, axis=0)
    read = read_mask(save(tmp_path / "m.tif", array))
    np.testing.assert_array_equal(read[0, ::8], expected)


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
        with pytest.raises(DataError, match="between dark and bright"):
            read_mask(path)
