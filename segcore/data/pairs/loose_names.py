"""Pairs names that differ only in what means nothing: upper case, and a second suffix as in `x.jpg.png`."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

_FEWEST_SHARE = 0.5
"""Of the images without a mask, how many must fit the same ending of a mask's name for it to be proposed."""


@dataclass(frozen=True)
class Matches:
    """What was matched.

    Attributes:
        pairs: Key of the mask by key of the image, where each fits the other alone.
        doubtful: Keys of images and masks that fit each other in several ways.
    """

    pairs: dict[str, str]
    doubtful: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]


def bare(key: str, suffixes: Collection[str]) -> str:
    """A key without the suffixes of images that are left at its end: `x.jpg` becomes `x`."""
    path = PurePosixPath(key)
    while path.suffix.lower() in suffixes and path.stem:
        path = path.with_suffix("")
    return str(path)


def match_loosely(images: Iterable[str], masks: Iterable[str], suffixes: Collection[str], mask_suffix: str) -> Matches:
    """Match the keys of images and masks that found no partner of their own name.

    Args:
        images: Keys of images.
        masks: Keys of masks.
        suffixes: Suffixes of image files, in lower case with their dot.
        mask_suffix: What a mask's key may end with in addition.
    """
    groups: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for key in images:
        groups[bare(key, suffixes).casefold()][0].append(key)
    for key in masks:
        name = bare(key, suffixes).casefold()
        groups[bare(name.removesuffix(mask_suffix.casefold()) if name not in groups else name, suffixes)][1].append(key)
    pairs: dict[str, str] = {}
    doubtful = []
    for own, partners in groups.values():
        if len(own) == len(partners) == 1:
            pairs[own[0]] = partners[0]
        elif own and partners:
            doubtful.append((tuple(sorted(own)), tuple(sorted(partners))))
    return Matches(pairs, tuple(doubtful))


def common_ending(images: Collection[str], masks: Mapping[str, object]) -> str | None:
    """What most masks' keys have after an image's key, such as `-label`; None where there is no such ending."""
    known = set(images)
    endings: Counter[str] = Counter()
    for mask in masks:
        length = next((n for n in range(len(mask) - 1, 0, -1) if mask[:n] in known), 0)
        if length:
            endings[mask[length:]] += 1
    ending, count = next(iter(endings.most_common(1)), ("", 0))
    return ending if count and count >= _FEWEST_SHARE * len(known) and "/" not in ending else None
