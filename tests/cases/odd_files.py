"""Files, names and folders as cameras, scanners, archives and people leave them."""

import os
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from case import Case, Mask, Pixels, Truth, blobs, write_image, write_mask, write_pairs
from PIL import Image

_TURNED_BACK = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def _camera(orientation: int, suffix: str = "jpg") -> Callable[[Path, Pixels], None]:
    """Stores the pixels turned, with the tag that turns them back."""

    def write(path: Path, image: Pixels) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = Image.fromarray(image).transpose(_TURNED_BACK[orientation])
        turned.save(f"{path}.{suffix}", exif=exif, **({"quality": 95} if suffix == "jpg" else {}))

    return write


def _as_the_sensor_saw(orientation: int) -> Callable[[Path, Mask], None]:
    def write(path: Path, mask: Mask) -> None:
        Image.fromarray(mask.astype(np.uint8) * 255).transpose(_TURNED_BACK[orientation]).save(f"{path}.png")

    return write


def _turned(
    orientation: int, hw: tuple[int, int], *, mask_too: bool = False, suffix: str = "jpg"
) -> Callable[[Path], Truth]:
    def make(folder: Path) -> Truth:
        mask = _as_the_sensor_saw(orientation) if mask_too else write_mask
        return write_pairs(folder, _camera(orientation, suffix), mask, blobs(hw=hw))

    return make


def _pages(path: Path, image: Pixels) -> None:
    other = Image.fromarray(255 - image)
    Image.fromarray(image).save(f"{path}.tif", save_all=True, append_images=[other, other])


def _mask_pages(path: Path, mask: Mask) -> None:
    _pages(path, mask.astype(np.uint8) * 255)


def _bands(path: Path, image: Pixels) -> None:
    """An uncompressed TIFF of five 8-bit samples a pixel, which Pillow does not write."""
    values = np.concatenate([image, image[..., :2]], axis=-1)
    height, width, bands = values.shape
    body = values.tobytes()
    first = 8 + len(body)
    bits = first + 2 + 9 * 12 + 4
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, bands, bits), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, 8), (277, 3, 1, bands), (278, 3, 1, height), (279, 4, 1, len(body)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = struct.pack("<2sHI", b"II", 42, first)
    Path(f"{path}.tif").write_bytes(head + body + directory + bytes(4) + struct.pack("<5H", *[8] * bands))


def _changed(change: Callable[[Path], None]) -> Callable[[Path], Truth]:
    def make(folder: Path) -> Truth:
        truth = write_pairs(folder)
        change(folder)
        return truth

    return make


def _dangling(folder: Path) -> None:
    (folder / "images" / "photo03.png").unlink()
    (folder / "images" / "photo03.png").symlink_to("/nowhere/photo03.png")


def _no_utf8(folder: Path) -> None:
    for kind in ("images", "masks"):
        base = os.fsencode(folder / kind)
        Path(os.fsdecode(base + b"/photo04.png")).rename(os.fsdecode(base + b"/photo\xff04.png"))


def _pipe(folder: Path) -> None:
    (folder / "images" / "photo05.png").unlink()
    os.mkfifo(folder / "images" / "photo05.png")


def _folder_named_as_a_file(folder: Path) -> None:
    (folder / "masks" / "photo06.png").unlink()
    (folder / "masks" / "photo06.png").mkdir()


def _several_at_once(folder: Path) -> None:
    _dangling(folder)
    (folder / "images" / "photo01.png").write_bytes(b"")
    (folder / "masks" / "photo02.png").write_bytes((folder / "masks" / "photo02.png").read_bytes()[:40])
    (folder / "images" / "photo07.png").write_text("<html>404 Not Found</html>")


def _huge_header(folder: Path) -> None:
    """A PNG whose header promises 40,000 x 40,000 pixels and whose body is a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (folder / "images" / "photo08.png").write_bytes(png)


def _rename_masks(rename: Callable[[str], str]) -> Callable[[Path], Truth]:
    def make(folder: Path) -> Truth:
        truth = write_pairs(folder)
        for path in sorted((folder / "masks").iterdir()):
            path.rename(path.with_name(rename(path.name)))
        return truth

    return make


def _with_accents(folder: Path) -> Truth:
    """Images' names composed, masks' names decomposed, as an archive from a Mac has them."""
    truth = write_pairs(folder)
    renamed = {}
    for name, mask in truth.items():
        new = name.replace("photo", "fotografía")
        for kind, form in (("images", "NFC"), ("masks", "NFD")):
            (folder / kind / f"{name}.png").rename(folder / kind / f"{unicodedata.normalize(form, new)}.png")
        renamed[unicodedata.normalize("NFC", new)] = mask
    return renamed


def _jfif(path: Path, image: Pixels) -> None:
    Image.fromarray(image).save(f"{path}.jfif", format="JPEG", quality=95)


def _npy(path: Path, mask: Mask) -> None:
    np.save(f"{path}.npy", mask)


def _thin(folder: Path) -> Truth:
    """Cracks of one pixel in images of 160 x 160."""
    pairs = []
    for number, (name, image, _) in enumerate(blobs(hw=(160, 160))):
        mask = np.zeros((160, 160), bool)
        columns = np.arange(160)
        mask[(70 + 20 * np.sin(columns / (9 + number))).astype(int), columns] = True
        image[mask] = 20
        pairs.append((name, image, mask))
    return write_pairs(folder, pairs=pairs)


def _two_masks_for_one(folder: Path) -> None:
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(folder / "masks" / "photo09.bmp")


FILES = [
    Case("camera turned, mask upright", _turned(6, (40, 56)), "reads"),
    Case("camera turned, mask as the sensor saw it", _turned(6, (40, 56), mask_too=True), "asks", "(?i)exif|orient"),
    Case("that, square", _turned(6, (48, 48), mask_too=True), "asks", "(?i)exif|orient", needs_gate=True),
    Case("that, upside down", _turned(3, (40, 56), mask_too=True), "asks", "(?i)exif|orient", needs_gate=True),
    Case("TIFF with an orientation", _turned(8, (40, 56), suffix="tif"), "reads"),
    Case("images of three pages", lambda folder: write_pairs(folder, _pages), "warns", "page"),
    Case("masks of three pages", lambda folder: write_pairs(folder, mask=_mask_pages), "asks", "page"),
    Case("five bands", lambda folder: write_pairs(folder, _bands), "asks", "band|channel"),
    Case("a header of 1.6 gigapixels", _changed(_huge_header), "asks", "pixel"),
    Case("a dangling link", _changed(_dangling), "asks", "photo03"),
    Case("a name that is not UTF-8", _changed(_no_utf8), "asks", "UTF-8"),
    Case("a pipe among the images", _changed(_pipe), "asks", "photo05"),
    Case("a folder named as a mask", _changed(_folder_named_as_a_file), "asks", "photo06"),
    Case("four broken files of four kinds", _changed(_several_at_once), "asks", "(?s)photo0[12].*photo0[127]"),
    Case("x.jpg with x.jpg.png", _rename_masks(lambda name: name.replace(".png", ".png.png")), "reads"),
    Case("stems that differ in case", _rename_masks(lambda name: name.replace("photo", "PHOTO")), "warns"),
    Case("accents composed and not", _with_accents, "reads"),
    Case("images named .jfif", lambda folder: write_pairs(folder, _jfif), "reads"),
    Case("masks as .npy", lambda folder: write_pairs(folder, mask=_npy), "warns", "npy"),
    Case("two masks for one image", _changed(_two_masks_for_one), "asks", "photo09"),
    Case("cracks of one pixel at a third of the size", _thin, "warns", "IoU", ("data.image_size=56",)),
    Case("one image", lambda folder: write_pairs(folder, pairs=blobs(1)), "asks"),
    Case("two images", lambda folder: write_pairs(folder, write_image, pairs=blobs(2)), "warns"),
]
"""Of the second kind: what a file is, and which mask is whose."""
