"""What the masks of a data set mean: decided once, applied to each file, kept in the cache."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from segcore.data.masks.planes import Storage

Scale = Storage | Literal["alpha", "colour", "index"]
"""Planes whose values can be compared between files."""

ForegroundValue = int | str
"""A value as the files store it, or a colour as `#rrggbb`."""


@dataclass(frozen=True)
class MaskRule:
    """How every mask of a data set is read.

    Attributes:
        foreground: The values that are foreground, all others being background; None takes all values but 0.
        alpha: Whether the alpha channel, where a file has one, is the mask; otherwise colours are, and what is fully
            transparent is background.
        by_index: Whether the background of a palette is its entry 0; otherwise it is black.
        coloured_palette: Whether palettes hold colours, so that numbers in `foreground` are their entries.
        soft: Planes whose values blur, so that they are cut at half of their range.
        ranges: The value of full foreground of blurred and of lossy masks, by plane.
    """

    foreground: tuple[ForegroundValue, ...] | None = None
    alpha: bool = False
    by_index: bool = False
    coloured_palette: bool = False
    soft: tuple[Scale, ...] = ()
    ranges: dict[Scale, float] = field(default_factory=dict)

    def tree(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        """What `tree` gave, read back."""
        foreground = tree["foreground"]
        return cls(
            foreground=None if foreground is None else tuple(foreground),
            alpha=tree["alpha"],
            by_index=tree["by_index"],
            coloured_palette=tree["coloured_palette"],
            soft=tuple(tree["soft"]),
            ranges=dict(tree["ranges"]),
        )

    @property
    def reads_indices(self) -> bool:
        """Whether entries of palettes are read rather than their colours."""
        if self.foreground is None:
            return self.by_index
        return (self.by_index or self.coloured_palette) and all(isinstance(value, int) for value in self.foreground)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The foreground's values in a file of numbers; a colour is one where it is a grey."""
        values = (packed_colour(value) if isinstance(value, str) else value for value in self.foreground or ())
        greys = zip(values, self.foreground or (), strict=True)
        return tuple(v % 256 if isinstance(o, str) else v for v, o in greys if isinstance(o, int) or v % 0x010101 == 0)

    @property
    def packed(self) -> tuple[int, ...]:
        """The foreground's colours, `0xRRGGBB`, in a file of colours; a number from 0 to 255 is a grey."""
        return tuple(
            packed_colour(value) if isinstance(value, str) else value * 0x010101
            for value in self.foreground or ()
            if isinstance(value, str) or 0 <= value <= 255
        )

    def is_cut(self, scale: Scale) -> bool:
        """Whether `foreground` names an end of the range of a blurred plane, which is then cut at half as ever."""
        return bool(self.foreground) and set(self.numbers) <= {0, self.ranges.get(scale)}


def packed_colour(text: str) -> int:
    """`#rrggbb` as one number.

    Raises:
        ValueError: It is written in another way.
    """
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise ValueError(f"a colour is written as '#rrggbb', found {text!r}")
    return int(text[1:], 16)
