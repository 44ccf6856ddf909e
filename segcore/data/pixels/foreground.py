"""Which pixels of a decoded mask are foreground, whatever its file format.

1. An alpha channel that varies is the mask when the visible pixels all have one colour; otherwise fully
   transparent pixels are background and the colours decide. A constant alpha channel is ignored.
2. Colours (palette or RGB) that are not all grey: in a drawing of flat colours every colour but black is
   foreground. A palette without black takes its entry 0 as the background.
3. Grey, 1-bit and 16-bit values: with one or two levels, or with regions of flat values (class or instance
   numbers), every value but 0 is foreground. So 0/1 and 0/255 and 0/65535 mean the same.
4. Grey values that blur from dark to bright (anti-aliased edges, JPEG noise) are thresholded at half of the
   brightest value, and `MaskReading.is_soft` is True. When most values lie between the extremes, the file is a
   picture rather than a mask, and reading it raises `NotAMaskError`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from segcore.errors import DataError

ByteArray = npt.NDArray[np.uint8]

_NOISE_FLOOR = 32  # a lossy mask whose brightest pixel is below this is an empty mask with compression noise


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


def binarise(image: Image.Image, lossy: bool, path: Path) -> MaskReading:
    """Apply this module's rules to a decoded mask.

    Args:
        image: The mask in any mode of PIL.
        lossy: Whether its file format alters values, as JPEG does.
        path: The file, for the error message.

    Raises:
        NotAMaskError: The values are those of a picture.
    """
    mode = image.mode
    if mode == "1":
        return MaskReading(np.asarray(image, dtype=np.uint8), is_soft=False)
    if mode == "L" or mode == "I" or mode.startswith("I;16"):
        return _binarise_grey(np.asarray(image), lossy, path)
    if mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        return _binarise_grey(_ranked(values), lossy, path)
    if mode in {"P", "PA"}:
        return _binarise_palette(image, lossy, path)
    return _binarise_colours(np.asarray(image.convert("RGBA"), dtype=np.uint8), lossy, path)


def _ranked(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Map float values to integers that the grey rule can read: exact for whole numbers, 16 bits otherwise."""
    if np.array_equal(values, np.rint(values)):
        return values.astype(np.int64)
    top = float(np.abs(values).max())
    return np.rint(values / top * 65535).astype(np.int64)


def _binarise_palette(image: Image.Image, lossy: bool, path: Path) -> MaskReading:
    indices = np.asarray(image.getchannel("P") if image.mode == "PA" else image, dtype=np.uint8)
    rgba = np.asarray(image.convert("RGBA"), dtype=np.uint8)
    used = np.unique(indices)
    first = [np.flatnonzero(indices.ravel() == index)[0] for index in used]
    colours = rgba.reshape(-1, 4)[first]
    has_black = bool((colours[:, :3].max(axis=1) == 0).any())
    is_grey = bool((colours[:, :3] == colours[:, :1]).all())
    if len(np.unique(colours[:, 3])) == 1 and not has_black and len(used) > 1 and (not is_grey or len(used) == 2):
        return MaskReading((indices != 0).astype(np.uint8), is_soft=False)
    if len(used) == 1 and colours[0, 3] == 255:
        # A single colour: black is empty, and so is entry 0 unless the other entry is black.
        other_is_black = (image.getpalette("RGB") or [])[3:] == [0, 0, 0]
        is_full = not has_black and (int(used[0]) != 0 or other_is_black)
        return MaskReading(np.full(indices.shape, int(is_full), np.uint8), is_soft=False)
    return _binarise_colours(rgba, lossy, path)


def _binarise_colours(rgba: ByteArray, lossy: bool, path: Path) -> MaskReading:
    """Apply rules 1 to 3 to `(H, W, 4) uint8`."""
    rgb, alpha = rgba[..., :3], rgba[..., 3]
    if alpha.min() != alpha.max():
        visible = alpha > 0
        colours = rgb[visible]
        if (colours == colours[0]).all():
            return _binarise_grey(alpha, lossy, path)
        rgb = np.where(visible[..., None], rgb, np.uint8(0))
    if np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 0], rgb[..., 2]):
        return _binarise_grey(rgb[..., 0], lossy, path)
    red, green, blue = (rgb[..., channel].astype(np.int16) for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    if lossy and spread.max() <= 24:  # grey, apart from compression noise
        return _binarise_grey(rgb.max(axis=-1), lossy, path)
    packed = (red.astype(np.int32) << 16) | (green.astype(np.int32) << 8) | blue
    if not lossy and _is_drawing(packed):
        return MaskReading((packed > 0).astype(np.uint8), is_soft=False)
    return _cut_soft(rgb.max(axis=-1), lossy, path)


def _binarise_grey(values: npt.NDArray[np.generic], lossy: bool, path: Path) -> MaskReading:
    """Apply rules 3 and 4 to `(H, W)` integers."""
    if not lossy and _is_drawing(values):
        return MaskReading((values != 0).astype(np.uint8), is_soft=False)
    return _cut_soft(values, lossy, path)


def _is_drawing(values: npt.NDArray[np.generic]) -> bool:
    """Whether `(H, W)` integers are flat regions: one or two levels, or numbered classes or instances.

    A drawing's regions are flat and its background is 0. A photo's neighbours differ, and few of its pixels
    are exactly 0 (a dark, smooth photo may be flat, so both are tested). Without any 0, the number of levels decides.
    """
    top = values.max()
    between = (values != 0) & (values != top)
    if not between.any():
        return True
    if float((values == 0).mean()) >= 0.05:
        return _flat_share(values, between) >= 0.25
    num_levels = len(np.unique(values))
    return num_levels <= 2 or (num_levels <= 64 and _flat_share(values, between) >= 0.7)


def _cut_soft(values: npt.NDArray[np.generic], lossy: bool, path: Path) -> MaskReading:
    """Threshold `(H, W)` values at half of the brightest one, unless they are a picture's (rule 4).

    The limits were tuned on the masks and photos of two data sets, horses and nuclei: all masks pass, also scaled
    down with blurred edges or saved as JPEG of quality 30, and 328 of 329 photos do not.
    """
    top = int(values.max())
    if lossy and top < _NOISE_FLOOR:
        return MaskReading(np.zeros(values.shape, np.uint8), is_soft=top > 0)
    level = values.astype(np.float32) / top
    lit = level >= 0.125
    between = lit & (level <= 0.875)
    share_of_all, share_of_lit = float(between.mean()), float(between.sum() / max(1, lit.sum()))
    dark_share, bright_share = float((level <= (8 / top if lossy else 0)).mean()), float((level >= 0.97).mean())
    most_between = (0.3, 0.7) if lossy else (0.6, 0.97)
    has_background = dark_share >= 0.05 or bright_share >= 0.8
    if share_of_all > most_between[0] or share_of_lit > most_between[1] or not has_background:
        raise NotAMaskError(
            f"{path}: {share_of_all:.0%} of its pixels are between dark and bright and {dark_share:.0%} are black; "
            "a mask has two levels, flat class numbers, or thin grey edges"
        )
    return MaskReading((level >= 0.5).astype(np.uint8), is_soft=bool(between.any()))


def _flat_share(values: npt.NDArray[np.generic], where: npt.NDArray[np.bool_]) -> float:
    """Share of the pixels in `where` whose four neighbours all have their value: high in a drawing, low in a photo."""
    if values.shape[0] < 3 or values.shape[1] < 3:
        return 0.0
    core = values[1:-1, 1:-1]
    flat = (
        (core == values[:-2, 1:-1])
        & (core == values[2:, 1:-1])
        & (core == values[1:-1, :-2])
        & (core == values[1:-1, 2:])
    )
    chosen = where[1:-1, 1:-1]
    return float((flat & chosen).sum() / max(1, chosen.sum()))
