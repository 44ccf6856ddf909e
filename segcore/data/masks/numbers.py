"""Doubts about masks of numbers: values that may mark pixels that are not labelled, and masks without a background."""

from collections.abc import Sequence

from segcore.data.masks.doubts import SHOWN, Doubts, shown_values
from segcore.data.masks.levels import Levels
from segcore.data.masks.pool import ALL_ONES, Pool, is_apart, pool_of
from segcore.data.masks.rule import Scale
from segcore.data.masks.survey import ByScale, Named


def check_numbers(
    masks: Sequence[Named],
    by_scale: ByScale,
    soft: Sequence[Scale],
    doubts: Doubts,
) -> None:
    """Ask about values that may not be foreground, in grey values and in palette entries.

    Args:
        masks: All masks.
        by_scale: The planes that are read.
        soft: Planes whose values blur.
        doubts: Where to note them.
    """
    grey = [
        (scale, name, levels)
        for scale, files in by_scale.items()
        for name, levels, survey in files
        if scale in ("8-bit", "16-bit", "32-bit", "float") and not survey.is_lossy
    ]
    _check_no_data([(name, levels) for _, name, levels in grey], doubts)
    in_palette = [(n, s.palette.indices) for n, s in masks if s.palette is not None and not s.palette.is_grey]
    if in_palette:
        entries = [(n, s.palette.indices) for n, s in masks if s.palette is not None]
        _check_apart(entries, doubts, "palette entries")
    crisp = [(name, levels) for scale, name, levels in grey if scale not in soft]
    for scale in soft:
        _check_apart([(name, levels) for at, name, levels in grey if at == scale], doubts)
    _check_apart(crisp, doubts)
    _check_classes(crisp, doubts)


def _check_no_data(files: list[tuple[str, Levels]], doubts: Doubts) -> None:
    negative = [(name, levels) for name, levels in files if levels.low < 0]
    unset = [(name, levels) for name, levels in files if levels.num_not_finite]
    pool = pool_of([levels for _, levels in files])
    positive = [int(found.value) for found in pool.positive if found.value == int(found.value)][:SHOWN] or [1]
    if negative:
        doubts.ask("masks with negative values, which are never foreground but may mark pixels that are not labelled",
                   [name for name, _ in negative], shown_values(pool), positive)  # fmt: skip
    if unset:
        share = pool.total.num_not_finite / max(1, pool.total.num_pixels)
        found = [*shown_values(pool), f"NaN or infinite ({share:.1%} of pixels, {len(unset)} files)"]
        doubts.ask("masks with NaN or infinite values, which are never foreground but may mark pixels that are not "
                   "labelled", [name for name, _ in unset], found, positive)  # fmt: skip


def _check_apart(files: list[tuple[str, Levels]], doubts: Doubts, words: str = "values") -> None:
    """Ask about a value far above all others, and about a third level."""
    pool = pool_of([levels for _, levels in files])
    values = [found.value for found in pool.positive]
    total = pool.total
    whole = all(value == int(value) for value in values)
    is_flat = total.num_between > 0 and total.num_flat >= 0.25 * total.num_between
    if not values or not whole:
        values = [total.second, total.high] if 0 < total.second < total.high else []
    apart = is_apart(values, is_flat)
    if apart is not None:
        below = [value for value in values if value < apart]
        both = [
            name for name, levels in files
            if levels.high >= apart and (levels.is_many or pool.holds(levels, below))
        ]  # fmt: skip
        if both:
            top = " and ".join(f"{value:g}" for value in values if value >= apart)
            doubts.ask(
                f"masks with {words} up to {below[-1]:g} beside {top}, which commonly marks pixels that are not "
                "labelled",
                both,
                shown_values(pool),
                _example(pool, apart, below if whole else [1]),
            )
            return
    if len(values) == 2 and (32 < values[1] <= 255 or values[1] in ALL_ONES) and whole and pool.found:
        both = [name for name, levels in files if pool.holds(levels, values[:1]) and pool.holds(levels, values[1:])]
        if both:
            doubts.ask(
                f"masks with a third value, {values[0]:g}, beside 0 and {values[1]:g}, which may mark pixels that are "
                "not labelled",
                both,
                shown_values(pool),
                [int(values[1])],
            )


def _example(pool: Pool, apart: float, below: Sequence[float]) -> list[int]:
    """Likely foreground: the values below, unless they are stray pixels beside those far above."""
    pixels = {found.value: found.pixels for found in pool.found}
    if pixels and sum(pixels.get(value, 0) for value in below) < 0.05 * pixels.get(apart, 0):
        return [int(apart)]
    return [max(1, int(value)) for value in below][:SHOWN]


def _check_classes(files: list[tuple[str, Levels]], doubts: Doubts) -> None:
    """Ask where no mask holds a 0; tell where there are several values besides 0."""
    if doubts.settled:
        return
    pool = pool_of([levels for _, levels in files])
    positive = pool.positive
    many = [(name, levels) for name, levels in files if len(levels.values) > 1 or levels.is_many]
    without = [name for name, levels in (many or files) if levels.num_zero == 0]
    num_zero = pool.total.num_zero
    if len(positive) > 1 and len(without) > 0.9 * len(many or files) and num_zero <= 0.001 * pool.total.num_pixels:
        likely = positive[:-1] if len(positive) > 2 else positive
        rarest = min(likely, key=lambda found: found.pixels)
        doubts.ask(f"masks with {len(positive)} values and no 0, so that none of them is sure to be the background",
                   without, shown_values(pool), [int(rarest.value)])  # fmt: skip
        return
    several = [name for name, levels in files if len(levels.values) - (levels.num_zero > 0) > 1 or levels.is_many]
    values = [found.value for found in positive]
    if not several and set(values) <= {1, 255, 65535}:
        if len(values) > 1:
            names = [name for name, levels in files if levels.high == values[0]]
            others = " or ".join(f"{value:g}" for value in values[1:])
            doubts.tell(
                f"masks hold 0 and {values[0]:g} where others hold 0 and {others}; all are read as foreground", names
            )
    elif len(values) > 1 or several:
        span = f"{values[0]:g} to {values[-1]:g}" if values else f"up to {pool.total.high:g}"
        number = len(values) or "many"
        doubts.tell(f"masks hold classes or instances ({number} values besides 0 in all, {span}); all are read as "
                    "foreground", several or [name for name, levels in files if levels.high > 0])  # fmt: skip
