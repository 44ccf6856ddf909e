"""Which of a card's scores is the one to quote, and how it is said. Reads cards of earlier versions too."""

from collections.abc import Sequence
from dataclasses import dataclass

from segcore.sealed.card import Card, Optimism, Origin, SplitScores

CROSS_FITTED = "val, cross-fitted"


@dataclass(frozen=True)
class Quote:
    """The score to quote.

    Attributes:
        split: `test` or `val`.
        name: The split, or `val, cross-fitted`.
        score: At least `iou`, `iou_interval`, `dice` and `num_images`.
        chose: What was chosen on these images and still flatters the score.
    """

    split: str
    name: str
    score: SplitScores
    chose: list[str]


def quote(card: Card | None) -> Quote | None:
    """Test's score where there is a test split; else val's, with the threshold cross-fitted where that was done."""
    scores = card.scores if card else {}
    if "test" in scores:
        return Quote("test", "test", scores["test"], list(scores["test"].chose))
    if "val" not in scores:
        return None
    val = scores["val"]
    if val.cross_fitted is not None:
        return Quote("val", CROSS_FITTED, val.cross_fitted, [what for what in val.chose if what != "threshold"])
    return Quote("val", "val", val, list(val.chose))


def headline(card: Card) -> str:
    """The score to quote with its interval and on what it was earned; then what val's own score adds to it."""
    found = quote(card)
    if found is None:
        return "not scored"
    low, high = found.score.iou_interval
    if found.name == CROSS_FITTED:
        how = "the threshold chosen on one half and scored on the other"
        note = f"{how}; they also chose {', '.join(found.chose)}"
    else:
        note = f"which {'also chose ' + ', '.join(found.chose) if found.chose else 'chose nothing'}"
    threshold = number_text(card.threshold.value if card.threshold else None)
    lines = [
        f"IoU {found.score.iou:.4f} (95% interval {low:.4f}-{high:.4f}), Dice {number_text(found.score.dice)} "
        f"on {found.score.num_images} {found.split} images, {note}; threshold {threshold}"
    ]
    if card.optimism is not None:
        lines.append(optimism_text(card.optimism))
    return "\n".join(lines)


def optimism_text(optimism: Optimism) -> str:
    """How much val's own score flatters, one line."""
    low, high = optimism.interval
    against = "test" if optimism.against == "test" else "the cross-fitted score"
    return (
        f"val's own IoU is {optimism.val:.4f}: {optimism.gap:+.4f} against {against} "
        f"(95% interval {low:+.4f} to {high:+.4f})"
    )


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
