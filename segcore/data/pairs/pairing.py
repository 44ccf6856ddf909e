"""Pairs images with masks by their names, and reads splits from the names of folders."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from segcore.data.pairs.checks import Problems
from segcore.data.pairs.listing import Listing, list_images, normalise, subfolders
from segcore.data.pairs.samples import Pair, Split

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


def find_image_and_mask_folders(folder: Path) -> tuple[Path, Path] | None:
    """The `images` and the `gt`, `masks` or `labels` folder in `folder`; None unless both are there."""
    below = subfolders(folder)
    images = next((below[name] for name in IMAGE_FOLDERS if name in below), None)
    masks = next((below[name] for name in MASK_FOLDERS if name in below), None)
    return None if images is None or masks is None else (images, masks)


def pair_two_folders(
    images: Path, masks: Path, mask_suffix: str, split: Split | None, root: Path, problems: Problems
) -> list[Pair]:
    """Pair the files of two folders by name.

    Args:
        images: Folder of the images.
        masks: Folder of the masks.
        mask_suffix: What the stem of a mask may have in addition to its image's stem.
        split: The split that all of them are in, or None.
        root: The folder that paths in messages are relative to.
        problems: Collects what has no partner, or several.
    """
    image_files, mask_files = list_images(images), list_images(masks)
    suffix = normalise(mask_suffix)
    # `images/x.jpg` with `masks/x_mask.png` is common; a mask of exactly the same name wins.
    keyed: dict[str, list[Path]] = defaultdict(list)
    for key, paths in mask_files.files.items():
        short = key.removesuffix(suffix)
        keyed[short if key not in image_files.files and short in image_files.files else key] += paths
    expected = f"of the same name under {masks}"
    return pair_listings(image_files, Listing(masks, dict(keyed)), expected, split, root, problems)


def pair_listings(
    images: Listing, masks: Listing, expected: str, split: Split | None, root: Path, problems: Problems
) -> list[Pair]:
    """Pair two listings by key.

    Args:
        images: The images.
        masks: The masks.
        expected: Where a missing mask was expected, for its message.
        split: The split that all of them are in, or None.
        root: The folder that paths in messages are relative to.
        problems: Collects what has no partner, or several.
    """

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


def splits_from_first_folder(pairs: Sequence[Pair]) -> list[Pair]:
    """Read `train/x`, `val/x` as splits when every file is in such a folder and one of them is `train`.

    If they were read as classes, the splits would be mixed, and scores would include images that were trained on.
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
