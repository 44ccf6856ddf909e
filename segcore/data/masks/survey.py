"""What one mask file holds: its values and how they lie, without a decision about what they mean.

`decision` reads the surveys of all masks of a data set and decides once for all of them.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from segcore.data.masks.levels import Levels, is_drawing, levels_of
from segcore.data.masks.planes import ByteArray, Planes, Storage, pack
from segcore.data.masks.rule import Scale


@dataclass(frozen=True)
class PaletteSurvey:
    """The palette entries that a mask uses.

    Attributes:
        indices: Levels of the indices.
        colours: Packed colours of `indices.values`.
        is_grey: Whether all of them are grey.
        background: Packed colour of the background: black where the mask uses it or its palette begins with it or is
            the inverse pair, else entry 0's.
        by_index: Whether the background is entry 0 rather than black.
    """

    indices: Levels
    colours: tuple[int, ...]
    is_grey: bool
    background: int
    by_index: bool


@dataclass(frozen=True)
class MaskSurvey:
    """What one mask file holds.

    Attributes:
        storage: What its values are stored as.
        is_lossy: Whether its compression alters values.
        grey: Levels of its grey values, black where transparent; None when it holds colours.
        colours: Levels of its colours, packed as `0xRRGGBB`, black where transparent; None when it is grey.
        brightness: Levels of the brightest channel of its colours; None when it is grey.
        coarse: Packed coarse colours (the two highest bits of each channel) of a mask with lossy colours, and the
            pixels of each.
        alpha: Levels of its alpha; None without one that varies.
        has_channel: Whether there is an alpha channel at all.
        constant_alpha: The alpha of a channel that does not vary, else None.
        ink: The one packed colour of all visible pixels; None when they vary or none is visible.
        palette: Its palette, or None.
    """

    storage: Storage
    is_lossy: bool
    grey: Levels | None
    colours: Levels | None = None
    brightness: Levels | None = None
    coarse: tuple[tuple[int, int], ...] = ()
    alpha: Levels | None = None
    has_channel: bool = False
    constant_alpha: int | None = None
    ink: int | None = None
    palette: PaletteSurvey | None = None

    @cached_property
    def main(self) -> Levels:
        """Levels of what is read unless the alpha channel is."""
        found = self.grey if self.grey is not None else self.brightness
        assert found is not None
        return found

    @property
    def picture(self) -> str:
        """Why the file is a picture rather than a mask, or an empty text."""
        if self.colours is not None and is_drawing(self.colours):
            return ""
        return self.main.picture


Named = tuple[str, MaskSurvey]
"""A mask's name in messages, and its survey."""

ByScale = dict[Scale, list[tuple[str, Levels, MaskSurvey]]]
"""The planes that are read, of all masks, by what can be compared."""


def survey_of(planes: Planes) -> MaskSurvey:
    """Survey one decoded mask."""
    lossy, grey = planes.is_lossy, planes.grey
    palette = _palette_of(planes)
    if planes.rgb is None:
        assert grey is not None
        return MaskSurvey(planes.storage, lossy, levels_of(grey, lossy))
    about: dict[str, object] = {}
    if planes.alpha is not None:
        about["has_channel"] = True
        visible = planes.rgb[planes.alpha > 0]
        if len(visible) and (visible == visible[0]).all():
            about["ink"] = int(pack(visible[0]))
        if planes.has_alpha:
            about["alpha"] = levels_of(planes.alpha, lossy)
        else:
            about["constant_alpha"] = int(planes.alpha[0, 0])
    elif (planes.rgb == planes.rgb[0, 0]).all():
        about["ink"] = int(pack(planes.rgb[0, 0]))
    if grey is not None:
        return MaskSurvey(planes.storage, lossy, levels_of(grey, lossy), palette=palette, **about)  # type: ignore[arg-type]
    shown = planes.shown_rgb
    return MaskSurvey(
        planes.storage, lossy, None, levels_of(pack(shown), lossy=False), levels_of(shown.max(axis=-1), lossy),
        _coarse(shown) if lossy else (), palette=palette, **about,  # type: ignore[arg-type]
    )  # fmt: skip


def _palette_of(planes: Planes) -> PaletteSurvey | None:
    if planes.indices is None or planes.palette is None:
        return None
    indices = levels_of(planes.indices, lossy=False)
    used = indices.values.astype(np.int64)
    palette = planes.palette
    assert planes.rgb is not None
    packed = pack(palette)
    colours = [int(packed[i]) if i < len(packed) else 0 for i in used]
    first, second = (int(packed[i]) if i < len(packed) else -1 for i in (0, 1))
    inverse = second == 0 and max(used) <= 1
    has_black = 0 in colours or first == 0 or inverse
    is_grey = all(colour % 0x010101 == 0 for colour in colours)
    return PaletteSurvey(indices, tuple(colours), is_grey, 0 if has_black else first, not has_black)


def _coarse(rgb: ByteArray) -> tuple[tuple[int, int], ...]:
    packed, counts = np.unique(pack(rgb & np.uint8(0xC0)), return_counts=True)
    return tuple((int(colour), int(count)) for colour, count in zip(packed, counts, strict=True))
