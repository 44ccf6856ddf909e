"""Which pixels of a decoded mask are foreground, by the rule of its data set (`mask_decision`).

1. Where the rule names values, they are foreground and all others are background.
2. Where the alpha channel is the mask, it is read like grey values. Otherwise what is fully transparent is background
   and the colours decide.
3. Every colour but black is foreground; in a palette without black, every entry but the first.
4. Every grey value but 0 is foreground. So 0/1 and 0/255 and 0/65535 mean the same.
5. Values that blur from dark to bright (anti-aliased edges, probabilities, noise of a lossy file) are cut at half of
   the range that the whole data set has, and `MaskReading.is_soft` is True.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segcore.data.masks.levels import NOISE_FLOOR
from segcore.data.masks.planes import ByteArray, Planes, Values, pack
from segcore.data.masks.rule import MaskRule, Scale
from segcore.errors import DataError

__all__ = ["ByteArray", "MaskReading", "NotAMaskError", "binarise", "read_plane"]


class NotAMaskError(DataError):
    """The file decodes, but its values are those of a picture."""


@dataclass(frozen=True)
class MaskReading:
    """A decoded mask, and whether it held grey values.

    Attributes:
        mask: `(H, W) uint8`, 1 = foreground, 0 = background.
        is_soft: The file held grey values between background and foreground, thresholded at half of the range.
    """

    mask: ByteArray
    is_soft: bool


def binarise(planes: Planes, rule: MaskRule) -> MaskReading:
    """Read one decoded mask by the rule of its data set."""
    scale, values = read_plane(planes, rule)
    is_cut = scale in rule.soft or (planes.is_lossy and scale != "index")
    if rule.foreground is not None and not (is_cut and rule.is_cut(scale)):
        chosen = rule.packed if scale == "colour" else rule.numbers
        if scale == "colour":
            values = pack(planes.shown_rgb)
        return MaskReading(np.isin(values, chosen).astype(np.uint8), is_soft=False)
    if not is_cut:
        return MaskReading((values != 0).astype(np.uint8), is_soft=False)
    full = rule.ranges.get(scale, 0.0)
    top = float(np.nanmax(values)) if values.size else 0.0
    if full <= 0 or (planes.is_lossy and top < NOISE_FLOOR and values.dtype == np.uint8):
        mask, between = np.zeros(values.shape, bool), top > 0
    else:
        with np.errstate(invalid="ignore"):
            level: npt.NDArray[np.floating[Any]] = values.astype(
                np.float32 if values.dtype.itemsize < 4 else np.float64
            )
            level /= full
            mask, between = level >= 0.5, bool(((level >= 0.125) & (level <= 0.875)).any())
            if rule.foreground is not None:
                mask &= level <= 1.001  # what is above marks pixels without data
    if rule.foreground is not None and 0 in rule.numbers:
        mask = np.ones_like(mask) if full in rule.numbers else ~mask
    return MaskReading(mask.astype(np.uint8), is_soft=between)


def read_plane(planes: Planes, rule: MaskRule) -> tuple[Scale, Values]:
    """The values that a rule reads of a file, `(H, W)`, and the plane that they are of."""
    if rule.alpha and planes.alpha is not None:
        return "alpha", planes.alpha
    if planes.indices is not None and rule.reads_indices:
        return "index", planes.indices
    if planes.grey is not None:
        return planes.storage, planes.grey
    if planes.is_lossy or "colour" in rule.soft:
        return "colour", planes.shown_rgb.max(axis=-1)
    return "colour", pack(planes.shown_rgb)
