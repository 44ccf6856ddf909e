"""Says what a file is that cannot be read as an image."""

import stat
from pathlib import Path

from PIL.TiffImagePlugin import ImageFileDirectory_v2

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_NUMBERS = {1: "unsigned integers", 2: "signed integers", 3: "floats", 5: "complex integers", 6: "complex floats"}
_SIGNATURES = (
    (b"version https://git-lfs", "a pointer of Git LFS instead of the file itself; fetch it with `git lfs pull`"),
    (b"\x93NUMPY", "a NumPy array, not an image file"),
    (b"%PDF", "a PDF, not an image file"),
    (b"PK\x03\x04", "a zip archive, not an image file"),
    (b"\x89HDF", "an HDF5 file, not an image file"),
    (b"\x1f\x8b", "a gzip file, not an image file"),
)
_TIFF_BANDS, _TIFF_BITS, _TIFF_NUMBERS, _TIFF_COMPRESSION = 277, 258, 339, 259


def missing_file(path: Path) -> str:
    """Why a file that was listed cannot be found."""
    return f"a link to {path.readlink()}, which does not exist" if path.is_symlink() else "no such file"


def require_plain_file(path: Path) -> None:
    """Refuse what is no file before it is opened: opening a named pipe would wait for ever.

    Raises:
        ValueError: Says what it is.
        OSError: It cannot be looked at.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "not a file")
        raise ValueError(f"{kind}, not an image file")


def what_it_is(path: Path) -> str:
    """What a file is that no decoder knows, and what to do about it."""
    with path.open("rb") as file:
        start = file.read(256)
    if not start:
        return "the file is empty"
    for signature, meaning in _SIGNATURES:
        if start.startswith(signature):
            return meaning
    if start[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
        return _tiff(path)
    if start[4:8] == b"ftyp":
        return "a HEIF file of a kind that is not read; save it as PNG, or as JPEG if it is a photo"
    first = start.splitlines()[0] if start.splitlines() else start
    try:
        text = first[:40].decode("ascii")
    except UnicodeDecodeError:
        text = ""
    return f"not an image file (it begins with {text!r})" if text and text.isprintable() else "not an image file"


def _tiff(path: Path) -> str:
    """Bands, bits and kind of number of a TIFF."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            is_big = start[2:3] == b"+" or start[3:4] == b"+"
            tags = ImageFileDirectory_v2(start + file.read(8) if is_big else start)
            file.seek(tags.next)
            tags.load(file)
        num_bands = int(tags.get(_TIFF_BANDS, 1))
        bits = "/".join(map(str, sorted(set(tags.get(_TIFF_BITS, (1,))))))
        number = _NUMBERS.get(int(tags.get(_TIFF_NUMBERS, (1,))[0]), "numbers of an unknown kind")
        compression = int(tags.get(_TIFF_COMPRESSION, 1))
    except Exception:  # a broken TIFF can fail in any way, and the answer is the same
        return "not an image file: it begins as a TIFF, and cannot be read as one"
    bands = f"{num_bands} band{'s' * (num_bands != 1)}"
    return (
        f"a TIFF of {bands} of {bits}-bit {number} (compression {compression}), which is not read; save one band "
        "(grey) or three (red, green, blue) of 8 or 16 bits"
    )
