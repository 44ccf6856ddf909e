"""The image files of a folder, by name. File names only; nothing is decoded here.

Names are compared after Unicode normalisation (NFC), so a mask written on another system still matches its image.
Hidden files, system leftovers and files of other types are skipped.
"""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from segcore.data.pairs.checks import Problems

_IGNORED_FOLDERS = {"__macosx", "@eadir"}
_NOT_UTF8 = "names that are not UTF-8 (rename them; convmv does it for whole folders)"


@dataclass(frozen=True)
class Listing:
    """Files of one folder that may be images, by relative posix path without suffix (NFC).

    Attributes:
        folder: The folder.
        files: Paths of the image files; a key with several paths is one stem with several suffixes.
        arrays: Paths of the NumPy arrays, which may be masks.
        other_suffixes: Number of the other files, by lower-case suffix.
        problems: What cannot be listed; paths are relative to the folder that `list_images` was told.
    """

    folder: Path
    files: dict[str, list[Path]]
    arrays: dict[str, list[Path]] = field(default_factory=dict)
    other_suffixes: Counter[str] = field(default_factory=Counter)
    problems: Problems = field(default_factory=Problems)


def normalise(text: str) -> str:
    """Unicode NFC, in which composed and decomposed spellings of a name are equal."""
    return unicodedata.normalize("NFC", text)


def list_images(folder: Path, root: Path | None = None) -> Listing:
    """Find all image files below `folder`, links followed, by path without suffix.

    Args:
        folder: Where to look.
        root: The folder that paths in messages are relative to; by default `folder`.

    Returns:
        Keys and their paths in order.
    """
    # Imported here: it imports numpy, which declaring a layout must not.
    from segcore.data.pixels.arrays import ARRAY_SUFFIX
    from segcore.data.pixels.decode import IMAGE_SUFFIXES

    files: dict[str, list[Path]] = defaultdict(list)
    arrays: dict[str, list[Path]] = defaultdict(list)
    others: Counter[str] = Counter()
    problems, base = Problems(), root or folder
    image_like: list[Path] = []  # folders with the name of an image
    folders_of_images: set[Path] = set()
    for path, is_folder in _walk(folder, base, problems):
        suffix = path.suffix.lower()
        key = normalise(path.relative_to(folder).with_suffix("").as_posix())
        if is_folder:
            image_like += [path] if suffix in IMAGE_SUFFIXES else []
        elif suffix in IMAGE_SUFFIXES:
            files[key].append(path)
            folders_of_images.add(path.parent)
        elif suffix == ARRAY_SUFFIX:
            arrays[key].append(path)
        else:
            others[suffix or "without suffix"] += 1
    above = {parent for path in folders_of_images for parent in (path, *path.parents)} if image_like else set()
    for path in image_like:
        if path not in above:
            problems.error("folders with the name of an image, and no image in them", shown(path, base))
    return Listing(folder, _ordered(files), _ordered(arrays), others, problems)


def shown(path: Path, root: Path) -> str:
    """A path as messages name it: relative to the data set's folder."""
    return path.relative_to(root).as_posix()


def is_utf8(name: str) -> bool:
    """Whether a name from the disk is text; else no file format and no terminal could take it."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _ordered(files: dict[str, list[Path]]) -> dict[str, list[Path]]:
    return {key: sorted(files[key]) for key in sorted(files)}


def _walk(folder: Path, root: Path, problems: Problems) -> Iterator[tuple[Path, bool]]:
    """Every file and folder, and whether it is a folder; what cannot be listed becomes a problem."""

    def note(error: OSError) -> None:  # os.walk would silently skip an unreadable folder
        problems.error("folders that cannot be read", f"{shown(Path(error.filename), root)}: {error.strerror}")

    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=note):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a parent folder would never end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [n for n in folders if not n.startswith(".") and n.lower() not in _IGNORED_FOLDERS]
        for found, is_folder in ((folders, True), (names, False)):
            for name in found:
                if name.startswith("."):
                    continue
                if is_utf8(name):
                    yield Path(parent) / name, is_folder
                else:
                    problems.error(_NOT_UTF8, shown(Path(parent) / name, root))
        folders[:] = filter(is_utf8, folders)


def subfolders(folder: Path) -> dict[str, Path]:
    """Sub-folders by lower-case name, hidden ones left out."""
    return {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."}
