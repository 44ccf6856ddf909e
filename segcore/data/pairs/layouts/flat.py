"""Layout `flat`: a folder of images beside a folder of masks."""

from pathlib import Path

from segcore.component import Component
from segcore.data.pairs.checks import Problems
from segcore.data.pairs.layouts.options import MASK_SUFFIX
from segcore.data.pairs.pairing import find_image_and_mask_folders, pair_two_folders, splits_from_first_folder
from segcore.data.pairs.samples import Pair
from segcore.registries import Layout


def pair_flat(root: Path, problems: Problems, *, mask_suffix: str) -> list[Pair]:
    """Pair `images/[class/]x` with `masks/[class/]x`; if all first-level folders are split names, they give the splits.

    Args:
        root: The data set's folder.
        problems: Collects what has no partner, or several.
        mask_suffix: What the stem of a mask may have in addition to its image's stem.
    """
    folders = find_image_and_mask_folders(root)
    if folders is None:
        return []
    return splits_from_first_folder(pair_two_folders(*folders, mask_suffix, None, root, problems))


COMPONENT = Component(
    "flat",
    "`images/NAME.jpg` + `masks/NAME.png`",
    Layout(
        short="images/ + masks/",
        form="images/[CLASS/]x.jpg + masks/[CLASS/]x.png",
        detect=lambda root, **_: find_image_and_mask_folders(root) is not None,
        pair=pair_flat,
    ),
    options=(MASK_SUFFIX,),
    order=20,
)
