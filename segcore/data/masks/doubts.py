"""Doubts about what masks mean, and how they are told."""

from collections.abc import Sequence

from segcore.data.masks.pool import Found, Pool
from segcore.data.masks.rule import ForegroundValue
from segcore.data.pairs.checks import Problems

SHOWN = 6
"""Values of a list in a message; then the last one."""


class Doubts:
    """Collects doubts, unless the user has settled them."""

    def __init__(self, settled: bool) -> None:
        self.settled = settled
        self.asked = False
        self.problems = Problems()

    def ask(self, kind: str, names: Sequence[str], found: Sequence[str], example: Sequence[ForegroundValue]) -> None:
        """Note a doubt about some masks.

        Args:
            kind: What is wrong, after a count of masks.
            names: The masks.
            found: The values that were found.
            example: An answer to paste.
        """
        if self.settled:
            return
        for name in names:
            self.problems.error(kind, name)
        self.problems.note(f"values found: {', '.join(found)}")
        if not self.asked:
            self.problems.note(how_to_settle(example))
        self.asked = True

    def refuse(self, kind: str, names: Sequence[str]) -> None:
        """Note what no answer settles."""
        for name in names:
            self.problems.error(kind, name)

    def tell(self, kind: str, names: Sequence[str]) -> None:
        """Note an oddity."""
        for name in names:
            self.problems.warn(kind, name)


def how_to_settle(example: Sequence[ForegroundValue]) -> str:
    """The key that settles a doubt, with an answer to paste."""
    texts = [f'"{value}"' if isinstance(value, str) else str(value) for value in example]
    value = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    return (
        "say which values are foreground, everything else becomes background; for example: "
        f"--set 'data.foreground={value}'"
    )


def shown_values(pool: Pool) -> list[str]:
    """`VALUE (share of pixels, files)` of the first values and the last."""
    total = max(1, pool.total.num_pixels)

    def show(found: Found) -> str:
        return f"{found.value:g} ({found.pixels / total:.1%} of pixels, {found.files} files)"

    if not pool.found:
        return [f"from {pool.total.low:g} to {pool.total.high:g}"]
    shown = [show(found) for found in pool.found[:SHOWN]]
    rest = pool.found[SHOWN:]
    if len(rest) > 1:
        shown.append(f"{len(rest) - 1} more")
    return [*shown, *(show(found) for found in rest[-1:])]


def shown_colour(packed: int) -> str:
    """A packed colour as `#rrggbb`."""
    return f"#{packed:06x}"
