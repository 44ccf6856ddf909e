"""What files of images hold beside plain pixels: turns, pages, bands, size, and things that are no files."""

import os
import socket
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_folders import disk, picture, save
from PIL import Image

from segcore.data.masks.rule import MaskRule
from segcore.data.pixels import opening
from segcore.data.pixels.decode import (
    UnreadableFileError,
    decode_image,
    image_size,
    read_image,
    read_mask,
    read_planes,
    to_rgb,
)
from segcore.data.pixels.memory import MemoryShare
from segcore.data.pixels.opening import read_header

HW = (24, 30)
UPRIGHT = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


def tagged(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff_of(path: Path, num_bands: int, photometric: int, extra: tuple[int, ...] = ()) -> Path:
    """An uncompressed TIFF of 4x2 pixels with any number of 8-bit bands."""
    pixels = bytes(range(8)) * num_bands
    tags = [(256, 4, (4,)), (257, 4, (2,)), (258, 3, (8,) * num_bands), (259, 3, (1,)), (262, 3, (photometric,)),
            (273, 4, (8,)), (277, 3, (num_bands,)), (278, 4, (2,)), (279, 4, (len(pixels),))]  # fmt: skip
    tags += [(338, 3, extra)] if extra else []
    after = 8 + len(pixels) + 2 + 12 * len(tags) + 4
    entries, tail = b"", b""
    for tag, kind, values in tags:
        data = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(data) > 4:
            data, tail = struct.pack("<I", after + len(tail)), tail + data
        entries += struct.pack("<HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory + tail)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_turn_is_applied_once(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored, path = picture(1, HW), tmp_path / f"x{suffix}"
    Image.fromarray(stored).save(path, exif=tagged(orientation), quality=100, subsampling=0, lossless=True)
    read, header = decode_image(path)
    assert read.shape[:2] == image_size(path) == header.hw == (HW if orientation < 5 else HW[::-1])
    assert header == read_header(path)
    assert (header.stored_hw, header.orientation) == (HW, orientation)
    expected = UPRIGHT[orientation](stored)
    if suffix == ".jpg":
        assert np.abs(read.astype(int) - expected).mean() < 6
    else:
        np.testing.assert_array_equal(read, expected)


def test_a_png_whose_exif_stands_after_its_pixels(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", picture(1, HW))
    data, end = path.read_bytes(), chunk(b"IEND", b"")
    path.write_bytes(data.removesuffix(end) + chunk(b"eXIf", tagged(6).tobytes().removeprefix(b"Exif\0\0")) + end)
    assert image_size(path) == read_image(path).shape[:2] == HW[::-1]


def test_a_png_with_a_changed_byte_is_damaged(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", disk(HW, radius=7) * 255)
    whole = path.read_bytes()
    first = whole.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", whole[first - 8 : first - 4])
    for place in range(first, first + length + 4):
        data = bytearray(whole)
        data[place] ^= 0xFF
        path.write_bytes(data)
        with pytest.raises(
            UnreadableFileError, match=r"x\.png: the file is damaged: the checksum of its pixels differs"
        ):
            read_mask(path, MaskRule())
    path.write_bytes(whole)
    np.testing.assert_array_equal(read_mask(path, MaskRule()), disk(HW, radius=7))


def test_pages_are_counted_and_a_mask_has_one(tmp_path: Path) -> None:
    pages = [Image.fromarray(disk(HW, radius=r) * 255) for r in (4, 5, 6)]
    for name in ("x.tif", "x.gif", "x.webp", "x.png"):
        pages[0].convert("RGB").save(tmp_path / name, save_all=True, append_images=pages[1:], lossless=True)
        assert decode_image(tmp_path / name)[1].num_pages == read_header(tmp_path / name).num_pages == 3, name
        with pytest.raises(UnreadableFileError, match=rf"{name}: a [A-Z]+ of 3 pages, and which of them is the mask"):
            read_mask(tmp_path / name, MaskRule())
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif")[..., 0], np.asarray(pages[0]))
    pages[0].save(tmp_path / "one.tif")
    np.testing.assert_array_equal(read_mask(tmp_path / "one.tif", MaskRule()), disk(HW, radius=4))


def test_thumbnails_and_previews_are_no_pages(tmp_path: Path) -> None:
    mask, small = Image.fromarray(disk(HW, radius=7) * 255), Image.new("L", (15, 12))
    small.encoderinfo = {"tiffinfo": {254: 1}}  # a page of reduced resolution
    mask.save(tmp_path / "x.tif", save_all=True, append_images=[small])
    assert read_header(tmp_path / "x.tif").num_pages == 1
    np.testing.assert_array_equal(read_mask(tmp_path / "x.tif", MaskRule()), disk(HW, radius=7))
    Image.fromarray(picture(1, HW)).save(tmp_path / "x.mpo", save_all=True, append_images=[small])
    assert decode_image(tmp_path / "x.mpo")[1].num_pages == 1


def test_bands_that_are_not_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(
        UnreadableFileError, match=r"five\.tif: a TIFF of 5 bands of 8-bit unsigned integers .*save one"
    ):
        read_image(tiff_of(tmp_path / "five.tif", 5, photometric=1, extra=(0, 0, 0, 0)))
    assert decode_image(tiff_of(tmp_path / "near.tif", 4, photometric=2, extra=(0,)))[1].num_unread_bands == 1
    with pytest.raises(UnreadableFileError, match=r"near\.tif: a TIFF of more bands than grey or RGB, and which"):
        read_mask(tmp_path / "near.tif", MaskRule())
    assert decode_image(tiff_of(tmp_path / "alpha.tif", 4, photometric=2, extra=(2,)))[1].num_unread_bands == 0
    assert decode_image(tiff_of(tmp_path / "rgb.tif", 3, photometric=2))[1].num_unread_bands == 0


def test_colours_that_no_rule_turns_into_rgb_are_told(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"x\.tif: pixels of the kind La, .* save it as RGB or grey"):
        to_rgb(Image.new("La", HW), "x.tif")
    Image.new("CMYK", HW[::-1], (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "cmyk.jpg").astype(int) - [255, 0, 0]).max() < 4


def test_a_file_larger_than_pillow_allows_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "x.png", picture(1, HW))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(path).shape[:2] == HW
    assert Image.MAX_IMAGE_PIXELS == 100, "Pillow's limit holds again for whoever else uses it"


def test_a_size_without_room_is_refused_from_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, end = b"\x89PNG\r\n\x1a\n", chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    for name, side in (("bomb.png", 60_000), ("big.png", 14_000)):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        (tmp_path / name).write_bytes(start + chunk(b"IHDR", header) + end)
    with pytest.raises(UnreadableFileError, match=r"60000x60000 pixels \(3600 million\) are more than the 1074"):
        read_image(tmp_path / "bomb.png")
    with pytest.raises(UnreadableFileError, match=r"14000x14000 pixels in a file of 57 bytes; it is damaged"):
        read_image(tmp_path / "big.png")
    with (tmp_path / "big.png").open("ab") as file:
        file.write(bytes(10_000))
    monkeypatch.setattr(opening, "available_bytes", lambda: 10**9)
    with pytest.raises(UnreadableFileError, match=r"\(196 million\) take about 3\.1 GB to decode, and 1\.0 GB"):
        read_mask(tmp_path / "big.png", MaskRule())


def test_a_large_blank_mask_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_LARGE_PIXELS", 100)
    monkeypatch.setattr(opening, "_MOST_PIXELS_PER_BYTE", 1000)
    for name, kind in (("x.tif", "group4"), ("y.tif", "tiff_lzw")):
        Image.new("1", (2000, 2000)).save(tmp_path / name, compression=kind)
        assert 1000 * (tmp_path / name).stat().st_size < 4_000_000
    assert not read_mask(tmp_path / "x.tif", MaskRule()).any()
    with pytest.raises(UnreadableFileError, match=r"2000x2000 pixels in a file of \d+ bytes; it is damaged"):
        read_mask(tmp_path / "y.tif", MaskRule())


def test_large_images_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segcore.data.pixels.memory.available_bytes", lambda: 100)
    share, entered = MemoryShare(), threading.Event()

    def second() -> None:
        with share.taken(80):
            entered.set()

    with share.taken(80):
        other = threading.Thread(target=second)
        other.start()
        assert not entered.wait(0.05)
    other.join(5)
    assert entered.is_set()


def test_what_is_no_file_is_named_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to("/nowhere/x.png")
    (tmp_path / "round.png").symlink_to("round.png")
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(tmp_path)  # a socket's path is short
        try:
            server.bind("socket.png")
        finally:
            os.chdir(here)
        for name, words in {
            "pipe.png": "a named pipe, not an image file",
            "folder.png": "a directory, not an image file",
            "socket.png": "a socket, not an image file",
            "gone.png": "a link to /nowhere/x.png, which does not exist",
            "round.png": "Too many levels of symbolic links",
        }.items():
            for read in (read_image, read_planes, image_size):
                with pytest.raises(UnreadableFileError, match=f"{name}: {words}"):
                    read(tmp_path / name)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", r"a pointer of Git LFS .* `git lfs pull`"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIF file of a kind that is not read; save it as PNG"),
        (b"\x93NUMPY\x01\0", "a NumPy array, not an image file"),
        (b"<html>404</html>", r"not an image file \(it begins with '<html>404</html>'\)"),
        (b"II*\0\x08\0", "not an image file: it begins as a TIFF"),
        (b"\xff\xfe\0\0", "not an image file$"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, start: bytes, words: str) -> None:
    (tmp_path / "x.png").write_bytes(start)
    with pytest.raises(UnreadableFileError, match=rf"x\.png: {words}"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.int64, np.float64])
def test_a_mask_may_be_an_array(tmp_path: Path, dtype: type) -> None:
    mask = disk(HW, radius=7)
    np.save(tmp_path / "x.npy", mask.astype(dtype))
    np.testing.assert_array_equal(read_mask(tmp_path / "x.npy", MaskRule()), mask)
    assert image_size(tmp_path / "x.npy") == HW
    np.save(tmp_path / "y.npy", mask.astype(dtype)[..., None])
    np.testing.assert_array_equal(read_mask(tmp_path / "y.npy", MaskRule()), mask)


def test_an_array_that_is_no_mask_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    for array, words in (
        (np.zeros((3, 4, 5)), "an array of 3x4x5 float64; a mask is a 2-D array of bool or integers"),
        (np.zeros((2, 2), complex), "an array of 2x2 complex128"),
        (np.zeros((0, 2)), "an array of 0x2 float64"),
        (np.array([{}]), "an array of Python objects, which are not loaded"),
        (np.full((2, 2), 2**40), "values from 1099511627776 to 1099511627776 exceed 32 bits"),
    ):
        np.save(path, array, allow_pickle=True)
        with pytest.raises(UnreadableFileError, match=rf"x\.npy: {words}"):
            read_mask(path, MaskRule())
    np.save(path, disk(HW))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UnreadableFileError, match=r"x\.npy: a broken array"):
        read_mask(path, MaskRule())
