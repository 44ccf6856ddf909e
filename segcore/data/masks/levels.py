"""The values of one plane of a mask, and how they lie: flat regions of a drawing, blurred edges, or a picture."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segcore.data.masks.planes import Values

MAX_LEVELS = 4096
"""A plane with more distinct values than this is not listed value by value."""

SMALL_IDS = 32
"""Whole numbers up to this are class or instance numbers, never the grey of a blurred edge."""

NOISE_FLOOR = 32
"""A lossy mask whose brightest pixel is below this is an empty mask with compression noise."""

_MOST_PIXELS = 4 * 1024**2
_STRIPE = 64
_SEVERAL, _MANY = 6, 12
_MIDDLE_BINS = 256


@dataclass(frozen=True)
class Levels:
    """The values of one plane of one mask.

    Attributes:
        values: Distinct finite values, ascending; empty when there are more than `MAX_LEVELS`.
        counts: Pixels of each.
        low, high: The least and the largest finite value; 0 when there is none. Of lossy values, `high` is what the
            brightest tenth of the bright ones reach.
        second: The largest value below `high`; `high` itself where there is none.
        num_pixels: All pixels.
        num_zero: Pixels that are 0.
        num_not_finite: Pixels that are NaN or infinite.
        num_lit: Pixels of at least an eighth of `high`.
        num_plateau: Of these, pixels at `high`, apart from compression noise.
        num_between: Pixels above 0 and clearly below `high`.
        num_flat: Of these, pixels whose four neighbours have the same value.
        num_other_between, num_other_flat: The same without the two values that most flat pixels have.
        num_steps: Neighbouring pixels that differ.
        num_smooth: Of these, neighbours that differ by next to nothing.
        middle: `(256,)` pixels by their value's share of `high`, of flat regions halfway between 0 and `high`.
        picture: Why the values are those of a picture, or an empty text.
    """

    values: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    low: float
    high: float
    second: float
    num_pixels: int
    num_zero: int
    num_not_finite: int = 0
    num_lit: int = 0
    num_plateau: int = 0
    num_between: int = 0
    num_flat: int = 0
    num_other_between: int = 0
    num_other_flat: int = 0
    num_steps: int = 0
    num_smooth: int = 0
    middle: npt.NDArray[np.int64] | None = None
    picture: str = ""

    @property
    def is_many(self) -> bool:
        """Whether the values are too many to be listed."""
        return len(self.values) == 0 and self.num_pixels > self.num_not_finite


def levels_of(values: Values, lossy: bool) -> Levels:
    """Survey `(H, W)` values.

    A photo is told from a mask by limits that were tuned on the masks and photos of two data sets, horses and nuclei:
    all masks pass, also scaled down with blurred edges or saved as JPEG of quality 30, and 328 of 329 photos do not.
    """
    finite = values
    num_not_finite = 0
    if values.dtype.kind == "f":
        is_finite = np.isfinite(values)
        num_not_finite = int(values.size - is_finite.sum())
        finite = np.where(is_finite, values, 0) if num_not_finite else values
        distinct, counts = np.unique(values[is_finite], return_counts=True)
    elif values.dtype == np.uint8 or values.dtype == np.uint16:
        all_counts = np.bincount(values.ravel())
        distinct = np.flatnonzero(all_counts)
        counts = all_counts[distinct]
    else:
        distinct, counts = np.unique(values, return_counts=True)
    distinct = distinct.astype(np.float64)
    low, high = (float(distinct[0]), float(distinct[-1])) if len(distinct) else (0.0, 0.0)
    num_zero = int(counts[distinct == 0].sum())
    listed = len(distinct) <= MAX_LEVELS
    levels = Levels(
        distinct if listed else np.empty(0), counts.astype(np.int64) if listed else np.empty(0, np.int64),
        low, high, float(distinct[-2]) if len(distinct) > 1 else high, values.size, num_zero, num_not_finite,
    )  # fmt: skip
    if high <= 0 or (len(distinct) - (num_zero > 0)) <= 1:
        lit = values.size - num_zero - num_not_finite if high > 0 else 0
        return Levels(**{**vars(levels), "num_lit": lit, "num_plateau": lit})
    return _with_structure(levels, finite, len(distinct), lossy)


def _with_structure(levels: Levels, values: Values, num_levels: int, lossy: bool) -> Levels:
    values = _striped(values)
    high = _typical_high(values, levels.high) if lossy else levels.high
    level: npt.NDArray[np.floating[Any]] = values.astype(np.float32 if values.dtype.itemsize < 4 else np.float64)
    level /= high
    lit, above = level >= 0.125, level > 0
    centre, neighbours = _centre(values), _neighbours(values)
    between = above & (level < 0.875)
    flat = np.logical_and.reduce([centre == other for other in neighbours]) if centre.size else np.zeros((0, 0), bool)
    inner = _centre(between)
    num_other_between, num_other_flat = _without_the_flattest(centre[inner], flat[inner])
    steps = [np.abs(np.diff(level, axis=axis)) for axis in (0, 1)]
    little = max(1 / 64, 1 / high) * 1.001 if values.dtype.kind != "f" else 1 / 64
    num_smooth = sum(int(((step > 0) & (step <= little)).sum()) for step in steps)
    around = [np.abs(_centre(level) - other) <= 8 / 255 for other in _neighbours(level)]
    middle_flat = np.logical_and.reduce([*around, _centre(level) > 0.2, _centre(level) < 0.8])
    middle = np.bincount((_centre(level)[middle_flat] * (_MIDDLE_BINS - 1)).astype(np.int64), minlength=_MIDDLE_BINS)
    shaped = Levels(
        **{
            **vars(levels),
            "high": high,
            "num_lit": int(lit.sum()),
            "num_plateau": int((level >= (0.85 if lossy else 0.97)).sum()),
            "num_between": int(inner.sum()),
            "num_flat": int((flat & inner).sum()),
            "num_other_between": num_other_between,
            "num_other_flat": num_other_flat,
            "num_steps": sum(int((step > 0).sum()) for step in steps),
            "num_smooth": num_smooth,
            "middle": middle,
        }
    )
    if levels.high < NOISE_FLOOR if lossy else is_drawing(shaped):
        return shaped
    picture = _picture(level * np.float32(high / levels.high), lossy, values.dtype != np.uint8)
    if picture and _has_two_levels(level, lit):
        picture = ""
    return Levels(**{**vars(shaped), "picture": picture})


def is_drawing(levels: Levels) -> bool:
    """Whether lossless values are flat regions: one or two levels, or numbered classes or instances.

    A drawing's regions are flat and its background is 0. A photo's neighbours differ, and few of its pixels
    are exactly 0 (a dark, smooth photo may be flat, so both are tested). Without any 0, the number of levels decides.
    Values just below the largest one are not counted: noise of a lossy file that was saved again without loss.
    """
    num_levels = len(levels.values) or MAX_LEVELS + 1
    if num_levels - (levels.num_zero > 0) <= 1:
        return True
    whole = bool((levels.values == np.rint(levels.values)).all()) and not levels.is_many
    if whole and levels.high <= SMALL_IDS:
        return True
    if (num_levels > _MANY and levels.num_smooth >= 0.5 * levels.num_steps) or is_smeared(levels):
        return False
    flat_share = levels.num_flat / levels.num_between if levels.num_between else 1.0
    if num_levels > _MANY and levels.num_other_between:
        flat_share = levels.num_other_flat / levels.num_other_between
    if levels.num_zero >= 0.05 * levels.num_pixels:
        return flat_share >= 0.25
    return num_levels <= 2 or (num_levels <= 64 and flat_share >= 0.7)


def _without_the_flattest(values: Values, flat: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Number of values, and of flat ones among them, apart from the two values that are flat most often."""
    distinct, places = np.unique(values, return_inverse=True)
    counts, flats = (np.bincount(chosen, minlength=len(distinct)) for chosen in (places, places[flat]))
    rest = np.argsort(-flats, kind="stable")[2:]
    return int(counts[rest].sum()), int(flats[rest].sum())


def is_smeared(levels: Levels) -> bool:
    """Whether the values crowd around 0 and around the largest one: noise of a lossy file saved again without loss."""
    share, counts = levels.values / levels.high, levels.counts
    low, high = (share > 0) & (share < 0.25), share >= 0.75
    above = counts[share > 0].sum()
    crowds = np.count_nonzero(low) >= 2 and np.count_nonzero(high) >= 2 and len(share) > _SEVERAL
    return bool(crowds and counts[low | high].sum() >= 0.95 * above and counts[high].sum() >= 0.1 * above)


def _has_two_levels(level: npt.NDArray[np.floating[Any]], lit: npt.NDArray[np.bool_]) -> bool:
    """Whether few values lie between dark and bright: edges of a lossy mask overshoot, probabilities have noise."""
    between = lit & (level <= 0.875)
    return bool(between.mean() <= 0.12 and between.sum() <= 0.4 * lit.sum() and lit.mean() <= 0.7)


def _picture(level: npt.NDArray[np.floating[Any]], lossy: bool, is_fine: bool) -> str:
    """Why values are those of a picture; `level` is their share of the largest one, in fine steps if not of 8 bits."""
    lit = level >= 0.125
    between = lit & (level <= 0.875)
    share_of_all, share_of_lit = float(between.mean()), float(between.sum() / max(1, lit.sum()))
    dark = 8 / 255 if lossy or is_fine else 0
    dark_share, bright_share = float((level <= dark).mean()), float((level >= 0.97).mean())
    most_between = (0.3, 0.7) if lossy else (0.6, 0.97)
    has_background = dark_share >= 0.05 or bright_share >= 0.8
    if share_of_all <= most_between[0] and share_of_lit <= most_between[1] and has_background:
        return ""
    return (
        f"{share_of_all:.0%} of its pixels are between dark and bright and {dark_share:.0%} are black; "
        "a mask has two levels, flat class numbers, or thin grey edges"
    )


def _typical_high(values: Values, high: float) -> float:
    """The brightness of a lossy mask's bright pixels, without what overshoots at their edges."""
    return float(np.percentile(values[values >= high / 8], 90))


def _striped(values: Values) -> Values:
    """The values, or of a very large mask stripes of rows that hold about `_MOST_PIXELS`."""
    if values.size <= _MOST_PIXELS:
        return values
    every = -(-values.size // _MOST_PIXELS)
    rows = np.arange(values.shape[0])
    stripes: Values = values[(rows // _STRIPE) % every == 0]
    return stripes


def _centre(values: Values) -> Values:
    centre: Values = values[1:-1, 1:-1]
    return centre


def _neighbours(values: Values) -> list[Values]:
    return [values[:-2, 1:-1], values[2:, 1:-1], values[1:-1, :-2], values[1:-1, 2:]]
