"""An unbiased score for the threshold where there is no test split, and how optimistic the validation score is.

The best threshold of a few images suits these images, so their score at it is too high. Cross-fitting corrects that:
the threshold is chosen on one half of the images and scored on the other, both ways. It does not correct for what else
was chosen on these images (the epoch, the winner of a search).

References:
    Stone, Cross-Validatory Choice and Assessment of Statistical Predictions, JRSS B 36, 1974.
    Varma & Simon, Bias in Error Estimation When Using Cross-Validation for Model Selection, BMC Bioinformatics 7, 2006.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from segcore.data.pairs.samples import Sample
from segcore.data.pairs.splits import halves
from segcore.scores.intervals import CONFIDENCE, difference_interval, mean_interval
from segcore.scores.scorer import IOU
from segcore.scores.scoring import ImageScore
from segcore.scores.threshold_curve import curve_of
from segcore.sealed.card import Optimism, SplitScores
from segcore.task import BINARY, Task


class CrossFit:
    """Counts the probabilities of samples in two halves, for `score_images`' `on_probs`.

    Args:
        samples: In the order in which they will be scored; groups stay in one half, classes are balanced.
        seed: Seed of the split into halves.
        task: What masks and probabilities mean.
    """

    def __init__(self, samples: Sequence[Sample], seed: int, task: Task = BINARY) -> None:
        self._samples = samples
        self._half_of = halves(samples, seed)
        self._curves = (curve_of(task), curve_of(task))

    def update(self, place: int, probs: np.ndarray, mask: np.ndarray) -> None:
        """Count one sample.

        Args:
            place: Index of the sample in `samples`.
            probs: `(C, H, W) float32` in [0, 1].
            mask: `(H, W) uint8`.
        """
        images = torch.from_numpy(np.ascontiguousarray(probs))[None]
        self._curves[self._half_of[place]].update(images, torch.from_numpy(np.ascontiguousarray(mask))[None, None])

    def result(self) -> tuple[SplitScores, list[float]] | None:
        """The score for the card, and each image's IoU at the threshold of the other half.

        None where the samples cannot be halved because they are a single image or group.
        """
        if len(set(self._half_of)) < 2:
            return None
        curves = [curve.compute() for curve in self._curves]
        thresholds = [curve.best("iou")[0] for curve in curves]
        iou, dice = np.empty(len(self._half_of)), np.empty(len(self._half_of))
        for half in (0, 1):
            mine = np.array(self._half_of) == half
            iou[mine] = curves[half].per_image_iou(thresholds[1 - half])
            dice[mine] = curves[half].per_image_dice(thresholds[1 - half])
        score = {
            "num_images": len(iou),
            "iou": float(iou.mean()),
            "iou_interval": mean_interval(iou, [sample.group for sample in self._samples]),
            "confidence": CONFIDENCE,
            "dice": float(dice.mean()),
            "thresholds": thresholds,
        }
        return SplitScores.model_validate(score), iou.tolist()


@dataclass(frozen=True, eq=False)
class Claim:
    """What a search claims of its winner's IoU on val, before the winner was trained again.

    Attributes:
        value: The IoU.
        images: Each image's IoU, `(N,) float64`, where it is known.
    """

    value: float
    images: npt.NDArray[np.float64] | None = None


def optimism_on_test(val: Sequence[ImageScore], test: Sequence[ImageScore], claim: Claim | None = None) -> Optimism:
    """What was claimed on val, which was used for choosing, minus the mean IoU on test; resampled independently.

    Args:
        val: The sealed model's scores on val: the claim, where there is no other.
        test: Its scores on test.
        claim: The search's.
    """
    own, second = np.array([score.iou for score in val]), np.array([score.iou for score in test])
    first = own if claim is None or claim.images is None else claim.images
    groups = ([score.group for score in val], [score.group for score in test])
    interval = difference_interval(first, second, groups)
    if claim is None:
        return optimism(float(own.mean()), "test", float(second.mean()), interval)
    shift = claim.value - float(first.mean())
    shifted = (max(-1.0, interval[0] + shift), min(1.0, interval[1] + shift))
    return optimism(claim.value, "test", float(second.mean()), shifted, claimed_by="search")


def optimism_of_threshold(val: Sequence[ImageScore], cross_fitted: Sequence[float]) -> Optimism:
    """The mean IoU on val minus the cross-fitted one of the same images, paired by image."""
    first = [score.iou for score in val]
    differences = np.array(first) - np.array(cross_fitted)
    interval = mean_interval(differences, [score.group for score in val], bounds=(-1.0, 1.0))
    return optimism(float(np.mean(first)), "val, cross-fitted", float(np.mean(cross_fitted)), interval)


def optimism(
    val: float, against: str, honest: float, interval: Sequence[float], *, claimed_by: str = "sealed model"
) -> Optimism:
    """The record of a gap.

    Args:
        val: What was claimed on val.
        against: What the score to quote was earned on.
        honest: The score to quote.
        interval: Of the gap.
        claimed_by: `sealed model` or `search`.
    """
    record = {
        "metric": IOU.name,
        "claimed_by": claimed_by,
        "val": val,
        "against": against,
        "honest": honest,
        "gap": val - honest,
        "interval": interval,
        "confidence": CONFIDENCE,
    }
    return Optimism.model_validate(record)
