"""Scores of a sealed model's masks: per image, pooled over all pixels, by class folder and by object size.

Everything is counted at the model's image size and at its threshold, `pred = prob >= threshold`. IoU, Dice and
boundary IoU of an image are 1 where prediction and target are both empty, and 0 where one of them is. Precision is 1
where both are empty, and 0 where only the prediction is; recall is 1 where both are, and 0 where only the target is.

`X` is the mean over images, `X_pooled` counts the pixels of all images together, so that large objects weigh more.

References:
    Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021 (arXiv:2103.16562).
    Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015 (ECE).
    Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014 (object sizes).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from segcore.data.masks.rule import MaskRule
from segcore.data.pairs.samples import Sample
from segcore.data.pixels.decode import read_mask
from segcore.errors import BundleError
from segcore.scores.intervals import CONFIDENCE, DRAWS, mean_interval
from segcore.scores.scorer import CARD_SCORERS, IOU, Scorer
from segcore.sealed.card import Scores, SplitScores
from segcore.task import Task

if TYPE_CHECKING:
    from segcore.sealed.bundle import Bundle

BoolArray = npt.NDArray[np.bool_]

DILATION_RATIO = 0.02
"""Width of the boundary as a share of the image's diagonal, as in the boundary IoU paper."""
NUM_CALIBRATION_BINS = 15
SIZES = {"small": 0.0, "medium": 32**2 / (480 * 640), "large": 96**2 / (480 * 640)}
"""Smallest share of the image for an object of each size: COCO's 32 x 32 and 96 x 96 pixels of 480 x 640."""
NUM_WORST = 5


@dataclass(frozen=True)
class ImageScore:
    """The counts of one image, in pixels, from which all its scores are computed.

    Attributes:
        name, class_name, group: As in `Sample`.
        true_positive: Foreground pixels in both prediction and mask.
        predicted: Foreground pixels of the prediction.
        positive: Foreground pixels of the mask.
        boundary_overlap, boundary_union: Pixels in both, and in either, of the two boundaries.
        size: `small`, `medium` or `large`, the size of the mask's objects; `empty` without any.
        calibration: `(3, 15) float64`: pixels, sum of probabilities and foreground pixels by bin of the probability.
    """

    name: str
    true_positive: int
    predicted: int
    positive: int
    boundary_overlap: int = 0
    boundary_union: int = 0
    size: str = "empty"
    class_name: str = ""
    group: str = ""
    calibration: npt.NDArray[np.float64] = field(
        default_factory=lambda: np.zeros((3, NUM_CALIBRATION_BINS)), repr=False, compare=False
    )

    @property
    def iou(self) -> float:
        """Intersection over union, by which images are sorted and whose interval is reported."""
        return self.of(IOU)

    def of(self, scorer: Scorer) -> float:
        """The value of one of `CARD_SCORERS` for this image."""
        assert scorer.value is not None, f"a card lists no {scorer.name}"
        return scorer.value(self)

    def record(self) -> Scores:
        """Name, class, size and scores, for JSON."""
        about = {"name": self.name, "class": self.class_name, "size": self.size}
        return Scores.model_validate({**about, **{scorer.name: self.of(scorer) for scorer in CARD_SCORERS}})


def score_images(
    bundle: "Bundle",
    samples: Iterable[Sample],
    rule: MaskRule,
    progress: Callable[[int], None] | None = None,
    on_probs: Callable[[int, np.ndarray, np.ndarray], None] | None = None,
) -> list[ImageScore]:
    """Score samples at the model's image size, predicting like `predict_file`.

    Args:
        bundle: The model.
        samples: Images with their masks.
        rule: What the masks of their data set mean.
        progress: Called with the number of samples done.
        on_probs: Called with each sample's index, `(C, H, W) float32` probabilities and `(H, W) uint8` mask.

    Raises:
        BundleError: The model gives NaN.
    """
    predictor = bundle.predictor
    scores = []
    for place, sample in enumerate(samples):
        probs = predictor.probs_of_file(sample.image)
        mask = read_mask(sample.mask, rule, predictor.hw)
        scores.append(score_image(bundle.task, sample, probs, mask, bundle.threshold))
        if on_probs is not None:
            on_probs(place, probs, mask)
        if progress is not None:
            progress(place + 1)
    return scores


def score_image(task: Task, sample: Sample, probs: np.ndarray, mask: np.ndarray, threshold: float) -> ImageScore:
    """Count one image.

    Args:
        task: What mask and probabilities mean; must have one class.
        sample: The image's name, class and group.
        probs: `(C, H, W) float32` in [0, 1].
        mask: `(H, W) uint8` of the task's labels.
        threshold: In [0, 1].

    Raises:
        BundleError: A probability is NaN.
    """
    if np.isnan(probs).any():
        raise BundleError(f"{sample.image}: the model's probabilities hold NaN; its weights are not finite")
    (label,) = task.classes
    preds = task.decide(probs, threshold)
    (counts,) = task.counts(preds, mask)
    pred, target = task.is_class(preds, label), task.is_class(mask, label)
    pred_edge, target_edge = boundary(pred), boundary(target)
    return ImageScore(
        name=sample.name,
        true_positive=counts.true_positive,
        predicted=counts.predicted,
        positive=counts.positive,
        boundary_overlap=int((pred_edge & target_edge).sum()),
        boundary_union=int((pred_edge | target_edge).sum()),
        size=object_size(target),
        class_name=sample.class_name,
        group=sample.group,
        calibration=calibration_counts(probs[0], target),
    )


def boundary(mask: BoolArray, dilation_ratio: float = DILATION_RATIO) -> BoolArray:
    """The mask's pixels near its contour: within `dilation_ratio` of the image's diagonal, at least 1 pixel.

    As in the authors' code, distance is counted in steps to any of the 8 neighbours, and everything outside the image
    is background: where the mask touches the image's border, there is contour.
    """
    height, width = mask.shape
    steps = max(1, round(dilation_ratio * float(np.hypot(height, width))))
    kernel = np.ones((3, 3), np.uint8)
    inner = cv2.erode(mask.astype(np.uint8), kernel, None, (-1, -1), steps, cv2.BORDER_CONSTANT, 0)
    return np.asarray(mask & (inner == 0))


def object_size(mask: BoolArray) -> str:
    """Name of the mean object size in a mask, averaged over foreground pixels; `empty` for an empty mask.

    Objects are connected regions (8 neighbours). Their size is a share of the image, so it does not depend on the
    resolution; averaging over pixels keeps specks from counting as much as large objects.
    """
    total = int(mask.sum())
    if not total:
        return "empty"
    areas = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)[2][1:, cv2.CC_STAT_AREA]
    share = float((areas.astype(np.float64) ** 2).sum()) / total / mask.size
    return max((name for name, least in SIZES.items() if share >= least), key=lambda name: SIZES[name])


def calibration_counts(probs: np.ndarray, target: BoolArray) -> npt.NDArray[np.float64]:
    """Pixels, sum of probabilities and foreground pixels in 15 equal bins of the probability, `(3, 15) float64`."""
    flat = probs.ravel().astype(np.float64)
    bins = np.minimum((flat * NUM_CALIBRATION_BINS).astype(np.int64), NUM_CALIBRATION_BINS - 1)
    weights = (None, flat, target.ravel().astype(np.float64))
    return np.stack([np.bincount(bins, weight, NUM_CALIBRATION_BINS).astype(np.float64) for weight in weights])


def summarize(
    scores: Sequence[ImageScore], *, seed: int = 0, draws: int = DRAWS, confidence: float = CONFIDENCE
) -> SplitScores:
    """Everything that the card says about a split, except what was chosen on it.

    Args:
        scores: The scores of its images.
        seed: Seed of the interval.
        draws: Number of resampled means for the interval.
        confidence: The share of data sets whose interval should contain the true mean, in (0, 1).

    Returns:
        `num_images`; each metric's mean over images and its pooled value; `iou_interval` with its `confidence`, a
        bootstrap interval of the mean IoU; `by_class` and `by_size`, each with the number of images and the means;
        `worst_images`, the lowest IoU first.
    """
    groups = [score.group or score.name for score in scores]
    ious = [score.iou for score in scores]
    interval = mean_interval(ious, groups, confidence=confidence, draws=draws, seed=seed)
    classes = {score.class_name for score in scores}
    summary = {
        "num_images": len(scores),
        **_means(scores),
        "iou_interval": interval,
        "confidence": confidence,
        **{f"{metric}_pooled": value for metric, value in _pooled(scores).items()},
        "by_class": dict(_parts(scores, lambda score: score.class_name, sorted(classes))) if len(classes) > 1 else {},
        "by_size": dict(_parts(scores, lambda score: score.size, ["empty", *SIZES])),
        "worst_images": worst(scores),
    }
    return SplitScores.model_validate(summary)


def worst(scores: Sequence[ImageScore], count: int = NUM_WORST) -> list[Scores]:
    """The images with the lowest IoU, each with all its scores."""
    return [score.record() for score in sorted(scores, key=lambda score: score.iou)[:count]]


def _means(scores: Sequence[ImageScore]) -> dict[str, float]:
    return {scorer.name: float(np.mean([score.of(scorer) for score in scores])) for scorer in CARD_SCORERS}


def _pooled(scores: Sequence[ImageScore]) -> Mapping[str, float]:
    names = ("true_positive", "predicted", "positive", "boundary_overlap", "boundary_union")
    counts = {name: sum(getattr(score, name) for score in scores) for name in names}
    together = ImageScore("", **counts, calibration=np.sum([score.calibration for score in scores], axis=0))
    return {scorer.name: together.of(scorer) for scorer in CARD_SCORERS}


def _parts(
    scores: Sequence[ImageScore], key: Callable[[ImageScore], str], names: Iterable[str]
) -> Iterator[tuple[str, Scores]]:
    parts: dict[str, list[ImageScore]] = defaultdict(list)
    for score in scores:
        parts[key(score)].append(score)
    for name in names:
        if parts[name]:
            yield name, Scores.model_validate({"num_images": len(parts[name]), **_means(parts[name])})
