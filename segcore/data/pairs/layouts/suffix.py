"""Layout `suffix`: masks beside their images, recognised by the end of their names."""

from pathlib import Path

from segcore.component import Component
from segcore.data.pairs.checks import Problems
from segcore.data.pairs.layouts.options import MASK_SUFFIX
from segcore.data.pairs.listing import Listing, list_images, normalise
from segcore.data.pairs.loose_names import bare
from segcore.data.pairs.pairing import Pairing, splits_from_first_folder
from segcore.data.pairs.samples import Pair
from segcore.registries import Layout


def holds_masks(root: Path, *, mask_suffix: str) -> bool:
    """Whether an image or an array below `root` has a name that ends like a mask's."""
    suffix, listing = normalise(mask_suffix), list_images(root)
    return any(_is_mask(key, suffix) for key in (*listing.files, *listing.arrays))


def pair_suffix(root: Path, problems: Problems, *, mask_suffix: str) -> list[Pair]:
    """Pair `x` with `x<mask_suffix>` anywhere below `root`.

    Args:
        root: The data set's folder.
        problems: Collects what has no partner, or several.
        mask_suffix: The end of a mask's stem, such as `_mask`.
    """
    suffix, listing = normalise(mask_suffix), list_images(root)
    problems.extend(listing.problems)
    images = {key: paths for key, paths in listing.files.items() if not _is_mask(key, suffix)}
    masks, arrays = (
        {key.removesuffix(suffix): paths for key, paths in files.items() if _is_mask(key, suffix)}
        for files in (listing.files, listing.arrays)
    )
    expected = f"beside it, with {mask_suffix!r} at the end of its stem (data.mask_suffix)"
    pairing = Pairing(root, problems, suffix, expected)
    return splits_from_first_folder(pairing.of(Listing(root, images), Listing(root, masks, arrays), None))


def _is_mask(key: str, suffix: str) -> bool:
    """Whether a name ends like a mask's, in any case, also with a second suffix as in `x_mask.jpg.png`."""
    # Imported here: it imports numpy, which declaring a layout must not.
    from segcore.data.pixels.decode import IMAGE_SUFFIXES

    return key.endswith(suffix) or bare(key, IMAGE_SUFFIXES).casefold().endswith(suffix.casefold())


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
