"""Layout `split_folders`: a folder for each split, with images and masks in two folders of it."""

from pathlib import Path

from segcore.component import Component
from segcore.data.pairs.checks import Problems
from segcore.data.pairs.layouts.options import MASK_SUFFIX
from segcore.data.pairs.listing import list_images, subfolders
from segcore.data.pairs.pairing import SPLIT_NAMES, find_image_and_mask_folders, pair_two_folders
from segcore.data.pairs.samples import Pair, Split
from segcore.registries import Layout


def find_split_folders(root: Path) -> dict[Split, Path]:
    """Sub-folders named after splits, such as `train` and `valid`, that hold images and masks in two folders."""
    found: dict[Split, Path] = {}
    for name, folder in subfolders(root).items():
        if name in SPLIT_NAMES and find_image_and_mask_folders(folder) is not None:
            found.setdefault(SPLIT_NAMES[name], folder)
    return found


def pair_split_folders(root: Path, problems: Problems, *, mask_suffix: str) -> list[Pair]:
    """Pair `{train,val,test}/images/[class/]x` with `{train,val,test}/gt/[class/]x`.

    Args:
        root: The data set's folder.
        problems: Collects what has no partner, or several, and split folders without masks.
        mask_suffix: What the stem of a mask may have in addition to its image's stem.
    """
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
        pairs += pair_two_folders(*folders, mask_suffix, split, root, problems)
    return pairs


COMPONENT = Component(
    "split_folders",
    "`{train,val,test}/images/CLASS/NAME.jpg` + `{train,val,test}/gt/CLASS/NAME.png`; class folders optional",
    Layout(
        short="{train,val,test}/images + gt",
        form="train/images/[CLASS/]x.jpg + train/gt/[CLASS/]x.png, the same for val and test "
        "(gt may be named masks or labels)",
        detect=lambda root, **_: bool(find_split_folders(root)),
        pair=pair_split_folders,
    ),
    options=(MASK_SUFFIX,),
    order=10,
)
