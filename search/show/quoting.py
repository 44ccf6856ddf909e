"""Which of a card's scores is the one to quote, and how it is said. Reads cards of earlier versions too."""

from collections.abc import Sequence
from dataclasses import dataclass

from segcore.sealed.card import Card, Optimism, Origin, SplitScores, Threshold

CROSS_FITTED = "val, cross-fitted"
FRESH_SEEDS = "val, fresh seeds"


@dataclass(frozen=True)
class Quote:
    """The score to quote.

    Attributes:
        split: `test` or `val`.
        name: The split, `val, fresh seeds` or `val, cross-fitted`.
        score: At least `iou`, `iou_interval`, `dice` and `num_images`.
        chose: What was chosen on these images and still flatters the score.
    """

    split: str
    name: str
    score: SplitScores
    chose: list[str]


def quote(card: Card | None) -> Quote | None:
    """Test's score; without a test split the mean over fresh seeds, or else val's own, cross-fitted if possible."""
    scores = card.scores if card else {}
    if "test" in scores:
        return Quote("test", "test", scores["test"], list(scores["test"].chose))
    if "val" not in scores:
        return None
    val = scores["val"]
    if val.fresh_seeds is not None:
        return Quote("val", FRESH_SEEDS, val.fresh_seeds, [])
    if val.cross_fitted is not None:
        return Quote("val", CROSS_FITTED, val.cross_fitted, [what for what in val.chose if what != "threshold"])
    return Quote("val", "val", val, list(val.chose))


def headline(card: Card) -> str:
    """The score to quote with its interval and on what it was earned; then what val's own score adds to it."""
    found = quote(card)
    if found is None:
        return "not scored"
    low, high = found.score.iou_interval
    flat = flat_text(card.threshold)
    threshold = number_text(card.threshold.value if card.threshold else None) + (f" ({flat})" if flat else "")
    how = _how(found, card.scores[found.split])
    lines = [
        f"IoU {found.score.iou:.4f} (95% interval {low:.4f}-{high:.4f}), Dice {number_text(found.score.dice)} "
        f"on {found.score.num_images} {found.split} images, {how}; threshold {threshold}"
    ]
    if card.optimism is not None:
        lines.append(optimism_text(card.optimism))
    if found.name == FRESH_SEEDS:
        lines.append(own_text(card.scores["val"]))
    return "\n".join(lines)


def _how(found: Quote, split: SplitScores) -> str:
    """How a score was earned, and what flatters it."""
    halves = "the threshold chosen on one half and scored on the other"
    if found.name == FRESH_SEEDS:
        trainings = f"the mean of {trainings_text(found.score)}"
        return f"{trainings}, {halves}" if "threshold" in split.chose else trainings
    if not found.chose:
        return "which chose nothing"
    choice = f"which also chose {', '.join(found.chose)}, so the score is optimistic about {_these(found.chose)}"
    return f"{halves}; {choice.replace('which', 'they', 1)}" if found.name == CROSS_FITTED else choice


def _these(chose: Sequence[str]) -> str:
    return "these" if len(chose) > 1 else "it"


def trainings_text(score: SplitScores) -> str:
    """Which trainings a score over fresh seeds is the mean of."""
    count = score.num_seeds or 0
    return (
        f"{count} trainings of these settings with seeds that chose nothing"
        if count != 1
        else "a training of these settings with a seed that chose nothing"
    )


def own_text(val: SplitScores) -> str:
    """The sealed model's own score on val, as what it is."""
    return f"the sealed model's own IoU on val is {val.iou:.4f}; val chose its {', '.join(val.chose)}"


def optimism_text(gap: Optimism) -> str:
    """How much what was claimed on val flatters, one line."""
    low, high = gap.interval
    against = {"test": "test", FRESH_SEEDS: "fresh seeds"}.get(gap.against, "the cross-fitted score")
    claim = "the search saw IoU" if gap.claimed_by == "search" else "val's own IoU is"
    return f"{claim} {gap.val:.4f}: {gap.gap:+.4f} against {against} (95% interval {low:+.4f} to {high:+.4f})"


def flat_text(threshold: Threshold | None) -> str:
    """How flat val's curve is around a threshold; nothing where that is not known."""
    if threshold is None or threshold.flat is None:
        return ""
    low, high = threshold.flat
    return f"IoU stays within {threshold.flat_within:g} from {low:.2f} to {high:.2f}"


def origin_text(origin: Origin) -> str:
    """Which training a sealed model is of."""
    return training_text(origin.trial, origin.seed, origin.epoch)


def training_text(trial: int | None, seed: int | None = None, epoch: int | None = None) -> str:
    """One training in words: `trial 9, trained again with seed 2, epoch 8`.

    Args:
        trial: Its number; None for a single training run.
        seed: Where the trial was trained again; None for the search's own training of it.
        epoch: The epoch that is meant, if one is.
    """
    parts = [
        "" if trial is None else f"trial {trial}",
        "" if seed is None else f"trained again with seed {seed}",
        "" if epoch is None else f"epoch {epoch}",
    ]
    return ", ".join(filter(None, parts))


def value_text(value: object) -> str:
    """A setting for people."""
    if value is None:
        return "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def number_text(value: float | None, digits: int = 4) -> str:
    """A score, or a dash for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def signed_text(value: float | None) -> str:
    """A difference, or a dash for none."""
    return "-" if value is None else f"{value:+.4f}"


def range_text(interval: Sequence[float] | None) -> str:
    """An interval of scores, or a dash for none."""
    return "-" if interval is None else f"{interval[0]:.4f} - {interval[1]:.4f}"


def signed_range_text(interval: Sequence[float] | None) -> str:
    """An interval of differences, or a dash for none."""
    return "-" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"
