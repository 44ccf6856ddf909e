"""Doubts about masks of colours: which of them is the background."""

from collections.abc import Sequence

from segcore.data.masks.doubts import SHOWN, Doubts, shown_colour
from segcore.data.masks.rule import Scale
from segcore.data.masks.survey import ByScale, Named

_VOC_VOID = 0xE0E0C0


def check_colours(
    masks: Sequence[Named],
    by_scale: ByScale,
    soft: Sequence[Scale],
    doubts: Doubts,
) -> None:
    """Ask where no colour is sure to be the background; tell where there are several.

    Args:
        masks: All masks.
        by_scale: The planes that are read.
        soft: Planes whose values blur.
        doubts: Where to note them.
    """
    files = by_scale.get("colour", [])
    if not files or doubts.settled:
        return
    exact = [(n, s.colours) for n, _, s in files if s.colours is not None and not s.is_lossy]
    lossy = [(n, s) for n, _, s in files if s.is_lossy]
    greys = [(n, s.grey) for n, s in masks if s.grey is not None and s.storage == "8-bit" and not s.is_lossy]
    counts: dict[int, list[int]] = {}
    for _, levels in exact:
        for value, number in zip(levels.values.tolist(), levels.counts.tolist(), strict=True):
            counts.setdefault(int(value), []).append(number)
    for _, levels in greys:
        for value, number in zip(levels.values.tolist(), levels.counts.tolist(), strict=True):
            counts.setdefault(int(value) * 0x010101, []).append(number)
    for _, survey in lossy:
        for colour, number in survey.coarse:
            counts.setdefault((colour >> 6 & 0x030303) * 85, []).append(number)
    total = sum(map(sum, counts.values()))
    least = 0.02 if lossy or "colour" in soft else 0.0
    ranked = sorted(counts, key=lambda colour: -sum(counts[colour]))
    main = [colour for colour in ranked if sum(counts[colour]) >= least * total]
    black = sum(counts.get(0, [0])) / max(1, total)
    found = [
        f"{shown_colour(c)} ({sum(counts[c]) / total:.1%} of pixels, {len(counts[c])} files)" for c in main[:SHOWN]
    ]
    others = [colour for colour in main if colour]
    names = [name for name, _, _ in files]
    example = [shown_colour(min(others, key=lambda colour: sum(counts[colour])))] if others else ["#ffffff"]
    if black <= max(0.001, least) and (len(others) > 1 or "colour" in soft):
        doubts.ask("masks of colours without black, so that none of them is sure to be the background",
                   names, found, example)  # fmt: skip
    elif 0xFFFFFF in others and len(others) > 1 and sum(counts[0xFFFFFF]) > 0.5 * total and black < 0.2:
        doubts.ask("masks of colours that are mostly white, so that white may be the background", names, found,
                   [shown_colour(next(colour for colour in others if colour != 0xFFFFFF))])  # fmt: skip
    elif _VOC_VOID in others and len(others) > 1 and any(s.palette is None for _, _, s in files):
        doubts.ask("masks of colours with #e0e0c0, which commonly marks pixels that are not labelled", names, found,
                   [shown_colour(colour) for colour in others if colour != _VOC_VOID][:SHOWN])  # fmt: skip
    elif len(others) > 1 and "colour" not in soft:
        doubts.tell(f"masks hold colours ({len(others)} besides black in all); all are read as foreground", names)
