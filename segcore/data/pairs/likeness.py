"""Finds images that are the same picture, exactly or nearly, especially in two different splits.

Each image gets a perceptual hash: its 32 x 32 grey thumbnail's lowest 8 x 8 cosine frequencies, each above or below
their median. Copies of a picture differ in few of the 63 bits whatever their size, compression or brightness; a
mirrored picture has the same frequencies with the sign of every second column flipped, so its hash costs nothing.
Pairs within `MAX_DISTANCE` bits are then compared as 16 x 16 colour thumbnails, which must correlate.

Measured on 319 photos of horses, 664 microscope images and 600 generated ones: of 450,000 pairs, 30 lie within 12 bits.
Two of these are duplicates, with a correlation of at least 0.98; the others correlate to 0.89 at most. JPEG at quality
30, halving the size, noise, blur, brightness, gamma and mirroring change at most 6 bits; a crop by 2 % on each side
changes at most 12 in photos, which then correlate to 0.93 or more, but is not found in images of many small cells, nor
is a crop by 5 % in any image. A grey copy of a colourful picture counts as another picture.

References:
    Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010 (pHash).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from segcore.data.masks.planes import ByteArray
from segcore.data.pairs.samples import SPLITS

HashArray = npt.NDArray[np.uint64]

MAX_DISTANCE = 12
"""Largest number of the 63 bits by which the hashes of one picture may differ."""
MIN_CORRELATION = 0.93
_HASH_SIDE, _FREQUENCIES, _THUMBNAIL_SIDE = 32, 8, 16
_ROWS_AT_ONCE = 256
_MIRROR = np.where(np.arange(_FREQUENCIES) % 2, -1.0, 1.0).astype(np.float32)


@dataclass(frozen=True)
class Likeness:
    """What is compared to decide whether two images are the same picture.

    Attributes:
        plain: Hash of the image, 63 bits.
        mirrored: Hash of the image with left and right swapped.
        thumbnail: `(16, 16, 3) uint8`.
    """

    plain: int
    mirrored: int
    thumbnail: ByteArray


class Leak(NamedTuple):
    """An image and its twin in an earlier split.

    Attributes:
        sample: Index of an image of val or test.
        twin: Index of an image of train, or of val for one of test.
        kind: `identical` (all pixels equal), `nearly identical` or `mirrored`.
    """

    sample: int
    twin: int
    kind: str


def likeness_of(image: ByteArray) -> Likeness:
    """Hash an `(H, W, 3) uint8` image."""
    import cv2  # not needed to read a cache

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    frequencies = cv2.dct(small)[:_FREQUENCIES, :_FREQUENCIES]
    thumbnail = cv2.resize(image, (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)
    return Likeness(_bits(frequencies), _bits(frequencies * _MIRROR), np.asarray(thumbnail, dtype=np.uint8))


def find_leaks(
    likenesses: Sequence[Likeness], splits: Sequence[str], digests: Sequence[bytes] | None = None
) -> list[Leak]:
    """Each image of val and test that has a twin in an earlier split, with the most similar one of each such split.

    Args:
        likenesses: One per sample.
        splits: `train`, `val` or `test`, one per sample.
        digests: A hash of each sample's pixels, to recognise identical ones; None: none counts as identical.
    """
    found = []
    for later in (1, 2):
        for earlier in range(later):
            rows = [i for i, split in enumerate(splits) if split == SPLITS[later]]
            columns = [i for i, split in enumerate(splits) if split == SPLITS[earlier]]
            best: dict[int, tuple[int, int, bool]] = {}
            for sample, twin, distance, is_mirrored in _twins(likenesses, rows, columns):
                best[sample] = min(best.get(sample, (99, 0, False)), (distance, twin, is_mirrored))
            for sample, (_, twin, is_mirrored) in sorted(best.items()):
                is_same = digests is not None and digests[sample] == digests[twin]
                kind = "identical" if is_same else "mirrored" if is_mirrored else "nearly identical"
                found.append(Leak(sample, twin, kind))
    return found


def group_alike(likenesses: Sequence[Likeness], groups: Sequence[str]) -> list[str]:
    """Put nearly identical images into one group, together with everything that shares a group with them.

    Args:
        likenesses: One per image.
        groups: The current group of each image.

    Returns:
        One group per image; joined groups take the alphabetically first name among them.
    """
    joined = {group: group for group in groups}

    def root(group: str) -> str:
        while joined[group] != group:
            group = joined[group]
        return group

    everything = range(len(likenesses))
    for i, j, *_ in _twins(likenesses, everything, everything):
        first, second = sorted((root(groups[i]), root(groups[j])))
        joined[second] = first
    return [root(group) for group in groups]


def _bits(frequencies: npt.NDArray[Any]) -> int:
    values = frequencies.ravel()[1:]  # without the mean brightness
    return int.from_bytes(np.packbits(values > np.median(values)).tobytes(), "big")


def _twins(
    likenesses: Sequence[Likeness], rows: Sequence[int], columns: Sequence[int]
) -> Iterator[tuple[int, int, int, bool]]:
    """Yield `(row, column, distance, is_mirrored)` of images that are the same picture, each pair of one list once."""
    plain = np.array([likenesses[j].plain for j in columns], dtype=np.uint64)
    mirrored = np.array([likenesses[j].mirrored for j in columns], dtype=np.uint64)
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[begin : begin + _ROWS_AT_ONCE]
        mine = np.array([likenesses[i].plain for i in part], dtype=np.uint64)[:, None]
        for hashes, is_mirrored in ((plain, False), (mirrored, True)):
            distances = np.bitwise_count(mine ^ hashes)
            for row, column in np.argwhere(distances <= MAX_DISTANCE).tolist():
                i, j = part[row], columns[column]
                if (rows is not columns or i < j) and _correlate(likenesses[i], likenesses[j], is_mirrored):
                    yield i, j, int(distances[row, column]), is_mirrored


def _correlate(first: Likeness, second: Likeness, is_mirrored: bool) -> bool:
    a = first.thumbnail.astype(np.float64)
    b = second.thumbnail[:, ::-1].astype(np.float64) if is_mirrored else second.thumbnail.astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if norm == 0.0:  # a single colour
        return bool(np.array_equal(first.thumbnail, second.thumbnail))
    return float((a * b).sum()) >= MIN_CORRELATION * norm
