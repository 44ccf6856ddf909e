"""The files of a sealed model on their way: their hashes, and the order in which they are sent."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

from segcore.sealed.card import CARD_FILE

_CHUNK_BYTES = 1 << 20

Progress = Callable[[str, int, int], None]
"""Called as `(file name, bytes done, bytes in total)`; the bytes fall back to 0 when a file is sent again."""


class FileDigest(TypedDict):
    """Content identity of one file."""

    sha256: str
    size: int


def digest_of(path: Path) -> FileDigest:
    """Hashes a file in one pass."""
    sha256, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            sha256.update(chunk)
            size += len(chunk)
    return {"sha256": sha256.hexdigest(), "size": size}


def card_last(names: Mapping[str, object]) -> list[str]:
    """File names in the order in which a reader may see them appear: the card only after what it vouches for."""
    return sorted(names, key=lambda name: (name == CARD_FILE, name))


def megabytes(size: int) -> str:
    """A byte count for people."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} bytes"
