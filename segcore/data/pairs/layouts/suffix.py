"""Layout `suffix`: masks beside their images, recognised by the end of their names."""

from pathlib import Path

from segcore.component import Component
from segcore.data.pairs.checks import Problems
from segcore.data.pairs.layouts.options import MASK_SUFFIX
from segcore.data.pairs.listing import Listing, list_images, normalise
from segcore.data.pairs.pairing import pair_listings, splits_from_first_folder
from segcore.data.pairs.samples import Pair
from segcore.registries import Layout


def holds_masks(root: Path, *, mask_suffix: str) -> bool:
    """Whether an image below `root` has a name that ends like a mask's."""
    suffix = normalise(mask_suffix)
    return any(key.endswith(suffix) for key in list_images(root).files)


def pair_suffix(root: Path, problems: Problems, *, mask_suffix: str) -> list[Pair]:
    """Pair `x` with `x<mask_suffix>` anywhere below `root`.

    Args:
        root: The data set's folder.
        problems: Collects what has no partner, or several.
        mask_suffix: The end of a mask's stem, such as `_mask`.
    """
    suffix = normalise(mask_suffix)
    listing = list_images(root)
    images = {key: paths for key, paths in listing.files.items() if not key.endswith(suffix)}
    masks = {key.removesuffix(suffix): paths for key, paths in listing.files.items() if key.endswith(suffix)}
    expected = f"beside it, with {mask_suffix!r} at the end of its stem (data.mask_suffix)"
    return splits_from_first_folder(
        pair_listings(Listing(root, images), Listing(root, masks), expected, None, root, problems)
    )


COMPONENT = Component(
    "suffix",
    "`NAME.jpg` + `NAME_mask.png` in one folder",
    Layout(
        short="x.jpg + x_mask.png",
        form="x.jpg + x{mask_suffix}.png side by side (data.mask_suffix)",
        detect=holds_masks,
        pair=pair_suffix,
    ),
    options=(MASK_SUFFIX,),
    order=30,
)
