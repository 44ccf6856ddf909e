"""Whether an image's EXIF turn, which is applied when it is read, was meant for its mask too."""

from pathlib import Path

from segcore.data.pairs.checks import Problems
from segcore.data.pixels.opening import Header, UnreadableFileError, read_header

NOT_TURNED = (
    "masks are not turned as their image is: its EXIF orientation was applied, and the mask fits the stored pixels "
    "(turn these masks too, or take the tag out of the images: exiftool -Orientation= FILES)"
)
UNPROVEN = (
    "images have an EXIF orientation, which was applied, and neither size nor tag of their mask shows whether it was "
    "turned too (the gate compares them; look at the picture of `segsearch check --picture`)"
)


def unproven_turn(
    names: tuple[str, str], header: Header, mask: Path, mask_hw: tuple[int, int], problems: Problems
) -> int:
    """Note what is wrong or in doubt with the sizes of an image and its mask.

    Args:
        names: Image and mask as messages name them.
        header: The image's.
        mask: The mask's file.
        mask_hw: Height and width of the mask as it was read.
        problems: Collects what is found.

    Returns:
        The image's EXIF orientation where only the pixels can show whether the mask was turned too, else 1.
    """
    image_name, mask_name = names
    if mask_hw == header.hw and header.orientation == 1:
        return 1
    try:
        mask_orientation = read_header(mask).orientation
    except UnreadableFileError:  # it was decoded, so its header alone is odd
        mask_orientation = 1
    if mask_hw == header.hw:
        if mask_orientation != 1 or header.hw != header.stored_hw:
            return 1
        problems.warn(UNPROVEN, f"{image_name} (orientation {header.orientation})")
        return header.orientation
    if header.orientation != 1 and mask_orientation == 1 and mask_hw == header.stored_hw:
        problems.error(
            NOT_TURNED,
            f"{mask_name} is {shown_size(mask_hw)}; {image_name} has orientation {header.orientation}: "
            f"{shown_size(header.stored_hw)} stored, {shown_size(header.hw)} upright",
        )
        return 1
    tag = f", turned by its EXIF orientation {mask_orientation}" if mask_orientation != 1 else ""
    problems.error(
        "masks of another size than their image",
        f"{mask_name} is {shown_size(mask_hw)}{tag}, {image_name} is {shown_size(header.hw)}",
    )
    return 1


def shown_size(hw: tuple[int, ...]) -> str:
    """Width and height as people write them."""
    return f"{hw[1]}x{hw[0]}"
