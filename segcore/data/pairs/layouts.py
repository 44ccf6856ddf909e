"""The ways in which images and masks lie on disk, and how each is paired. File names only; nothing is decoded here.

Names are compared after Unicode normalisation (NFC), so a mask written on another system still finds its image.
Hidden files, system leftovers and files of other types are passed over.
"""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segcore.data.pairs.checks import Problems
from segcore.data.pairs.samples import Pair, Split
from segcore.data.pixels.decode import IMAGE_SUFFIXES

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
IMAGE_FOLDERS = ("images", "image", "imgs")
MASK_FOLDERS = ("gt", "masks", "labels", "mask", "label")
_IGNORED_FOLDERS = {"__macosx", "@eadir"}


@dataclass(frozen=True)
class Listing:
    """Files of one folder that may be images: posix path without suffix (NFC), and where each lies."""

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
    files: dict[str, list[Path]] = defaultdict(list)
    for path in _walk(folder):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            files[normalise(path.relative_to(folder).with_suffix("").as_posix())].append(path)
    return Listing(folder, {key: sorted(files[key]) for key in sorted(files)})


def _walk(folder: Path) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        raise error  # os.walk would pass over a folder that it may not read

    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=stop):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder above would be walked for ever
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [n for n in folders if not n.startswith(".") and n.lower() not in _IGNORED_FOLDERS]
        yield from (Path(parent) / name for name in names if not name.startswith("."))


def subfolders(folder: Path) -> dict[str, Path]:
    """Sub-folders by lower-case name, hidden ones left out."""
    return {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."}


def find_split_folders(root: Path) -> dict[Split, Path]:
    """Sub-folders named after splits, such as `train` and `valid`, that hold images and masks in two folders."""
    found: dict[Split, Path] = {}
    for name, folder in subfolders(root).items():
        if name in SPLIT_NAMES and find_image_and_mask_folders(folder) is not None:
            found.setdefault(SPLIT_NAMES[name], folder)
    return found


def find_image_and_mask_folders(folder: Path) -> tuple[Path, Path] | None:
    """The `images` and the `gt`, `masks` or `labels` folder in `folder`; None unless both are there."""
    below = subfolders(folder)
    images = next((below[name] for name in IMAGE_FOLDERS if name in below), None)
    masks = next((below[name] for name in MASK_FOLDERS if name in below), None)
    return None if images is None or masks is None else (images, masks)


def pair_split_folders(root: Path, mask_suffix: str, problems: Problems) -> list[Pair]:
    """Pair `{train,val,test}/images/[class/]x` with `{train,val,test}/gt/[class/]x`."""
    pairs: list[Pair] = []
    for name, folder in subfolders(root).items():
        split = SPLIT_NAMES.get(name)
        if split is None:
            continue
        folders = find_image_and_mask_folders(folder)
        if folders is None:
            # Test images are often given without masks; training without the set's own validation files is worse.
            if not list_images(folder).files:
                continue
            note = problems.warn if split == "test" else problems.error
            note("split folders that hold images but not `images` and `gt` (or `masks`, `labels`)", str(folder))
            continue
        twin = next((pair for pair in pairs if pair.split == split), None)
        if twin is not None:
            problems.error(f"split folders for {split!r} beside another one", str(folder))
            continue
        pairs += _pair_two_folders(*folders, mask_suffix, split, root, problems)
    return pairs


def pair_flat(root: Path, mask_suffix: str, problems: Problems) -> list[Pair]:
    """Pair `images/[class/]x` with `masks/[class/]x`; first folders that are all split names give the splits."""
    folders = find_image_and_mask_folders(root)
    if folders is None:
        return []
    return _splits_from_first_folder(_pair_two_folders(*folders, mask_suffix, None, root, problems))


def pair_suffix(root: Path, mask_suffix: str, problems: Problems) -> list[Pair]:
    """Pair `x` with `x<mask_suffix>` anywhere below `root`."""
    suffix = normalise(mask_suffix)
    listing = list_images(root)
    images = {key: paths for key, paths in listing.files.items() if not key.endswith(suffix)}
    masks = {key.removesuffix(suffix): paths for key, paths in listing.files.items() if key.endswith(suffix)}
    expected = f"beside it, with {mask_suffix!r} at the end of its stem (data.mask_suffix)"
    return _splits_from_first_folder(_pair(Listing(root, images), Listing(root, masks), expected, None, root, problems))


def _pair_two_folders(
    images: Path, masks: Path, mask_suffix: str, split: Split | None, root: Path, problems: Problems
) -> list[Pair]:
    image_files, mask_files = list_images(images), list_images(masks)
    suffix = normalise(mask_suffix)
    # `images/x.jpg` with `masks/x_mask.png` is common; a mask of the very same name wins.
    keyed: dict[str, list[Path]] = defaultdict(list)
    for key, paths in mask_files.files.items():
        short = key.removesuffix(suffix)
        keyed[short if key not in image_files.files and short in image_files.files else key] += paths
    expected = f"of the same name under {masks}"
    return _pair(image_files, Listing(masks, dict(keyed)), expected, split, root, problems)


def _pair(
    images: Listing, masks: Listing, expected: str, split: Split | None, root: Path, problems: Problems
) -> list[Pair]:
    def shown(path: Path) -> str:
        return path.relative_to(root).as_posix()

    pairs: list[Pair] = []
    for key, paths in images.files.items():
        mask_paths = masks.files.get(key, [])
        if len(paths) > 1:
            problems.error("images of the same name and different suffix", " and ".join(map(shown, paths)))
        elif not mask_paths:
            problems.error(f"images without a mask (expected {expected})", shown(paths[0]))
        elif len(mask_paths) == 1:
            class_name = key.split("/")[0] if "/" in key else ""
            pairs.append(Pair(key, paths[0], mask_paths[0], split, class_name))
    for key, paths in masks.files.items():
        if len(paths) > 1:
            problems.error("masks of the same name and different suffix", " and ".join(map(shown, paths)))
        if key not in images.files:
            problems.error("masks without an image", shown(paths[0]))
    return pairs


def _splits_from_first_folder(pairs: Sequence[Pair]) -> list[Pair]:
    """Read `train/x`, `val/x` as splits when every file lies in such a folder and one of them is `train`.

    Taken as classes, they would be mixed, and the score would be of images that were trained on.
    """
    firsts = {pair.name.split("/")[0].lower() if "/" in pair.name else "" for pair in pairs}
    if not firsts or not firsts <= SPLIT_NAMES.keys() or "train" not in {SPLIT_NAMES[first] for first in firsts}:
        return list(pairs)
    found = []
    for pair in pairs:
        first, rest = pair.name.split("/", 1)
        class_name = rest.split("/")[0] if "/" in rest else ""
        found.append(Pair(rest, pair.image, pair.mask, SPLIT_NAMES[first.lower()], class_name))
    return found


PAIRERS: dict[str, Callable[[Path, str, Problems], list[Pair]]] = {
    "split_folders": pair_split_folders,
    "flat": pair_flat,
    "suffix": pair_suffix,
}
