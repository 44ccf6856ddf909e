"""How the score to quote stands on the page: large, with its interval, and with what chose what beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from search.show.quoting import CROSS_FITTED, FRESH_SEEDS, optimism_text
from segcore.sealed.card import Optimism


@dataclass(frozen=True)
class Score:
    """A score of the sealed model on one split, and what was chosen on its images."""

    iou: float
    iou_interval: list[float]
    dice: float
    num_images: int | None
    chose: list[str]


def quoted_score(quoted: str, scores: Mapping[str, Score], optimism: Optimism | None) -> str:
    """The score to quote, the others beside it, what chose what, and how much val's own score flatters, as HTML.

    Args:
        quoted: The name of the score to quote.
        scores: All of them, by what they were earned on.
        optimism: How much val's own flatters, where that is known.
    """
    score = scores[quoted]
    low, high = score.iou_interval
    others = [
        f'<div class="plain"><b>{other.iou:.4f}</b><small>on {other.num_images} {escape(name)} images, '
        f"which chose {escape(', '.join(other.chose) or 'nothing')}</small></div>"
        for name, other in scores.items()
        if name != quoted
    ]
    split = "val" if quoted in (CROSS_FITTED, FRESH_SEEDS) else quoted
    on_val = scores["val"].chose if "val" in scores else []
    flattery = f"<p>{escape(optimism_text(optimism))}.</p>" if optimism else ""
    return (
        f'<div class="score"><div><b>{score.iou:.4f}</b><small>IoU, mean per image, on {score.num_images} '
        f'{split} images</small></div><div class="plain"><b>{low:.4f} - {high:.4f}</b>'
        f'<small>95% interval</small></div><div class="plain"><b>{score.dice:.4f}</b><small>Dice</small></div>'
        f"{''.join(others)}</div><p>{_how_honest(quoted, score.chose, on_val)}</p>{flattery}"
    )


def _how_honest(name: str, chose: list[str], on_val: list[str]) -> str:
    """What flatters a score and what does not.

    Args:
        name: What it was earned on.
        chose: What was chosen on its images.
        on_val: What was chosen on val for the sealed model.
    """
    if name == FRESH_SEEDS:
        halves = ", each at a threshold that was chosen on the other half of the val images" * ("threshold" in on_val)
        return (
            "There is no test split. This is the mean of trainings of the sealed settings with seeds that the search "
            f"never used{halves}. So the luck of epoch, winner and seed does not flatter it, and the interval counts "
            "images and seeds. The sealed model's own score on val stands beside it, with what val chose for it."
        )
    if not chose:
        return f"These {name} images chose nothing: not the weights, the epoch, the threshold or the winner."
    what, these = escape(", ".join(chose)), "these" if len(chose) > 1 else "it"
    if name == CROSS_FITTED:
        return (
            "There is no test split. The threshold was chosen on one half of the val images and scored on the other, "
            f"both ways, so it does not flatter this score. What does: the same images also chose: {what}. So the "
            f"score is optimistic about {these}."
        )
    return (
        f"The {name} images also chose: {what}. So the score is optimistic about {these}; "
        "a test split would give one to quote without this caveat."
    )
