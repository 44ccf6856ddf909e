"""How little a threshold matters: the range around it in which the score stays as it is."""

from collections.abc import Sequence

WITHIN = 0.005
"""A difference of IoU that is of no account."""
_ROUNDING = 1e-9


def flat_range(
    thresholds: Sequence[float], scores: Sequence[float], chosen: float, within: float = WITHIN
) -> tuple[float, float]:
    """The lowest and the highest threshold up to which the score differs from that at the chosen one by little.

    Args:
        thresholds: Ascending, at least one.
        scores: The score at each.
        chosen: The threshold in use; the nearest of `thresholds` stands for it.
        within: The largest difference of the score.
    """
    at = min(range(len(thresholds)), key=lambda index: abs(thresholds[index] - chosen))
    low = high = at
    while low > 0 and abs(scores[low - 1] - scores[at]) <= within + _ROUNDING:
        low -= 1
    while high < len(thresholds) - 1 and abs(scores[high + 1] - scores[at]) <= within + _ROUNDING:
        high += 1
    return min(thresholds[low], chosen), max(thresholds[high], chosen)
