"""The values of one plane of many masks, put together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from segcore.data.masks.levels import MAX_LEVELS, Levels
from segcore.data.masks.planes import Storage

_NEAR_TOP = 0.9
_FULL_OF: dict[Storage, tuple[float, ...]] = {
    "1-bit": (1.0,),
    "8-bit": (255.0,),
    "16-bit": (65535.0,),
    "32-bit": (255.0, 65535.0),
    "float": (1.0, 255.0, 65535.0),
}


@dataclass(frozen=True)
class Found:
    """A value of some masks: its pixels, and the masks that hold it."""

    value: float
    pixels: int
    files: int


@dataclass(frozen=True)
class Pool:
    """One plane of several masks.

    Attributes:
        total: All masks as if they were one.
        found: Every value, ascending; empty when there are too many to list.
        files: The masks' own levels.
    """

    total: Levels
    found: tuple[Found, ...]
    files: tuple[Levels, ...]

    @property
    def positive(self) -> tuple[Found, ...]:
        """Values above 0."""
        return tuple(found for found in self.found if found.value > 0)

    def holds(self, levels: Levels, values: Iterable[float]) -> bool:
        """Whether a mask has any of these values."""
        return bool(np.isin(levels.values, list(values)).any())


def pool_of(files: Sequence[Levels]) -> Pool:
    """Put levels together."""
    pixels: dict[float, int] = {}
    count: dict[float, int] = {}
    for levels in files:
        for value, number in zip(levels.values.tolist(), levels.counts.tolist(), strict=True):
            pixels[value] = pixels.get(value, 0) + number
            count[value] = count.get(value, 0) + 1
    listed = len(pixels) <= MAX_LEVELS and not any(levels.is_many for levels in files)
    top = max((levels.high for levels in files), default=0.0)
    values = sorted(pixels) if listed else []
    total = Levels(
        values=np.array(values, np.float64),
        counts=np.array([pixels[value] for value in values], np.int64),
        low=min((levels.low for levels in files), default=0.0),
        high=top,
        second=max((v for levels in files for v in (levels.second, levels.high) if v < top), default=top),
        num_pixels=sum(levels.num_pixels for levels in files),
        num_zero=sum(levels.num_zero for levels in files),
        num_not_finite=sum(levels.num_not_finite for levels in files),
        num_lit=sum(levels.num_lit for levels in files),
        num_plateau=sum(levels.num_plateau for levels in files),
        num_between=sum(levels.num_between for levels in files),
        num_flat=sum(levels.num_flat for levels in files),
        num_other_between=sum(levels.num_other_between for levels in files),
        num_other_flat=sum(levels.num_other_flat for levels in files),
        num_steps=sum(levels.num_steps for levels in files),
        num_smooth=sum(levels.num_smooth for levels in files),
    )
    return Pool(total, tuple(Found(value, pixels[value], count[value]) for value in values), tuple(files))


def range_of(pool: Pool, storage: Storage) -> float | None:
    """The value of full foreground of blurred masks; None where they leave that open.

    It is the largest value of all masks where many pixels have it (the mark of a mask with soft edges), else the
    largest that the files can store (1 in floats: a probability). Nothing that reaches half of that leaves it open.
    """
    top = pool.total.high
    if storage == "float" and is_apart([pool.total.second, top], is_flat=False) is not None:
        top = pool.total.second  # the largest value marks pixels without data
    high = [levels for levels in pool.files if levels.high >= _NEAR_TOP * top]
    if top == pool.total.high and sum(levels.num_plateau for levels in high) >= 0.3 * sum(
        levels.num_lit for levels in high
    ):
        return top
    full = next((full for full in _FULL_OF[storage] if top <= full * 1.001), top)
    return full if top >= full / 2 else None


def third_level(pool: Pool) -> float | None:
    """The value of flat regions halfway between background and foreground of blurred masks, if they are many."""
    top = pool.total.high
    high = [levels for levels in pool.files if levels.middle is not None and levels.high >= _NEAR_TOP * top]
    if not high:
        return None
    middle = np.sum([levels.middle for levels in high if levels.middle is not None], axis=0)
    windows = np.convolve(middle, np.ones(9, np.int64), mode="same")
    best = int(windows.argmax())
    lit = sum(levels.num_lit for levels in high)
    if windows[best] < 0.6 * middle.sum() or windows[best] < 0.03 * lit:
        return None
    return top * best / (len(middle) - 1)


def is_apart(values: Sequence[float], is_flat: bool) -> float | None:
    """The least of the one or two largest values that lie far above all others, or None.

    Args:
        values: Those above 0, ascending.
        is_flat: Whether they are flat regions rather than edges.
    """
    if len(values) < 2:
        return None
    top, second = values[-1], values[-2]
    if second <= 32 or is_flat:
        others = max(np.diff([0.0, *values[:-1]]))
        if top in ALL_ONES and top - second >= max(3, 2 * others):
            return top
        if top - second > max(16, 4 * second):
            return top
    if len(values) > 2 and values[-3] <= 8 and second - values[-3] > max(16, 4 * values[-3]):
        return second
    return None


ALL_ONES = frozenset(2.0**bits - 1 for bits in (7, 8, 15, 16, 31, 32)) | {254.0}
"""The largest values of whole numbers by their bits, and the one that is left where the last marks something."""
