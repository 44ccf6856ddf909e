"""Opens image files: what may be opened, how large it may be, how many pages it has, and which way up it is."""

import math
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from segcore.data.pixels.arrays import ARRAY_SUFFIX, array_image
from segcore.data.pixels.memory import MemoryShare, available_bytes
from segcore.data.pixels.png import late_exif, require_checksums
from segcore.data.pixels.unread import missing_file, require_plain_file, what_it_is
from segcore.errors import DataError

MAX_PIXELS = 2**30
"""The largest image that is read, in pixels."""
_LARGE_PIXELS = 2**24
"""An image above this many pixels is decoded only where there is memory for it."""
_BYTES_PER_PIXEL = 16
"""What decoding takes at its peak: the stored pixels, the upright ones, and the array."""

_MOST_PIXELS_PER_BYTE = 20_000
_LIMITED_FORMATS = frozenset({"PNG", "GIF", "BMP", "PPM", "JPEG"})
_LIMITED_TIFFS = frozenset({"raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"})
"""Formats that need more bytes than that for any image: PNG packs 8,256 pixels of one bit into a byte, others fewer."""

_SWAPPING = frozenset({5, 6, 7, 8})
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BANDS, _TIFF_EXTRA = 256, 257, 277, 338
_TIFF_SUBFILE = 254
_TIFF_THUMBNAIL, _TIFF_TRANSPARENCY = 1, 4  # bits of NewSubfileType: pages that belong to another page
_TIFF_ALPHA = {1, 2}

_large = MemoryShare()


class UnreadableFileError(DataError):
    """The file is missing, truncated, or of a format that cannot be decoded.

    Attributes:
        kind: What it is counted as among the problems of a data set.
    """

    def __init__(self, message: str, kind: str = "unreadable files") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Header:
    """What a file says about its picture, without its pixels.

    Attributes:
        stored_hw: Height and width of the stored pixels.
        orientation: The EXIF orientation, 1 to 8; 1 is upright, and where there is none.
        num_pages: Pages or frames; thumbnails, masks of transparency and a camera's previews are not counted.
        num_unread_bands: Bands beyond the three of RGB or the one of grey, without alpha; they are not read.
    """

    stored_hw: tuple[int, int]
    orientation: int = 1
    num_pages: int = 1
    num_unread_bands: int = 0

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of the upright picture, which is what is read."""
        return self.stored_hw[::-1] if self.orientation in _SWAPPING else self.stored_hw


def read_header(path: Path) -> Header:
    """Read a file's header, without decoding its pixels.

    Raises:
        UnreadableFileError: It cannot be read.
    """
    with readable(path):
        require_plain_file(path)
        with _opened(path, is_mask=True) as image:
            return Header(_stored_hw(image), _orientation_of(image, path), _num_pages(image), _num_unread_bands(image))


def image_size(path: Path) -> tuple[int, int]:
    """Read `(height, width)` of the upright picture from the file's header, in pixels.

    Raises:
        UnreadableFileError: The header cannot be read.
    """
    return read_header(path).hw


@contextmanager
def decoded(path: Path, *, is_mask: bool = False) -> Iterator[tuple[Image.Image, Header]]:
    """Open, fully decode and orient an image; only errors of that are translated, not those of the body.

    A mask may be a NumPy array, and must have a single page, and no band beyond grey or RGB and alpha: of several, none
    is the mask for certain.

    Args:
        path: The file.
        is_mask: Whether it is read as a mask.

    Raises:
        UnreadableFileError: The file cannot be opened or decoded.
    """
    with readable(path):
        require_plain_file(path)
        image = _opened(path, is_mask)
    with image:
        with readable(path):
            _require_size(path, image)
        with _large.taken(_needed_bytes(image)):
            format_name = image.format
            with readable(path):
                header = _decode(image, path, is_mask)
            image.format = format_name
            yield image, header


def _decode(image: Image.Image, path: Path, is_mask: bool) -> Header:
    """Decode and orient an opened image in place."""
    num_pages, num_unread_bands, stored_hw = _num_pages(image), _num_unread_bands(image), _stored_hw(image)
    if is_mask and (num_pages > 1 or num_unread_bands):
        parts = f"{num_pages} pages" if num_pages > 1 else "more bands than grey or RGB"
        raise UnreadableFileError(
            f"{path}: a {image.format} of {parts}, and which of them is the mask is not certain; save that one as a "
            "file of its own",
            "masks of several pages or bands",
        )
    if image.format == "PNG":
        require_checksums(path)
    with _any_size():
        # Loading a TIFF turns it; the EXIF of a PNG may stand after its pixels.
        orientation = 1 if image.format == "PNG" else _orientation_of(image, path)
        image.load()
        if image.format == "PNG":
            orientation = _orientation_of(image, path)
        ImageOps.exif_transpose(image, in_place=True)
    return Header(stored_hw, orientation, num_pages, num_unread_bands)


def _opened(path: Path, is_mask: bool) -> Image.Image:
    if is_mask and path.suffix.lower() == ARRAY_SUFFIX:
        return array_image(path)
    with _any_size():
        return Image.open(path)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Translate whatever opening or decoding a file raises.

    Raises:
        UnreadableFileError: Names the file and what is wrong with it.
    """
    try:
        yield
    except UnreadableFileError:
        raise
    except FileNotFoundError as error:
        raise UnreadableFileError(f"{path}: {missing_file(path)}", "files that are not there") from error
    except PermissionError as error:
        raise UnreadableFileError(f"{path}: no permission to read it", "files that may not be read") from error
    except UnidentifiedImageError as error:
        with readable(path):  # it may go, or may not be read
            what = what_it_is(path)
        raise UnreadableFileError(f"{path}: {what}", "files that are no images") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        message = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        raise UnreadableFileError(f"{path}: {message}") from error
    except MemoryError as error:
        raise UnreadableFileError(f"{path}: there is not enough memory to decode it") from error
    except Exception as error:  # a decoder may meet broken bytes with any exception
        raise UnreadableFileError(f"{path}: it cannot be decoded ({type(error).__name__}: {error})") from error


def _orientation_of(image: Image.Image, path: Path) -> int:
    """The EXIF orientation of an opened image, 1 to 8."""
    if image.format == "PNG":  # Pillow would decode one whose EXIF may stand after the pixels
        if "exif" not in image.info and (late := late_exif(path)) is not None:
            image.info["exif"] = b"Exif\x00\x00" + late
        exif = Image.Image.getexif(image)
    else:
        exif = image.getexif()
    found = exif.get(ExifTags.Base.Orientation, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _stored_hw(image: Image.Image) -> tuple[int, int]:
    tags = getattr(image, "tag_v2", {})  # recent Pillows report the upright size of a TIFF, earlier ones the stored one
    if _TIFF_WIDTH in tags and _TIFF_HEIGHT in tags:
        return int(tags[_TIFF_HEIGHT]), int(tags[_TIFF_WIDTH])
    return image.height, image.width


def _num_pages(image: Image.Image) -> int:
    """Number of pages or frames; 1 where the later ones cannot be counted."""
    if image.format == "MPO":  # a JPEG with previews, or the other eye
        return 1
    try:
        count = int(getattr(image, "n_frames", 1))
        if image.format == "TIFF" and count > 1:
            kinds = []
            for page in range(count):
                image.seek(page)
                kinds.append(int(getattr(image, "tag_v2", {}).get(_TIFF_SUBFILE, 0)))
            count = 1 + sum(not kind & (_TIFF_THUMBNAIL | _TIFF_TRANSPARENCY) for kind in kinds[1:])
    except Exception:  # the first page may be whole, and is decoded by itself
        count = 1
    if image.tell() != 0:
        image.seek(0)
    return count


def _num_unread_bands(image: Image.Image) -> int:
    tags = getattr(image, "tag_v2", {})
    num_bands, extra = int(tags.get(_TIFF_BANDS, 1)), tags.get(_TIFF_EXTRA, ())
    if image.mode not in {"L", "LA", "LX", "RGB", "RGBA", "RGBX"} or not extra:
        return 0
    num_alpha = sum(kind in _TIFF_ALPHA for kind in extra)
    return max(0, num_bands - num_alpha - (1 if image.mode[0] == "L" else 3))


def _require_size(path: Path, image: Image.Image) -> None:
    """Refuse what would take more memory than there is, as its header says."""
    num_pixels = math.prod(image.size)
    what = f"{path}: {image.width}x{image.height} pixels"
    if num_pixels > MAX_PIXELS:
        raise UnreadableFileError(
            f"{what} ({num_pixels / 1e6:.0f} million) are more than the {MAX_PIXELS / 1e6:.0f} million that are read; "
            "cut it into tiles, or scale it down",
            "images too large to decode",
        )
    needed = _needed_bytes(image)
    is_limited = image.format in _LIMITED_FORMATS or image.info.get("compression") in _LIMITED_TIFFS
    if needed and is_limited and num_pixels > _MOST_PIXELS_PER_BYTE * (num_bytes := path.stat().st_size):
        raise UnreadableFileError(f"{what} in a file of {num_bytes} bytes; it is damaged")
    if needed and needed > (free := available_bytes()):
        raise UnreadableFileError(
            f"{what} ({num_pixels / 1e6:.0f} million) take about {needed / 1e9:.1f} GB to decode, and "
            f"{free / 1e9:.1f} GB of memory are free; cut it into tiles, or scale it down",
            "images too large to decode",
        )


def _needed_bytes(image: Image.Image) -> int:
    """Memory that a large image takes; 0 for a usual one, of which each thread may decode one."""
    num_pixels = math.prod(image.size)
    return num_pixels * _BYTES_PER_PIXEL if num_pixels > _LARGE_PIXELS else 0


_lifted = threading.Lock()
_num_lifted = 0
_pillows_limit: int | None = None


@contextmanager
def _any_size() -> Iterator[None]:
    """Lift Pillow's limit on pixels, which is one of the process, while any thread is in here; ours holds instead."""
    global _num_lifted, _pillows_limit
    with _lifted:
        if _num_lifted == 0:
            _pillows_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _num_lifted += 1
    try:
        yield
    finally:
        with _lifted:
            _num_lifted -= 1
            if _num_lifted == 0:
                Image.MAX_IMAGE_PIXELS = _pillows_limit
