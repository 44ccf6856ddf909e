"""What Pillow leaves unread of a PNG: the checksums of its pixels, and an EXIF that stands after them."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_SIGNATURE_BYTES, _CHECKSUM_BYTES = 8, 4


def late_exif(path: Path) -> bytes | None:
    """The EXIF of a PNG, wherever it stands among the file's chunks; None where there is none."""
    with path.open("rb") as file:
        for kind, length in _chunks(file):
            if kind == b"eXIf":
                return file.read(length)
    return None


def require_checksums(path: Path) -> None:
    """Refuse a PNG whose pixels are not those that were written: a changed byte often decodes to other pixels.

    Raises:
        ValueError: A checksum differs.
    """
    with path.open("rb") as file:
        for kind, length in _chunks(file):
            if kind != b"IDAT":
                continue
            data, checksum = file.read(length), file.read(_CHECKSUM_BYTES)
            if len(checksum) < _CHECKSUM_BYTES:  # cut off, which the decoder finds
                return
            if zlib.crc32(data, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
                raise ValueError("the file is damaged: the checksum of its pixels differs")


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Kind and number of bytes of each chunk, the file standing at its data."""
    place = _SIGNATURE_BYTES
    file.seek(place)
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        yield kind, length
        place += 8 + length + _CHECKSUM_BYTES
        file.seek(place)
