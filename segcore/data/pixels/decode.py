"""Reads one image or one mask from disk into uint8 arrays. `foreground` decides which pixels of a mask count."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from segcore.data.masks.foreground import MaskReading, binarise
from segcore.data.masks.planes import ByteArray, Planes, is_lossy_file, planes_of
from segcore.data.masks.rule import MaskRule
from segcore.data.pixels.opening import Header, UnreadableFileError, decoded, image_size, readable

__all__ = [
    "IMAGE_SUFFIXES",
    "ByteArray",
    "MaskReading",
    "UnreadableFileError",
    "decode_image",
    "decode_mask",
    "image_size",
    "read_image",
    "read_mask",
    "read_planes",
    "resize_image",
    "resize_mask",
    "to_rgb",
]

_SUFFIXES = ".jpg .jpeg .jpe .jfif .png .bmp .tif .tiff .webp .avif .gif .ppm .pgm .pbm .pnm .jp2"
IMAGE_SUFFIXES = frozenset(_SUFFIXES.split())


def read_image(path: Path, hw: tuple[int, int] | None = None) -> ByteArray:
    """Decode an image to 8-bit RGB and resize it.

    The EXIF orientation is applied. Grey images become three equal channels, 16-bit values keep their high
    byte, colours under transparency are kept as stored. The resize is PIL's antialiased bilinear filter.

    Args:
        path: Image file.
        hw: `(height, width)` in pixels to resize to, or None for the file's own size.

    Returns:
        `(H, W, 3) uint8`, contiguous and writable.

    Raises:
        UnreadableFileError: The file cannot be opened or decoded, or holds 32-bit floats.
    """
    return decode_image(path, hw)[0]


def decode_image(path: Path, hw: tuple[int, int] | None = None) -> tuple[ByteArray, Header]:
    """Like `read_image`, and what the file says about its picture.

    Args:
        path: Image file.
        hw: `(height, width)` in pixels to resize to, or None for the file's own size.

    Raises:
        UnreadableFileError: The file cannot be opened or decoded, or holds pixels of no fixed range.
    """
    with decoded(path) as (image, header):
        rgb = to_rgb(image, path)
        if hw is not None and rgb.size != (hw[1], hw[0]):
            rgb = rgb.resize((hw[1], hw[0]), Image.Resampling.BILINEAR)
        return np.array(rgb, dtype=np.uint8), header


def resize_image(image: ByteArray, hw: tuple[int, int]) -> ByteArray:
    """Resize a decoded `(H, W, 3) uint8` image to `hw`, to exactly the bytes that `read_image` gives at that size."""
    if image.shape[:2] == tuple(hw):
        return image
    return np.array(Image.fromarray(image).resize((hw[1], hw[0]), Image.Resampling.BILINEAR), dtype=np.uint8)


def read_mask(path: Path, rule: MaskRule, hw: tuple[int, int] | None = None) -> ByteArray:
    """Decode a mask by the rule of its data set and resize it with the nearest pixel.

    Args:
        path: Mask file.
        rule: What the masks of the data set mean.
        hw: `(height, width)` in pixels to resize to, or None for the file's own size.

    Returns:
        `(H, W) uint8` of 0 (background) and 1 (foreground).

    Raises:
        UnreadableFileError: The file cannot be opened or decoded.
    """
    return resize_mask(decode_mask(path, rule).mask, hw)


def decode_mask(path: Path, rule: MaskRule) -> MaskReading:
    """Decode a mask at its own size by the rule of its data set.

    Returns:
        The mask, and whether grey values had to be thresholded.

    Raises:
        UnreadableFileError: The file cannot be opened or decoded.
    """
    return binarise(read_planes(path), rule)


def read_planes(path: Path) -> Planes:
    """Decode a mask to the values that the file stores, its EXIF orientation applied.

    Raises:
        UnreadableFileError: The file cannot be opened or decoded.
    """
    with decoded(path, is_mask=True) as (image, _), readable(path):
        with path.open("rb") as file:
            head = file.read(4096)
        return planes_of(image, is_lossy_file(getattr(image, "format", None), head))


def resize_mask(mask: ByteArray, hw: tuple[int, int] | None) -> ByteArray:
    """Resize a `(H, W) uint8` mask of 0 and 1 to `hw` with the nearest pixel; None keeps its size."""
    if hw is None or mask.shape == tuple(hw):
        return mask
    return np.array(Image.fromarray(mask).resize((hw[1], hw[0]), Image.Resampling.NEAREST), dtype=np.uint8)


def to_rgb(image: Image.Image, path: Path | str) -> Image.Image:
    """The image in 8-bit RGB: 16-bit values keep their high byte; `path` is its name in messages."""
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray(_high_byte(np.asarray(image), path)).convert("RGB")
    if image.mode == "F":
        raise UnreadableFileError(f"{path}: 32-bit float pixels have no fixed range; save it with 8 or 16 bits")
    if image.mode in {"P", "PA"} and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    try:
        return image if image.mode == "RGB" else image.convert("RGB")
    except ValueError as error:  # such as LAB, whose conversion needs a colour profile
        raise UnreadableFileError(
            f"{path}: pixels of the kind {image.mode}, which are not read; save it as RGB or grey"
        ) from error


def _high_byte(values: npt.NDArray[np.generic], path: Path | str) -> ByteArray:
    wide = values.astype(np.int64)
    if wide.size and (wide.min() < 0 or wide.max() > 65535):
        raise UnreadableFileError(
            f"{path}: pixel values from {wide.min()} to {wide.max()} exceed 16 bits; save it with 8 or 16 bits"
        )
    return (wide >> 8).astype(np.uint8)
