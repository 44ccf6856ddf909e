"""The image files of a folder, by name. File names only; nothing is decoded here.

Names are compared after Unicode normalisation (NFC), so a mask written on another system still matches its image.
Hidden files, system leftovers and files of other types are skipped.
"""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_IGNORED_FOLDERS = {"__macosx", "@eadir"}


@dataclass(frozen=True)
class Listing:
    """Files of one folder that may be images: their paths by relative posix path without suffix (NFC)."""

    folder: Path
    files: dict[str, list[Path]]


def normalise(text: str) -> str:
    """Unicode NFC, in which composed and decomposed spellings of a name are equal."""
    return unicodedata.normalize("NFC", text)


def list_images(folder: Path) -> Listing:
    """Find all image files below `folder`, links followed, by path without suffix.

    Args:
        folder: Where to look.

    Returns:
        Paths per key, each sorted; a key with several paths is one stem with several suffixes.
    """
    from segcore.data.pixels.decode import IMAGE_SUFFIXES  # imports numpy, which declaring a layout must not

    files: dict[str, list[Path]] = defaultdict(list)
    for path in _walk(folder):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            files[normalise(path.relative_to(folder).with_suffix("").as_posix())].append(path)
    return Listing(folder, {key: sorted(files[key]) for key in sorted(files)})


def _walk(folder: Path) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        raise error  # os.walk would silently skip an unreadable folder

    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=stop):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a parent folder would never end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [n for n in folders if not n.startswith(".") and n.lower() not in _IGNORED_FOLDERS]
        yield from (Path(parent) / name for name in names if not name.startswith("."))


def subfolders(folder: Path) -> dict[str, Path]:
    """Sub-folders by lower-case name, hidden ones left out."""
    return {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."}
