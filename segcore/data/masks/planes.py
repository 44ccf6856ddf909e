"""The pixels of one mask file as it stores them, before anybody decides what they mean."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

ByteArray = npt.NDArray[np.uint8]
Values = npt.NDArray[Any]

Storage = Literal["1-bit", "8-bit", "16-bit", "32-bit", "float"]

_LOSSY_FORMATS = frozenset({"JPEG", "MPO", "JPEG2000", "AVIF", "HEIF"})
_MOST_CHROMA_NOISE = 24  # channels of a grey picture differ by at most this after lossy compression
_BRIGHT, _MANY_COLOURS = 64, 16  # a file without loss whose many colours are nearly grey was lossy once


@dataclass(frozen=True)
class Planes:
    """One decoded mask file.

    Attributes:
        storage: What its values are stored as; `8-bit` for colours too.
        values: `(H, W)` grey values, 0 and 1 for single bits; None when the file holds colours.
        rgb: `(H, W, 3) uint8`; None when the file holds one channel.
        alpha: `(H, W) uint8`; None without an alpha channel.
        indices: `(H, W) uint8` indices of the palette, or None.
        palette: `(N, 3) uint8` colours of the palette, or None.
        is_lossy: Whether the file's compression alters values, as JPEG's does.
    """

    storage: Storage
    values: Values | None
    rgb: ByteArray | None = None
    alpha: ByteArray | None = None
    indices: ByteArray | None = None
    palette: ByteArray | None = None
    is_lossy: bool = False

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        plane = self.values if self.values is not None else self.rgb
        assert plane is not None
        return (int(plane.shape[0]), int(plane.shape[1]))

    @cached_property
    def has_alpha(self) -> bool:
        """Whether the file is transparent in some places and less so in others."""
        return self.alpha is not None and bool(self.alpha.min() != self.alpha.max())

    @cached_property
    def shown_rgb(self) -> ByteArray:
        """The colours, black where nothing is visible; a constant alpha says nothing."""
        assert self.rgb is not None
        if not self.has_alpha:
            return self.rgb
        assert self.alpha is not None
        return np.where(self.alpha[..., None] > 0, self.rgb, np.uint8(0))

    @cached_property
    def grey(self) -> Values | None:
        """`(H, W)` grey values where what is shown is grey (nearly, where compression was lossy), else None."""
        if self.values is not None:
            return self.values
        rgb = self.shown_rgb
        red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
        if np.array_equal(red, green) and np.array_equal(red, blue):
            return red
        brightest: ByteArray = rgb.max(axis=-1)
        if int((brightest - rgb.min(axis=-1)).max()) > _MOST_CHROMA_NOISE:
            return None
        if self.is_lossy or (int(brightest.max()) >= _BRIGHT and len(np.unique(pack(rgb))) > _MANY_COLOURS):
            return brightest
        return None


def planes_of(image: Image.Image, is_lossy: bool) -> Planes:
    """Take a decoded mask, in any mode of PIL, apart.

    Args:
        image: The mask.
        is_lossy: Whether its compression alters values (`is_lossy_file`).
    """
    mode = image.mode
    if mode == "1":
        return Planes("1-bit", np.asarray(image, dtype=np.uint8))
    if mode == "L":
        return Planes("8-bit", np.asarray(image), is_lossy=is_lossy)
    if mode.startswith("I;16"):
        return Planes("16-bit", np.asarray(image), is_lossy=is_lossy)
    if mode == "I":
        return Planes("32-bit", np.asarray(image), is_lossy=is_lossy)
    if mode == "F":
        return Planes("float", np.asarray(image), is_lossy=is_lossy)
    rgba = np.asarray(image.convert("RGBA"), dtype=np.uint8)
    has_channel = mode in {"RGBA", "RGBa", "LA", "La", "PA"} or "transparency" in image.info
    rgb, alpha = rgba[..., :3], rgba[..., 3] if has_channel else None
    if mode in {"P", "PA"}:
        indices = np.asarray(image.getchannel("P") if mode == "PA" else image, dtype=np.uint8)
        palette = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
        return Planes("8-bit", None, rgb, alpha, indices, palette)
    return Planes("8-bit", None, rgb, alpha, is_lossy=is_lossy)


def is_lossy_file(format_name: str | None, head: bytes) -> bool:
    """Whether a file's compression alters values. A WebP says in its first chunk of pixels which of its two ways it is.

    Args:
        format_name: The format, in PIL's words.
        head: The file's first bytes, 4,096 or all of them.
    """
    if format_name == "WEBP":
        lossy, exact = head.find(b"VP8 ", 12), head.find(b"VP8L", 12)
        return exact < 0 or 0 <= lossy < exact
    return format_name in _LOSSY_FORMATS


def pack(rgb: ByteArray) -> npt.NDArray[np.int32]:
    """`(..., 3) uint8` colours as one number each, `0xRRGGBB`."""
    wide = rgb.astype(np.int32)
    packed: npt.NDArray[np.int32] = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return packed
