"""All scores, each declared once: its name, label, direction and bounds, and how it follows from pixel counts.

What a search may optimize, which epoch is the best, what a card lists, which scores have a value per image and their
labels in tables are all derived from this. Declaring a score imports neither torch nor numpy.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from segcore.component import Component, Registry
from segcore.objective import Mode

Numbers = Any
"""Integers, or a numpy array or torch tensor of them; the three arguments of one call have the same type."""
Ratio = Callable[[Numbers, Numbers, Numbers], tuple[Numbers, Numbers]]
"""From true positive, predicted and positive pixels to numerator and denominator of a score; 0 / 0 scores 1."""
Share = Literal["mean", "ratio", "none"]


class PixelCounts(Protocol):
    """The counts of one image, or of several images together, from which a card's scores are computed.

    The attributes are those of `segcore.scores.scoring.ImageScore`.
    """

    @property
    def true_positive(self) -> int:
        """Foreground pixels in both prediction and mask."""

    @property
    def predicted(self) -> int:
        """Foreground pixels of the prediction."""

    @property
    def positive(self) -> int:
        """Foreground pixels of the mask."""

    @property
    def boundary_overlap(self) -> int:
        """Pixels in both boundaries."""

    @property
    def boundary_union(self) -> int:
        """Pixels in either boundary."""

    @property
    def calibration(self) -> Any:
        """`(3, bins) float64`: pixels, sum of probabilities and foreground pixels by bin of the probability."""


@dataclass(frozen=True)
class Scorer:
    """One score.

    Attributes:
        name: Name in cards, curves and counts: `iou`.
        label: Name in tables and pictures.
        mode: Whether a larger or a smaller value is better.
        bounds: The smallest and the largest possible value.
        share: How images contribute. mean: each has a value of its own, and the score is their mean; ratio: it is a
            ratio of sums over images; none: it is one number for all.
        ratio: Numerator and denominator, for a score that has a threshold curve.
        value: The score of pixel counts, for a score that a card lists.
    """

    name: str
    label: str
    mode: Mode = "max"
    bounds: tuple[float, float] = (0.0, 1.0)
    share: Share = "mean"
    ratio: Ratio | None = None
    value: Callable[[PixelCounts], float] | None = None

    @property
    def key(self) -> str:
        """Its key in an epoch's report: `val/iou`."""
        return f"val/{self.name}"

    @property
    def has_images(self) -> bool:
        """Whether it can be split into values per image, so that intervals over images exist."""
        return self.share != "none"

    @property
    def range_text(self) -> str:
        """Its range of values, in words."""
        low, high = self.bounds
        return f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"

    def can_be(self, value: float) -> bool:
        """Whether it can have this value; False for NaN and infinity."""
        return math.isfinite(value) and self.bounds[0] <= value <= self.bounds[1]


def _iou(true_positive: Numbers, predicted: Numbers, positive: Numbers) -> tuple[Numbers, Numbers]:
    union = predicted + positive
    union -= true_positive  # in place for arrays: the curve computes a thousand of these per image
    return true_positive, union


def _dice(true_positive: Numbers, predicted: Numbers, positive: Numbers) -> tuple[Numbers, Numbers]:
    return 2 * true_positive, predicted + positive


def _share(part: int, whole: int, if_empty: float = 1.0) -> float:
    return part / whole if whole else if_empty


def _of_ratio(ratio: Ratio) -> Callable[[PixelCounts], float]:
    return lambda counts: _share(*ratio(counts.true_positive, counts.predicted, counts.positive))


def calibration_error(bins: Any) -> float:
    """Expected calibration error from `(3, bins)`: pixels, sums of probabilities and foreground pixels by bin.

    It is the distance of a bin's mean probability from its share of foreground, averaged over pixels, in [0, 1].

    References:
        Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.
    """
    pixels, probs, foreground = bins
    return float(abs(probs - foreground).sum() / max(pixels.sum(), 1.0))


def _pooled(scorer: Scorer) -> Scorer:
    return replace(scorer, name=f"{scorer.name}_pooled", label=f"{scorer.label} pooled", share="ratio", value=None)


IOU = Scorer("iou", "IoU", ratio=_iou, value=_of_ratio(_iou))
"""Intersection over union."""
DICE = Scorer("dice", "Dice", ratio=_dice, value=_of_ratio(_dice))
"""Twice the intersection over the sum of both."""
IOU_POOLED, DICE_POOLED = _pooled(IOU), _pooled(DICE)
LOSS = Scorer("loss", "loss", mode="min", bounds=(0.0, math.inf), share="none")

PRECISION = Scorer(
    "precision", "precision",
    value=lambda counts: _share(counts.true_positive, counts.predicted, if_empty=float(counts.positive == 0)),
)  # fmt: skip
"""Share of the prediction that is correct; for an empty prediction 1 where the mask is empty too, else 0."""
RECALL = Scorer(
    "recall", "recall",
    value=lambda counts: _share(counts.true_positive, counts.positive, if_empty=float(counts.predicted == 0)),
)  # fmt: skip
"""Share of the mask that was found; for an empty mask 1 where the prediction is empty too, else 0."""
BOUNDARY_IOU = Scorer(
    "boundary_iou", "boundary IoU", value=lambda counts: _share(counts.boundary_overlap, counts.boundary_union)
)
"""IoU of the two boundaries."""
ECE = Scorer("ece", "ECE", mode="min", value=lambda counts: calibration_error(counts.calibration))
"""Expected calibration error: distance of a bin's mean probability from its share of foreground, over pixels."""

CARD_SCORERS = (IOU, DICE, PRECISION, RECALL, BOUNDARY_IOU, ECE)
"""The scores a card lists for each split: the mean over images, and `NAME_pooled` over all pixels together."""

METRICS = Registry[Scorer](
    "metric",
    "search.metric",
    [
        Component(IOU.key, "IoU, mean over images", IOU, order=10),
        Component(DICE.key, "Dice, mean over images", DICE, order=20),
        Component(IOU_POOLED.key, "IoU of all pixels of all images together", IOU_POOLED, order=30),
        Component(DICE_POOLED.key, "Dice of all pixels of all images together", DICE_POOLED, order=40),
        Component(LOSS.key, "the loss, mean over images", LOSS, reads=("loss",), order=50),
    ],
)
"""The scores that may choose the best epoch and the best trial."""

IMAGE_SCORERS: Mapping[str, Scorer] = {
    metric.build.name: metric.build for metric in METRICS if metric.build.has_images
}  # fmt: skip
"""The metrics that are computed from image counts, by name."""


def scorer_of(metric: str) -> Scorer:
    """The scorer of a report key, such as `val/iou`.

    Raises:
        ConfigError: No search can optimize it.
    """
    return METRICS[metric].build
