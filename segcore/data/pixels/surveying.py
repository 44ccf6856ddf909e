"""Surveys all masks of a data set, in threads, and decides how they are read."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from segcore.data.masks.decision import Decision, decide
from segcore.data.masks.rule import ForegroundValue, MaskRule
from segcore.data.masks.survey import MaskSurvey, Named, survey_of
from segcore.data.pairs.checks import Problems
from segcore.data.pixels.content import HasPair, decode_all, num_cpus, shown_path
from segcore.data.pixels.decode import UnreadableFileError, read_planes


def decide_rule(masks: Iterable[Path], foreground: Sequence[ForegroundValue] | None, root: Path) -> Decision:
    """Survey masks and decide how all of them are read.

    Files that cannot be decoded are left out: decoding the pairs reports them.

    Args:
        masks: The mask files of the data set.
        foreground: The values that the user says are foreground, or None.
        root: The folder that paths in messages are relative to.

    Returns:
        The rule, or None with what is wrong.
    """
    paths = list(dict.fromkeys(masks))
    with ThreadPoolExecutor(num_cpus(), thread_name_prefix="survey") as pool:
        surveys = list(pool.map(_survey, paths))
    found = [(shown_path(path, root), survey) for path, survey in zip(paths, surveys, strict=True) if survey]
    pictures = _pictures(found)
    decision = decide([named for named in found if named[0] not in pictures], foreground)
    problems = Problems()
    for name, reason in pictures.items():
        problems.error("masks that are not masks", f"{name}: {reason}")
    problems.extend(decision.problems)
    return Decision(None if problems.errors else decision.rule, problems)


def require_rule(masks: Iterable[Path], foreground: Sequence[ForegroundValue] | None, root: Path) -> MaskRule:
    """The rule of masks that leave no doubt.

    Args:
        masks: The mask files of the data set.
        foreground: The values that the user says are foreground, or None.
        root: The folder that paths in messages are relative to.

    Raises:
        DataError: The masks leave a doubt, or are pictures; all is listed.
    """
    decision = decide_rule(masks, foreground, root)
    decision.problems.raise_if_any(str(root))
    return decision.rule or MaskRule()


def inspect_pairs(
    pairs: Sequence[HasPair],
    root: Path,
    foreground: Sequence[ForegroundValue] | None,
    progress: Callable[[int, int], None] | None = None,
) -> Problems:
    """Decode every pair only to find what is wrong with it.

    Args:
        pairs: Images with their masks.
        root: The folder that paths in messages are relative to.
        foreground: The values that the user says are foreground, or None.
        progress: Called with the pairs done and the total.
    """
    decision = decide_rule((pair.mask for pair in pairs), foreground, root)
    problems = decision.problems
    for done, content in enumerate(decode_all(pairs, None, root, decision.rule), start=1):
        problems.extend(content.problems)
        if progress is not None:
            progress(done, len(pairs))
    return problems


def _survey(path: Path) -> MaskSurvey | None:
    try:
        return survey_of(read_planes(path))
    except UnreadableFileError:
        return None


def _pictures(found: Sequence[Named]) -> dict[str, str]:
    """Masks that are pictures. A map of probabilities that stays far below the others' is none: it is nearly empty."""
    masks = [survey for _, survey in found if not survey.picture]
    pictures = {}
    for name, survey in found:
        if reason := survey.picture:
            top = max((mask.main.high for mask in masks if mask.storage == survey.storage), default=0.0)
            if survey.main.high >= top / 2:
                pictures[name] = reason
    return pictures
