"""Seeded damage to files, texts and masks, for tests that ask what becomes of it."""

import random
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

_JUNK = (
    "null", "~", "nan", ".inf", "-1", "0", "1e400", "'", '"', "[", "{", "{}", "[]", "[null]", "&a", "*a",
    "!!python/name:os.system", "true", "ü", "\t", "\x00", "- 1", "a: b", "2026-01-01", "0x10", "9" * 20, "''", "|",
    "? x", "<<: *x", "%", "@", "`",
)  # fmt: skip
_NAMES = (
    "photo 1.png",
    "a.b.c.png",
    ".png",
    "photo.PNG",
    "Thumbs.db",
    ".DS_Store",
    "photo01",
    "photo01.png.bak",
    "日本.png",
    "-x.png",
)


def damage_bytes(path: Path, rng: random.Random) -> str:
    """Damages a file in one of six ways, and says which.

    Args:
        path: The file; it may be gone afterwards.
        rng: Chooses the way and the place.
    """
    content = path.read_bytes()
    way = rng.choice(["cut", "empty", "flip", "zeros", "text", "gone"])
    if way == "gone":
        path.unlink()
    elif way == "cut":
        path.write_bytes(content[: rng.randrange(len(content) + 1)])
    elif way == "empty":
        path.write_bytes(b"")
    elif way == "text":
        path.write_text(
            rng.choice(["<html>404</html>", "null", "[]", "{}", "version https://git-lfs.github.com/spec/v1\n"])
        )
    else:
        changed = bytearray(content)
        for _ in range(rng.choice([1, 4, 64])):
            if not changed:
                break
            first = rng.randrange(len(changed))
            if way == "flip":
                changed[first] ^= 1 << rng.randrange(8)
            else:
                changed[first : first + 200] = bytes(min(200, len(changed) - first))
        path.write_bytes(bytes(changed))
    return f"{path.name}: {way}"


def damage_yaml(text: str, rng: random.Random) -> str:
    """A YAML text with one to three changes of the kinds that hands and editors make."""
    lines = text.splitlines()
    for _ in range(rng.randint(1, 3)):
        number = rng.randrange(len(lines)) if lines else 0
        line = lines[number] if lines else ""
        way = rng.choice(["value", "key", "drop", "double", "indent", "junk", "split", "swap"])
        if way == "value" and ":" in line:
            lines[number] = f"{line.split(':', 1)[0]}: {rng.choice(_JUNK)}"
        elif way == "key" and ":" in line:
            key, rest = line.split(":", 1)
            lines[number] = f"{key}{rng.choice(['x', ' ', '.', '_', 'é'])}:{rest}"
        elif way == "drop" and lines:
            del lines[number]
        elif way == "double" and lines:
            lines.insert(rng.randrange(len(lines)), line)
        elif way == "indent" and lines:
            lines[number] = rng.choice([" ", "   ", "\t"]) + line
        elif way == "junk":
            lines.insert(number, rng.choice(_JUNK))
        elif way == "split" and line:
            lines[number] = line[: rng.randrange(len(line))]
        elif way == "swap" and line:
            place = rng.randrange(len(line))
            lines[number] = line[:place] + rng.choice(_JUNK) + line[place + 1 :]
    return "\n".join(lines) + "\n"


def odd_mask(mask: npt.NDArray[np.bool_], rng: random.Random) -> Image.Image | None:
    """The mask with values that mean something else in a part of it; None where a part is too small to be seen.

    Args:
        mask: `(H, W) bool`, the truth.
        rng: Chooses the values, their type and their place.
    """
    height, width = mask.shape
    top, left = rng.randrange(height // 2), rng.randrange(width // 2)
    where = np.zeros_like(mask)
    where[top : top + rng.randint(4, height // 2), left : left + rng.randint(4, width // 2)] = True
    kind = rng.choice(["bytes", "integers", "floats", "alpha", "colour"])
    if kind == "bytes":
        values = np.where(mask, rng.choice([1, 255]), 0).astype(np.uint8)
        values[where] = rng.choice([255, 254, 128, 3]) if values.max() == 1 else rng.choice([1, 64, 128, 254])
        return Image.fromarray(values)
    if kind == "integers":
        integers = mask.astype(np.int32) * rng.choice([1, 255])
        integers[where] = rng.choice([-1, -9999, -32768])
        return Image.fromarray(integers)
    if kind == "floats":
        floats = mask.astype(np.float32)
        floats[where] = rng.choice([np.nan, -1.0, -9999.0, -3.4e38, np.inf])
        return Image.fromarray(floats)
    if kind == "alpha":
        rgba = np.repeat((mask.astype(np.uint8) * 255)[..., None], 4, axis=-1)
        rgba[..., 3] = np.where(where & ~mask, 0, 255)  # what is transparent is background
        return Image.fromarray(rgba)
    rgb = np.repeat((mask.astype(np.uint8) * 255)[..., None], 3, axis=-1)
    rgb[where] = rng.choice([(224, 224, 192), (255, 0, 0), (0, 0, 255)])
    return Image.fromarray(rgb)


def odd_name(rng: random.Random) -> str:
    """A file name such as folders have beside what belongs there."""
    return rng.choice(_NAMES)
