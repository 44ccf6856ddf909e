"""Decides once what the masks of a data set mean, from the surveys of all of them, or says why they leave a doubt.

A doubt is refused with what was found and the key that settles it: `data.foreground`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from segcore.data.masks.colours import check_colours
from segcore.data.masks.doubts import Doubts, shown_colour, shown_values
from segcore.data.masks.levels import NOISE_FLOOR, Levels, is_drawing, is_smeared
from segcore.data.masks.numbers import check_numbers
from segcore.data.masks.planes import Storage
from segcore.data.masks.pool import (
    pool_of,
    range_of,
    third_level,
)
from segcore.data.masks.rule import ForegroundValue, MaskRule, Scale
from segcore.data.masks.survey import ByScale, MaskSurvey, Named
from segcore.data.pairs.checks import Problems


@dataclass(frozen=True)
class Decision:
    """What was decided.

    Attributes:
        rule: How to read every mask; None when there is a doubt.
        problems: The doubts as errors, and oddities.
    """

    rule: MaskRule | None
    problems: Problems


def decide(masks: Sequence[Named], foreground: Sequence[ForegroundValue] | None) -> Decision:
    """Decide what the masks mean.

    Args:
        masks: Name and survey of each; pictures are left out by the caller.
        foreground: The values that the user says are foreground, or None.
    """
    doubts = Doubts(foreground is not None)
    alpha = _alpha_is_mask(masks, foreground, doubts)
    by_index, coloured = _palettes(masks, doubts)
    named = MaskRule(None if foreground is None else tuple(foreground), alpha, by_index, coloured)
    planes = [(name, *_plane(survey, named), survey) for name, survey in masks]
    by_scale: ByScale = {}
    for name, scale, levels, survey in planes:
        by_scale.setdefault(scale, []).append((name, levels, survey))
    soft: list[Scale] = []
    ranges: dict[Scale, float] = {}
    for scale, files in sorted(by_scale.items()):
        if scale == "index":
            continue
        is_soft, full = _range(scale, files, doubts)
        if is_soft:
            soft.append(scale)
        if full is not None:
            ranges[scale] = full
    check_numbers(masks, by_scale, soft, doubts)
    check_colours(masks, by_scale, soft, doubts)
    rule = MaskRule(named.foreground, alpha, by_index, coloured, tuple(soft), ranges)
    if rule.foreground is not None:
        _check_foreground(rule, by_scale, doubts)
    return Decision(None if doubts.problems.errors else rule, doubts.problems)


def _alpha_is_mask(masks: Sequence[Named], foreground: Sequence[ForegroundValue] | None, doubts: Doubts) -> bool:
    """Whether the alpha channel is the mask: where it varies and no file shows more than one colour."""
    with_alpha = [(name, survey) for name, survey in masks if survey.alpha is not None]
    if not with_alpha or any(isinstance(value, str) for value in foreground or ()):
        return False
    if any(survey.ink is None and survey.alpha is not None for _, survey in masks):
        return False  # several colours are visible: they are the mask, and alpha is the valid area
    inks = {survey.ink for _, survey in with_alpha}
    opaque = [(n, s) for n, s in masks if s.alpha is None and s.constant_alpha != 0]
    varied = [name for name, survey in opaque if survey.main.num_zero not in (0, survey.main.num_pixels)]
    black = [name for name, survey in opaque if survey.constant_alpha == 255 and survey.ink == 0 and inks == {0}]
    if varied or black or (0 in inks and len(inks) > 1):
        if 0 in inks:
            doubts.ask(
                "masks whose transparency varies under one colour, beside masks whose colours vary, so that either "
                "could be the mask",
                [name for name, _ in with_alpha],
                [*(f"visible colour {shown_colour(ink or 0)}" for ink in sorted(ink or 0 for ink in inks))],
                [255],
            )
            return foreground is not None
        return False
    return True


def _palettes(masks: Sequence[Named], doubts: Doubts) -> tuple[bool, bool]:
    """Whether the background of palettes is entry 0 rather than black, and whether they hold colours."""
    found = [(name, survey.palette) for name, survey in masks if survey.palette is not None]
    coloured = any(not palette.is_grey for _, palette in found)
    backgrounds: dict[tuple[int, bool], list[str]] = {}
    used: dict[int, str] = {}
    for name, palette in found:
        if palette.by_index and not coloured and len(palette.colours) > 2:
            backgrounds.setdefault((0, False), []).append(name)  # grey values in the guise of a palette
            continue
        backgrounds.setdefault((palette.background, palette.by_index), []).append(name)
        for colour in palette.colours:
            used.setdefault(colour, name)
    if len(backgrounds) > 1:
        names = [name for group in sorted(backgrounds.values(), key=len)[:-1] for name in group]
        doubts.ask(
            "masks whose palette has another background than the others' palettes",
            names,
            [
                f"background {shown_colour(colour)}{' (entry 0)' if by_index else ''} in {len(group)} files"
                for (colour, by_index), group in sorted(backgrounds.items())
            ],
            [shown_colour(next((c for c in used if (c, True) not in backgrounds and c), 0xFFFFFF))],
        )
    return any(by_index for _, by_index in backgrounds), coloured


def _plane(survey: MaskSurvey, rule: MaskRule) -> tuple[Scale, Levels]:
    """The plane that is read, and its levels; those of colours are of their brightest channel."""
    if rule.alpha and survey.has_channel:
        if survey.alpha is not None:
            return "alpha", survey.alpha
        full = survey.constant_alpha or 0
        size = survey.main.num_pixels
        return "alpha", Levels(
            survey.main.values[:0], survey.main.counts[:0], full, full, full, size, 0 if full else size
        )
    if survey.palette is not None and rule.reads_indices:
        return "index", survey.palette.indices
    return (survey.storage if survey.grey is not None else "colour"), survey.main


def _range(scale: Scale, files: list[tuple[str, Levels, MaskSurvey]], doubts: Doubts) -> tuple[bool, float | None]:
    """Whether the lossless masks of a plane blur, and the value of full foreground where they or lossy ones do."""
    storage: Storage = scale if scale in ("1-bit", "8-bit", "16-bit", "32-bit", "float") else "8-bit"
    exact = [(name, levels) for name, levels, survey in files if not survey.is_lossy]
    lossy = [(name, levels) for name, levels, survey in files if survey.is_lossy]
    if scale == "colour":
        shapes = [survey.colours for _, _, survey in files if not survey.is_lossy and survey.colours is not None]
    else:
        shapes = [levels for _, levels in exact]
    is_soft = bool(shapes) and not is_drawing(pool_of(shapes).total)
    if scale == "colour" and exact:
        is_soft = is_soft or is_smeared(pool_of([levels for _, levels in exact]).total)
    blurred = ([*exact] if is_soft else []) + lossy
    if not blurred:
        return False, None
    pool = pool_of([levels for _, levels in blurred])
    if lossy and storage == "8-bit" and pool.total.high < NOISE_FLOOR:
        reaching = max((levels.high for _, levels in exact), default=0.0)
        if reaching < NOISE_FLOOR and pool.total.high > 0:
            doubts.refuse(
                f"masks of a lossy format (JPEG) in which nothing reaches {NOISE_FLOOR} of 255: 0/1 or class numbers "
                "do not survive its compression; save them as PNG, from the source",
                [name for name, levels in lossy if levels.high > 0],
            )
        return is_soft, max(reaching, 255.0)
    full = range_of(pool, storage)
    if full is None:
        doubts.ask(
            f"masks with grey values of which none, in any mask, reaches half of the possible range "
            f"(the largest is {pool.total.high:g})",
            [name for name, levels in blurred if levels.high > 0],
            shown_values(pool),
            [int(pool.total.high)],
        )
        return is_soft, pool.total.high
    if (level := third_level(pool)) is not None:
        doubts.ask(
            f"masks with a third level halfway between background and foreground (about {level:.3g} of {full:g}; "
            "pixels that are not labelled?)",
            [name for name, levels in blurred if levels.middle is not None and levels.middle.sum() > 0],
            shown_values(pool),
            [int(full)],
        )
    _check_small(scale, exact, is_soft, full, doubts)
    faint = [name for name, levels in lossy if 0 < levels.high < NOISE_FLOOR and storage == "8-bit"]
    if faint:
        doubts.tell(
            f"masks of a lossy format hold nothing above {NOISE_FLOOR - 1}, beside others that do; "
            "read as empty (no foreground)",
            faint,
        )
    return is_soft, full


def _check_small(scale: Scale, exact: list[tuple[str, Levels]], is_soft: bool, full: float, doubts: Doubts) -> None:
    """Ask about masks of 0 and 1 among blurred masks that go up to 255."""
    if not is_soft or scale not in ("8-bit", "16-bit", "32-bit") or full <= NOISE_FLOOR:
        return
    ones = [(name, levels) for name, levels in exact if levels.high == 1]
    names = [name for name, levels in ones if levels.num_lit >= 0.005 * levels.num_pixels]
    noise = pool_of([levels for _, levels in exact]).found[1:4]
    if names and sum(found.pixels for found in noise[1:]) < 0.1 * sum(found.pixels for found in noise[:1]):
        doubts.ask(
            f"masks that hold 0 and 1, beside masks with grey values up to {full:g}",
            names,
            shown_values(pool_of([levels for _, levels in exact])),
            [1, int(full)],
        )
    elif ones:
        doubts.tell(f"masks hold 0 and 1, beside masks with grey values up to {full:g}; read as empty",
                    [name for name, _ in ones])  # fmt: skip


def _check_foreground(rule: MaskRule, by_scale: ByScale, doubts: Doubts) -> None:
    """Refuse an answer that no mask can be read with."""
    seen: set[int] = set()
    listed = True
    for scale, files in by_scale.items():
        for name, levels, survey in files:
            cut = scale in rule.soft or (survey.is_lossy and scale != "index")
            if cut and rule.is_cut(scale):
                seen.update(rule.numbers)
            elif survey.is_lossy and scale != "index":
                doubts.refuse(
                    f"masks of a lossy format (JPEG), whose values are not exact, so that data.foreground = "
                    f"{_shown(rule)} cannot be found in them; save them as PNG, from the source",
                    [name],
                )
                seen.update(rule.numbers)
            else:
                plane = survey.colours if scale == "colour" and survey.colours is not None else levels
                chosen = rule.packed if scale == "colour" else rule.numbers
                listed = listed and not plane.is_many
                seen.update(set(chosen) & {int(value) for value in plane.values.tolist() if value == int(value)})
    if listed and not seen:
        pool = pool_of([levels for scale, files in by_scale.items() if scale != "colour" for _, levels, _ in files])
        doubts.refuse(f"masks without any value of data.foreground = {_shown(rule)}; found "
                      f"{', '.join(shown_values(pool)) or 'colours'}",
                      [name for files in by_scale.values() for name, _, _ in files])  # fmt: skip


def _shown(rule: MaskRule) -> str:
    return str(list(rule.foreground or ()))
