"""Masks whose values mean something else than they seem to."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from case import Case, Mask, Truth, blobs, in_turn, write_mask, write_pairs
from PIL import Image
from scipy import ndimage

Values = npt.NDArray[np.generic]
Write = Callable[[Path, Mask], None]


def _as(values: Callable[[Mask], Values], suffix: str = "png", **options: object) -> Write:
    def write(path: Path, mask: Mask) -> None:
        Image.fromarray(values(mask)).save(f"{path}.{suffix}", **options)

    return write


def _palette(colours: list[int], values: Callable[[Mask], Values]) -> Write:
    def write(path: Path, mask: Mask) -> None:
        image = Image.fromarray(values(mask).astype(np.uint8), mode="L").convert("P")
        image = Image.frombytes("P", image.size, values(mask).astype(np.uint8).tobytes())
        image.putpalette(colours + [0] * (768 - len(colours)))
        image.save(f"{path}.png")

    return write


def _through_jpeg(quality: int, suffix: str) -> Write:
    def write(path: Path, mask: Mask) -> None:
        file = io.BytesIO()
        Image.fromarray(mask.astype(np.uint8) * 255).save(file, "JPEG", quality=quality)
        Image.open(file).save(f"{path}.{suffix}")

    return write


def _numbers(mask: Mask) -> npt.NDArray[np.uint8]:
    return mask.astype(np.uint8)


def _bytes(mask: Mask) -> npt.NDArray[np.uint8]:
    return mask.astype(np.uint8) * 255


def _border(mask: Mask) -> Mask:
    return np.asarray(mask ^ ndimage.binary_erosion(mask))


def _marked(values: Values, value: float) -> Values:
    """The top eighth of the rows holds a value that means "not labelled"."""
    values[: len(values) // 8] = value
    return values


def _alpha_is_valid_area(coloured: bool) -> Write:
    def values(mask: Mask) -> Values:
        rgba = np.zeros((*mask.shape, 4), np.uint8)
        rgba[..., :3] = (_bytes(mask) if coloured else 0 * _bytes(mask))[..., None]
        rgba[..., 3] = 255
        rgba[:6, :, 3] = 0
        return rgba

    return _as(values)


def _empty_in_turn(folder: Path) -> Truth:
    """Every second mask is empty, and all have the same invalid border in their alpha."""
    pairs = [(n, i, m if k % 2 else np.zeros_like(m)) for k, (n, i, m) in enumerate(blobs())]
    truth = write_pairs(folder, mask=in_turn(_alpha_is_valid_area(False), _alpha_is_valid_area(True)), pairs=pairs)
    for mask in truth.values():
        mask[:6] = False
    return truth


def _faint_probabilities(kind: type[np.generic], top: float) -> Callable[[Path], Truth]:
    """Probability maps of which every third never exceeds 0.05: it has no foreground."""

    def make(folder: Path) -> Truth:
        pairs = [(n, i, m if k % 3 else np.zeros_like(m)) for k, (n, i, m) in enumerate(blobs())]
        count = iter(range(10**9))

        def write(path: Path, mask: Mask) -> None:
            peak = 0.95 if next(count) % 3 else 0.05
            rows, columns = np.mgrid[: mask.shape[0], : mask.shape[1]]
            bump = np.exp(-((rows - 20) ** 2 + (columns - 24) ** 2) / 60.0) * 0.05
            sure = ndimage.gaussian_filter(mask.astype(float), 0.7)
            values = (np.maximum(bump, sure * peak) * top).astype(kind)
            Image.fromarray(values).save(f"{path}.tif")

        return write_pairs(folder, mask=write, pairs=pairs)

    return make


def _pairs(mask: Write) -> Callable[[Path], Truth]:
    return lambda folder: write_pairs(folder, mask=mask)


def _labelled(mask: Write) -> Callable[[Path], Truth]:
    """As `_pairs`, for masks whose top eighth is not labelled: nothing there is foreground."""

    def make(folder: Path) -> Truth:
        return {name: _without_top(truth) for name, truth in write_pairs(folder, mask=mask).items()}

    return make


def _without_top(truth: Mask) -> Mask:
    kept = truth.copy()
    kept[: len(kept) // 8] = False
    return kept


_VOC = [0, 0, 0, 128, 0, 0] + [0] * 759 + [224, 224, 192]

MASKS = [
    Case("0 and 1, and 255 for not labelled", _labelled(_as(lambda m: _marked(_numbers(m), 255))), "asks", "255"),
    Case("0 and 255, and 128 for not labelled", _labelled(_as(lambda m: _marked(_bytes(m), 128))), "asks", "128"),
    Case(
        "a palette's entry 255 around the object",
        _pairs(_palette(_VOC, lambda m: np.where(_border(m), 255, _numbers(m)))), "asks", "255",
    ),
    Case(
        "that, settled by data.foreground",
        lambda folder: {
            name: mask & ~_border(mask)
            for name, mask in write_pairs(
                folder, mask=_palette(_VOC, lambda m: np.where(_border(m), 255, _numbers(m)))
            ).items()
        },
        "reads", settings=("data.foreground=1",),
    ),
    Case("-1 in 32-bit integers", _labelled(_as(lambda m: _marked(m.astype(np.int32), -1), "tif")), "asks", "-1"),
    Case("-9999 in floats", _labelled(_as(lambda m: _marked(m.astype(np.float32), -9999), "tif")), "asks", "-9999"),
    Case("NaN in floats", _labelled(_as(lambda m: _marked(m.astype(np.float32), np.nan), "tif")), "asks", "(?i)nan"),
    Case(
        "a trimap of 1, 2, 3", _pairs(_as(lambda m: np.where(_border(m), 3, 2 - _numbers(m)).astype(np.uint8))),
        "asks", "data.foreground",
    ),
    Case("1 and 2", _pairs(_as(lambda m: _numbers(m) + 1)), "asks", "data.foreground"),
    Case("WebP of quality 80", _pairs(_as(_bytes, "webp", quality=80)), "warns"),
    Case("WebP without loss", _pairs(_as(_bytes, "webp", lossless=True)), "reads"),
    Case("AVIF of quality 80", _pairs(_as(_bytes, "avif", quality=80)), "warns"),
    Case("JPEG of quality 50", _pairs(_as(_bytes, "jpg", quality=50)), "warns"),
    Case("PNG made from a JPEG of quality 80", _pairs(_through_jpeg(80, "png")), "warns"),
    Case("TIFF made from a JPEG of quality 50", _pairs(_through_jpeg(50, "tif")), "warns"),
    Case("JPEG of 0 and 1", _pairs(_as(_numbers, "jpg", quality=90)), "asks"),
    Case("alpha as the valid area, every second mask empty", _empty_in_turn, "reads"),
    Case("8-bit probabilities of different maxima", _faint_probabilities(np.uint8, 255.0), "warns"),
    Case("float probabilities of different maxima", _faint_probabilities(np.float32, 1.0), "warns"),
    Case("0/1 in some files, 0/255 in others", _pairs(in_turn(_as(_numbers), _as(_bytes))), "reads"),
    Case(
        "red on white",
        _pairs(_as(lambda m: np.where(m[..., None], [255, 0, 0], [255, 255, 255]).astype(np.uint8))), "asks",
    ),
    Case(
        "red on blue", _pairs(_as(lambda m: np.where(m[..., None], [255, 0, 0], [0, 0, 255]).astype(np.uint8))), "asks"
    ),
    Case("1-bit PNG", _pairs(_as(lambda m: m)), "reads"),
    Case("16-bit PNG of 0 and 65535", _pairs(_as(lambda m: m.astype(np.uint16) * 65535)), "reads"),
    Case("no mask has foreground", _pairs(lambda path, mask: write_mask(path, mask & False)), "warns", "empty"),
]  # fmt: skip
"""Of the first kind: what a value means."""
