"""Reads one image or one mask from disk into uint8 arrays. `foreground` decides which pixels of a mask count."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from segcore.data.pixels.foreground import (
    ByteArray,
    MaskReading,
    NotAMaskError,
    binarise,
)
from segcore.errors import DataError

__all__ = [
    "IMAGE_SUFFIXES",
    "ByteArray",
    "MaskReading",
    "NotAMaskError",
    "UnreadableFileError",
    "decode_mask",
    "image_size",
    "read_image",
    "read_mask",
    "resize_image",
    "resize_mask",
    "to_rgb",
]

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pbm", ".jp2"}
)

_LOSSY_FORMATS = {"JPEG", "MPO", "JPEG2000"}
_EXIF_ORIENTATION = 0x0112
_ORIENTATIONS_THAT_SWAP_SIDES = {5, 6, 7, 8}


class UnreadableFileError(DataError):
    """The file is missing, truncated, or of a format that cannot be decoded."""


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
    with _decoded(path) as image:
        rgb = to_rgb(image, path)
        if hw is not None and rgb.size != (hw[1], hw[0]):
            rgb = rgb.resize((hw[1], hw[0]), Image.Resampling.BILINEAR)
        return np.array(rgb, dtype=np.uint8)


def resize_image(image: ByteArray, hw: tuple[int, int]) -> ByteArray:
    """Resize a decoded `(H, W, 3) uint8` image to `hw`, to exactly the bytes that `read_image` gives at that size."""
    if image.shape[:2] == tuple(hw):
        return image
    return np.array(Image.fromarray(image).resize((hw[1], hw[0]), Image.Resampling.BILINEAR), dtype=np.uint8)


def read_mask(path: Path, hw: tuple[int, int] | None = None) -> ByteArray:
    """Decode a mask by the rules of `foreground` and resize it with the nearest pixel.

    Args:
        path: Mask file.
        hw: `(height, width)` in pixels to resize to, or None for the file's own size.

    Returns:
        `(H, W) uint8` of 0 (background) and 1 (foreground).

    Raises:
        UnreadableFileError: The file cannot be opened or decoded.
        NotAMaskError: The file holds a picture.
    """
    return resize_mask(decode_mask(path).mask, hw)


def decode_mask(path: Path) -> MaskReading:
    """Decode a mask at its own size by the rules of `foreground`.

    Args:
        path: Mask file.

    Returns:
        The mask, and whether grey values had to be thresholded.

    Raises:
        UnreadableFileError: The file cannot be opened or decoded.
        NotAMaskError: The file holds a picture.
    """
    with _decoded(path) as image:
        lossy = getattr(image, "format", None) in _LOSSY_FORMATS
        return binarise(image, lossy, path)


def resize_mask(mask: ByteArray, hw: tuple[int, int] | None) -> ByteArray:
    """Resize a `(H, W) uint8` mask of 0 and 1 to `hw` with the nearest pixel; None keeps its size."""
    if hw is None or mask.shape == tuple(hw):
        return mask
    return np.array(Image.fromarray(mask).resize((hw[1], hw[0]), Image.Resampling.NEAREST), dtype=np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """Read `(height, width)` in pixels from the file's header, after its EXIF orientation.

    Raises:
        UnreadableFileError: The header cannot be read.
    """
    with _readable(path), Image.open(path) as image:
        width, height = image.size
        # PNG stores its EXIF after the pixels, so reading it would decode the whole file.
        has_header_exif = image.format in {"JPEG", "MPO", "TIFF", "WEBP"} or "exif" in image.info
        swaps = has_header_exif and image.getexif().get(_EXIF_ORIENTATION, 1) in _ORIENTATIONS_THAT_SWAP_SIDES
        return (width, height) if swaps else (height, width)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise UnreadableFileError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        empty = path.stat().st_size == 0
        raise UnreadableFileError(f"{path}: {'the file is empty' if empty else 'not an image file'}") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise UnreadableFileError(f"{path}: {error}") from error
    except Image.DecompressionBombError as error:
        raise UnreadableFileError(f"{path}: too many pixels ({error})") from error


@contextmanager
def _decoded(path: Path) -> Iterator[Image.Image]:
    """Open, fully decode and orient an image; only decoding errors are translated, not those of the body."""
    with _readable(path):
        image = Image.open(path)
        with_format = image.format
        try:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
        except BaseException:
            image.close()
            raise
    image.format = with_format
    with image:
        yield image


def to_rgb(image: Image.Image, path: Path | str) -> Image.Image:
    """The image in 8-bit RGB: 16-bit values keep their high byte; `path` is its name in messages."""
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray(_high_byte(np.asarray(image), path)).convert("RGB")
    if image.mode == "F":
        raise UnreadableFileError(f"{path}: 32-bit float pixels have no fixed range; save it with 8 or 16 bits")
    if image.mode in {"P", "PA"} and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _high_byte(values: npt.NDArray[np.generic], path: Path | str) -> ByteArray:
    wide = values.astype(np.int64)
    if wide.size and (wide.min() < 0 or wide.max() > 65535):
        raise UnreadableFileError(
            f"{path}: pixel values from {wide.min()} to {wide.max()} exceed 16 bits; save it with 8 or 16 bits"
        )
    return (wide >> 8).astype(np.uint8)
