"""Pairs images with masks by their names, and reads splits from the names of folders."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segcore.data.pairs.checks import Problems
from segcore.data.pairs.listing import Listing, list_images, normalise, shown, subfolders
from segcore.data.pairs.loose_names import common_ending, match_loosely
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
    image_files, mask_files = list_images(images, root), list_images(masks, root)
    suffix = normalise(mask_suffix)
    # `images/x.jpg` with `masks/x_mask.png` is common; a mask of exactly the same name wins.
    keyed: dict[str, list[Path]] = defaultdict(list)
    arrays: dict[str, list[Path]] = defaultdict(list)
    for found, named in ((mask_files.files, keyed), (mask_files.arrays, arrays)):
        for key, paths in found.items():
            short = key.removesuffix(suffix)
            named[short if key not in image_files.files and short in image_files.files else key] += paths
    for listing in (image_files, mask_files):
        problems.extend(listing.problems)
    named_masks = replace(mask_files, files=dict(keyed), arrays=dict(arrays))
    return Pairing(root, problems, suffix, f"of the same name under {masks}").of(image_files, named_masks, split)


@dataclass(frozen=True)
class Pairing:
    """Pairs two listings by key, and names what has no partner.

    Attributes:
        root: The folder that paths in messages are relative to.
        problems: Collects what has no partner, or several.
        mask_suffix: What the stem of a mask may have in addition to its image's stem.
        expected: Where a missing mask was expected, for its message.
    """

    root: Path
    problems: Problems
    mask_suffix: str
    expected: str

    def of(self, images: Listing, masks: Listing, split: Split | None) -> list[Pair]:
        """Pair images and masks of the same key, then those whose names differ only in case or a second suffix.

        A NumPy array is a mask where an image has no other one.

        Args:
            images: The images.
            masks: The masks.
            split: The split that all of them are in, or None.
        """
        arrays = {key: paths for key, paths in masks.arrays.items() if key in images.files and key not in masks.files}
        mask_files = {**masks.files, **arrays}
        for kind, files in (("images", images.files), ("masks", mask_files)):
            for paths in files.values():
                if len(paths) > 1:
                    self.problems.error(f"{kind} of the same name and different suffix", self._shown(paths, " and "))
        partners = {key: key for key in images.files if key in mask_files}
        lone_images = [key for key in images.files if key not in mask_files]
        lone_masks = {key: paths for key, paths in mask_files.items() if key not in images.files}
        if lone_images:
            others = {key: paths for key, paths in masks.arrays.items() if key not in arrays and key not in lone_masks}
            partners |= self._loose(images.files, lone_images, {**others, **lone_masks})
            mask_files = {**others, **mask_files}
        for key in partners.values():
            if key not in masks.files:
                self.problems.warn(
                    "masks are NumPy arrays (.npy); what their values mean is found out as for image files",
                    self._shown(mask_files[key][:1]),
                )
        self._tell_lone(images, masks, lone_images, lone_masks, set(partners), set(partners.values()))
        return [
            Pair(key, paths[0], mask_files[partners[key]][0], split, key.split("/")[0] if "/" in key else "")
            for key, paths in images.files.items()
            if key in partners and len(paths) == len(mask_files[partners[key]]) == 1
        ]

    def _loose(
        self, images: dict[str, list[Path]], lone_images: list[str], lone_masks: dict[str, list[Path]]
    ) -> dict[str, str]:
        """Key of the mask by key of the image, for those that no exact name matches."""
        from segcore.data.pixels.decode import IMAGE_SUFFIXES  # imports numpy, which declaring a layout must not

        matches = match_loosely(lone_images, lone_masks, IMAGE_SUFFIXES, self.mask_suffix)
        for image, mask in matches.pairs.items():
            if lone_masks[mask][0].stem == images[image][0].name:  # x.jpg.png is named after x.jpg and no other
                continue
            self.problems.warn(
                "masks are paired with an image whose name differs in case or in a second suffix",
                f"{self._shown(lone_masks[mask])} with {self._shown(images[image])}",
            )
        for own, partners in matches.doubtful:
            self.problems.error(
                "names of images and masks that fit each other in several ways (rename them, or name the pairs in a "
                "CSV: data.layout: csv)",
                f"{', '.join(self._shown(images[key]) for key in own)} with "
                f"{', '.join(self._shown(lone_masks[key]) for key in partners)}",
            )
        return matches.pairs

    def _tell_lone(
        self,
        images: Listing,
        masks: Listing,
        lone_images: list[str],
        lone_masks: dict[str, list[Path]],
        paired_images: set[str],
        paired_masks: set[str],
    ) -> None:
        """Name what has no partner.

        Args:
            images: All images.
            masks: All masks.
            lone_images: Keys of images without a mask of exactly their name.
            lone_masks: Masks without an image of exactly their name.
            paired_images: Keys of the images that have a mask by now.
            paired_masks: Keys of the masks that have an image by now.
        """
        without = [key for key in lone_images if key not in paired_images and len(images.files[key]) == 1]
        left = {key: paths for key, paths in lone_masks.items() if key not in paired_masks}
        unused = sum(key not in paired_masks or key in masks.files for key in masks.arrays)
        hints = self._hints(masks.other_suffixes + Counter({".npy": unused}), without, {**masks.arrays, **left})
        for key in without:
            kind = f"images without a mask (expected {self.expected}{hints})"
            self.problems.error(kind, self._shown(images.files[key]))
        for paths in left.values():
            self.problems.error("masks without an image", self._shown(paths[:1]))

    def _hints(self, unread: Counter[str], without: list[str], left: dict[str, list[Path]]) -> str:
        """What lies there instead of the masks that are missing.

        Args:
            unread: Number of files that are not read, by suffix.
            without: Keys of the images without a mask.
            left: What no image is paired with.
        """
        ending = common_ending(without, left)
        has_ending = ending is not None and ending != self.mask_suffix
        hint = f"; names there end in {ending!r}: --set data.mask_suffix={ending}" if has_ending else ""
        others = ", ".join(f"{count} {suffix}" for suffix, count in (+unread).most_common(3))
        return hint + (f"; files there that are not read: {others}" if others else "")

    def _shown(self, paths: list[Path], joined_by: str = ", ") -> str:
        return joined_by.join(shown(path, self.root) for path in paths)


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
