"""The scores there are, each declared once: its name, label, direction and bounds, and how counts of pixels give it.

What a search may be judged by, which epoch is the best, what a card lists, which scores have a value per image, what a
table calls them: all of it is asked here. To declare a score imports neither torch nor numpy.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from segcore.component import Component, Registry
from segcore.objective import Mode

Numbers = Any
"""Whole numbers, or a numpy array or torch tensor of such: all three in one call are of one kind."""
Ratio = Callable[[Numbers, Numbers, Numbers], tuple[Numbers, Numbers]]
"""Part and whole of a score, from true positives, predicted and positive pixels; 0 of 0 scores 1."""
Share = Literal["mean", "ratio", "none"]


class PixelCounts(Protocol):
    """The counts of an image, or of several images together, that a card's scores are formed from.

    Attributes are those of `segcore.scores.scoring.ImageScore`.
    """

    @property
    def true_positive(self) -> int:
        """Pixels that are predicted and there."""

    @property
    def predicted(self) -> int:
        """Pixels that are predicted."""

    @property
    def positive(self) -> int:
        """Pixels that are there."""

    @property
    def boundary_overlap(self) -> int:
        """Pixels that both boundaries share."""

    @property
    def boundary_union(self) -> int:
        """Pixels of either boundary."""

    @property
    def calibration(self) -> Any:
        """`(3, bins)`: pixels, sum of probabilities and foreground pixels by bin of the probability."""


@dataclass(frozen=True)
class Scorer:
    """One score.

    Attributes:
        name: In cards, curves and counts: `iou`.
        label: In tables and pictures.
        mode: Whether a larger or a smaller value is better.
        bounds: The least and the largest value.
        share: What part images have in it. mean: each has a value of its own, and the score is their mean; ratio: it
            is a ratio of sums over images; none: it is one number for all.
        ratio: Part and whole, of a score that is known at every threshold.
        value: The score of some counts, of one that a card lists.
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
        """In the reports of an epoch: `val/iou`."""
        return f"val/{self.name}"

    @property
    def has_images(self) -> bool:
        """Whether it can be divided over images, so that there are intervals over them."""
        return self.share != "none"

    @property
    def range_text(self) -> str:
        """Its values, in words."""
        low, high = self.bounds
        return f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"

    def can_be(self, value: float) -> bool:
        """Whether it can have a value; never NaN or infinity."""
        return math.isfinite(value) and self.bounds[0] <= value <= self.bounds[1]


def _iou(true_positive: Numbers, predicted: Numbers, positive: Numbers) -> tuple[Numbers, Numbers]:
    union = predicted + positive
    union -= true_positive  # in place, where it is an array: the curve forms a thousand of these an image
    return true_positive, union


def _dice(true_positive: Numbers, predicted: Numbers, positive: Numbers) -> tuple[Numbers, Numbers]:
    return 2 * true_positive, predicted + positive


def _share(part: int, whole: int, if_empty: float = 1.0) -> float:
    return part / whole if whole else if_empty


def _of_ratio(ratio: Ratio) -> Callable[[PixelCounts], float]:
    return lambda counts: _share(*ratio(counts.true_positive, counts.predicted, counts.positive))


def calibration_error(bins: Any) -> float:
    """ECE of `(3, bins)` pixels, sums of probabilities and foreground pixels by bin of the probability.

    How far the mean probability of a bin is from its share of foreground, averaged over pixels.

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
"""The share of the prediction that is right; of none, 1 where nothing is there."""
RECALL = Scorer(
    "recall", "recall",
    value=lambda counts: _share(counts.true_positive, counts.positive, if_empty=float(counts.predicted == 0)),
)  # fmt: skip
"""The share of what is there that was found; of nothing, 1 where nothing is predicted."""
BOUNDARY_IOU = Scorer(
    "boundary_iou", "boundary IoU", value=lambda counts: _share(counts.boundary_overlap, counts.boundary_union)
)
"""IoU of the two boundaries."""
ECE = Scorer("ece", "ECE", mode="min", value=lambda counts: calibration_error(counts.calibration))
"""Expected calibration error: how far a bin's mean probability is from its share of foreground, over pixels."""

CARD_SCORERS = (IOU, DICE, PRECISION, RECALL, BOUNDARY_IOU, ECE)
"""What a card lists of each split: the mean over images, and that of all pixels together as `NAME_pooled`."""

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
"""What may choose the best epoch and the best trial."""

IMAGE_SCORERS: Mapping[str, Scorer] = {
    metric.build.name: metric.build for metric in METRICS if metric.build.has_images
}  # fmt: skip
"""Those of the metrics that are formed from counts of images, by their name in these."""


def scorer_of(metric: str) -> Scorer:
    """The scorer of a report's key, such as `val/iou`.

    Raises:
        ConfigError: No search can be judged by it.
    """
    return METRICS[metric].build
