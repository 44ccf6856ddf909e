"""The score to quote of confirmed settings: what trainings with fresh seeds, which chose nothing, come to on val.

The best of many trials owes a part of its score to its luck with seeds and images, and a search's own score shows it.
The mean over fresh seeds has no such luck: the search did not see them. Each is scored at a threshold that was chosen
on the other half of the images. What is left (the settings were compared on these images, and each training took its
best epoch on them) is small beside the interval: `tests/benchmarks/coverage.py` simulates how often the interval holds
the truth, with winners among up to 200 trials.

References:
    Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks, MLSys 2021 (arXiv:2103.03098).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.reruns.estimates import SeedEstimates
from search.reruns.trainings import image_groups, images_of, val_halves
from search.runs.paths import RunPaths
from search.runs.rerun_records import Confirmation, ConfirmedTrial
from segcore.config import TrainConfig
from segcore.data.pairs.samples import Sample
from segcore.scores.crossfit import Claim
from segcore.scores.intervals import CONFIDENCE, mean_interval
from segcore.scores.scorer import IOU
from segcore.scores.seed_noise import FloatArray
from segcore.sealed.card import SplitScores


@dataclass(frozen=True, eq=False)
class FreshScore:
    """What trainings with fresh seeds come to, and how much the search claimed instead.

    Attributes:
        score: Their mean IoU and Dice per image, with the interval of the IoU over images and seeds.
        claim: What the search claims of the same settings.
        gap_interval: Confidence interval of the claim less the mean.
    """

    score: SplitScores
    claim: Claim
    gap_interval: tuple[float, float]


def fresh_score(
    paths: RunPaths,
    confirmation: Confirmation,
    configs: Mapping[int, TrainConfig],
    val: Sequence[Sample],
    claimed: float | None,
) -> FreshScore | None:
    """The score of the winner's settings over fresh seeds; None where the counts of its trainings cannot be read.

    Args:
        paths: The run.
        confirmation: What was confirmed.
        configs: What each trial ran with, by its number.
        val: The validation samples, in the order of the cache.
        claimed: The IoU on val that the search saw of the winner.
    """
    cells = {row.trial: _scores(paths, row, configs[row.trial], val, "iou") for row in confirmation.candidates}
    winner = confirmation.winning
    own = cells[winner.trial]
    if own is None or claimed is None:
        return None
    groups = image_groups(f"val/{IOU.name}", val)
    estimates = SeedEstimates([cell for cell in cells.values() if cell is not None], groups, has_images=True)
    mean, interval = estimates.mean(own)
    dice = _scores(paths, winner, configs[winner.trial], val, "dice")
    assert dice is not None
    low, high = interval or mean_interval(own.mean(0), groups)
    score = SplitScores.model_validate(
        {
            "num_images": own.shape[1],
            "num_seeds": len(own),
            "iou": mean,
            "iou_interval": (low, high),
            "confidence": CONFIDENCE,
            "dice": float(dice.mean()),
        }
    )
    claim = Claim(claimed, _claimed_images(paths, winner.trial, configs[winner.trial]))
    return FreshScore(score, claim, _gap_interval(claim, own, estimates, (low, high)))


def _scores(
    paths: RunPaths, row: ConfirmedTrial, train: TrainConfig, val: Sequence[Sample], metric: str
) -> FloatArray | None:
    """Scores `(S, N)` by seed and image, cross-fitted; None without a training that can be read."""
    half_of = val_halves(val, train.data.seed) if train.threshold == "auto" else None
    counts = [images_of(paths.reruns, number) for _, number in row.reruns]
    found = [each.values(metric, train.threshold, half_of) for each in counts if each is not None]
    return np.array(found) if found else None


def _claimed_images(paths: RunPaths, number: int, train: TrainConfig) -> FloatArray | None:
    """Each image's IoU in the search's own training, at the threshold that it claims."""
    counts = images_of(paths, number)
    return None if counts is None else counts.values("iou", train.threshold)


def _gap_interval(
    claim: Claim, fresh: FloatArray, estimates: SeedEstimates, interval: tuple[float, float]
) -> tuple[float, float]:
    """Paired by image where the claim's images are known; else the score's own interval, seen from the claim."""
    if claim.images is not None and claim.images.shape[0] == fresh.shape[1]:
        value, between = estimates.difference(claim.images[None], fresh)
        if between is not None:
            shift = claim.value - float(fresh.mean()) - value
            return max(-1.0, between[0] + shift), min(1.0, between[1] + shift)
    return claim.value - interval[1], claim.value - interval[0]
