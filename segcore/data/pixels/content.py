"""Decodes pairs, in threads, and checks what only the pixels show."""

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from segcore.data.masks.foreground import MaskReading, binarise
from segcore.data.masks.planes import ByteArray
from segcore.data.masks.rule import MaskRule
from segcore.data.pairs.checks import Problems
from segcore.data.pixels.decode import (
    UnreadableFileError,
    decode_image,
    read_planes,
    resize_mask,
)
from segcore.data.pixels.opening import Header
from segcore.data.pixels.turns import unproven_turn

_ALMOST_BLACK = 17  # the brightest byte that 12-bit values give in a 16-bit file is 15


class HasPair(Protocol):
    """Anything with an image and a mask on disk."""

    @property
    def image(self) -> Path:
        """Path of the image."""

    @property
    def mask(self) -> Path:
        """Path of the mask."""


@dataclass(frozen=True)
class Content:
    """The decoded pixels of one pair, or what is wrong with it.

    Attributes:
        image: `(H, W, 3) uint8`; None when the pair has errors.
        mask: `(H, W) uint8` of 0 and 1; None when the pair has errors.
        digest: sha256 of the image's pixels, then of the mask's, 64 bytes; empty when the pair has errors.
        original_hw: Height and width on disk, in pixels.
        problems: What was wrong or odd.
        unproven_turn: The image's EXIF orientation where only the pixels show whether its mask was turned too, else 1.
    """

    image: ByteArray | None
    mask: ByteArray | None
    digest: bytes
    original_hw: tuple[int, int]
    problems: Problems
    unproven_turn: int = 1


def num_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode_pair(pair: HasPair, hw: tuple[int, int] | None, root: Path, rule: MaskRule | None) -> Content:
    """Decode, check and resize one pair; problems are returned, not raised.

    Args:
        pair: Image and mask.
        hw: Height and width to resize to, in pixels; None keeps the size.
        root: The folder that paths in messages are relative to.
        rule: What the masks of the data set mean; None, where that is open, only looks for other problems.
    """
    problems = Problems()
    image = mask = None
    header, turn = Header((0, 0)), 1
    try:
        image, header = decode_image(pair.image, hw)
    except UnreadableFileError as error:
        problems.error(error.kind, _relative_message(error, root))
    else:
        if image.max() < _ALMOST_BLACK:
            problems.warn(
                f"images are almost black (nothing reaches {_ALMOST_BLACK} of 255; 12-bit values in a 16-bit file?)",
                shown_path(pair.image, root),
            )
        _note_what_is_left_out(header, shown_path(pair.image, root), problems)
    try:
        planes = read_planes(pair.mask)
    except UnreadableFileError as error:
        problems.error(error.kind, _relative_message(error, root))
    else:
        name, mask_hw = shown_path(pair.mask, root), planes.hw
        if image is not None:
            turn = unproven_turn((shown_path(pair.image, root), name), header, pair.mask, mask_hw, problems)
        if rule is not None:
            reading = binarise(planes, rule)
            _note_oddities(reading, name, problems)
            mask = resize_mask(reading.mask, hw)
    if problems.errors or image is None or mask is None:
        return Content(None, None, b"", header.hw, problems)
    digest = hashlib.sha256(image.data).digest() + hashlib.sha256(mask.data).digest()
    return Content(image, mask, digest, header.hw, problems, turn)


def _note_what_is_left_out(header: Header, name: str, problems: Problems) -> None:
    """Warn of what of an image's file is not read."""
    if header.num_pages > 1:
        problems.warn(
            "images have several pages or frames, of which the first alone is read (where that is not the one that its "
            "mask belongs to, save the right one as a file of its own)",
            f"{name} ({header.num_pages} pages)",
        )
    if header.num_unread_bands:
        problems.warn(
            "images have more bands than grey or RGB, and only the first ones are read (save the bands that matter as "
            "one image)",
            f"{name} ({header.num_unread_bands} not read)",
        )


def _note_oddities(reading: MaskReading, name: str, problems: Problems) -> None:
    if not reading.mask.any():
        problems.warn("masks are empty (no foreground)", name)
    elif reading.mask.all():
        problems.warn("masks are all foreground", name)
    if reading.is_soft:
        problems.warn("masks hold grey values between background and foreground, cut at half", name)


def decode_all(
    pairs: Sequence[HasPair], hw: tuple[int, int] | None, root: Path, rule: MaskRule | None
) -> Iterator[Content]:
    """Decode every pair on all CPUs and yield the results in order, a bounded number ahead.

    Args:
        pairs: Images with their masks.
        hw: Height and width to resize to, in pixels; None keeps the sizes.
        root: The folder that paths in messages are relative to.
        rule: As for `decode_pair`.
    """
    workers = num_cpus()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: deque[Future[Content]] = deque()
        source = iter(pairs)
        try:
            for pair in islice(source, 4 * workers):
                waiting.append(pool.submit(decode_pair, pair, hw, root, rule))
            while waiting:
                content = waiting.popleft().result()
                for pair in islice(source, 1):
                    waiting.append(pool.submit(decode_pair, pair, hw, root, rule))
                yield content
        finally:
            for future in waiting:
                future.cancel()


def shown_path(path: Path, root: Path) -> str:
    """The path relative to the data set's folder, or the full path if it is outside."""
    base = root.parent if root.suffix.lower() in {".csv", ".tsv"} else root
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


def _relative_message(error: Exception, root: Path) -> str:
    return str(error).replace(f"{root}{os.sep}", "", 1)
