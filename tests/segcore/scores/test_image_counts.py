from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from segcore.data.pairs.samples import Sample
from segcore.data.pairs.splits import halves
from segcore.errors import TrainingError
from segcore.scores.crossfit import CrossFit
from segcore.scores.curve import CurveResult
from segcore.scores.image_counts import ImageCounts
from segcore.scores.scorer import IMAGE_SCORERS
from segcore.scores.threshold_curve import ThresholdCurve


def batch(num_images: int = 9, side: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Probabilities that say something about the masks; mask 0 is empty, mask 1 full, and image 2 is empty in both."""
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(num_images, 1, side, side, generator=generator) < 0.4).to(torch.uint8)
    targets[0], targets[1], targets[2] = 0, 1, 0
    probs = (0.6 * torch.rand(targets.shape, generator=generator) + 0.4 * targets).clamp(0, 1)
    probs[2] = 0.0
    return probs, targets


def curve_of(probs: Tensor, targets: Tensor, **settings: Any) -> CurveResult:
    curve = ThresholdCurve(**settings)
    curve.update(probs, targets)
    return curve.compute()


def by_hand() -> ImageCounts:
    """Of 10 pixels 5 are positive. At 0.5: TP 4 and 2 of 5 and 2 predicted; at 0.75: TP 3 and 0 of 3 and 0."""
    return ImageCounts(
        thresholds=np.array([0.0, 0.5, 0.75]),
        true_positive=np.array([[5, 4, 3], [5, 2, 0]]),
        predicted=np.array([[10, 5, 3], [10, 2, 0]]),
        positive=np.array([5, 5]),
    )


def test_scores_by_hand() -> None:
    counts = by_hand()
    assert counts.values("iou", 0.5).tolist() == pytest.approx([4 / 6, 2 / 5])
    assert counts.values("dice", 0.5).tolist() == pytest.approx([8 / 10, 4 / 7])
    # Sums: TP 6, union 11, so R = 6 / 11; two images, so z = R + 2 (TP_i - R U_i) / 11.
    ratio = 6 / 11
    expected = [ratio + 2 * (4 - ratio * 6) / 11, ratio + 2 * (2 - ratio * 5) / 11]
    assert counts.values("iou_pooled", 0.5).tolist() == pytest.approx(expected)
    assert counts.values("dice_pooled", 0.5).mean() == pytest.approx(12 / 17)


def test_a_threshold_between_two_is_taken_down() -> None:
    counts = by_hand()
    assert counts.values("iou", 0.74).tolist() == counts.values("iou", 0.5).tolist()
    assert counts.values("iou", 1.0).tolist() == counts.values("iou", 0.75).tolist() == [3 / 5, 0.0]


def test_auto_is_best_of_the_mean_over_images() -> None:
    """At 0: (1/2 + 1/2) / 2; at 0.5: (2/3 + 2/5) / 2, the best; at 0.75: 3/10."""
    counts = by_hand()
    for metric in IMAGE_SCORERS:
        assert counts.values(metric, "auto").tolist() == counts.values(metric, 0.5).tolist()


@pytest.mark.parametrize(("thresholds", "best"), [([0.1, 0.4, 0.7], 1), ([0.25, 0.75, 0.9], 0), ([0.0, 0.1, 0.2], 2)])
def test_of_equal_thresholds_the_one_nearest_to_one_half_is_auto(thresholds: list[float], best: int) -> None:
    """All three have mean IoU 1/2: 1/2 and 1/2, 1 and 0, 0 and 1."""
    true_positive, predicted = np.array([[2, 4, 0], [2, 0, 4]]), np.array([[2, 4, 0], [2, 0, 4]])
    counts = ImageCounts(np.array(thresholds), true_positive, predicted, np.array([4, 4]))
    assert [counts.values("iou", threshold).mean() for threshold in thresholds] == [0.5, 0.5, 0.5]
    assert counts.values("iou", "auto").tolist() == [[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]][best]


def test_each_half_takes_the_threshold_of_the_other() -> None:
    """Image 0 does best at 0.5, and image 1 (IoU 1/2, 2/5, 0) at 0; so each is scored at the other's."""
    counts = by_hand()
    assert counts.values("iou", "auto", [0, 1]).tolist() == [5 / 10, 2 / 5]
    assert counts.values("iou", "auto", [1, 0]).tolist() == [5 / 10, 2 / 5]
    assert counts.values("iou", 0.75, [0, 1]).tolist() == [3 / 5, 0.0]  # nothing is chosen


@pytest.mark.parametrize("half_of", [[0, 0], [1, 1], [0, 1, 1], [0, 2], []])
def test_halves_that_are_none_are_refused(half_of: list[int]) -> None:
    with pytest.raises(ValueError, match="half_of must give each of 2 images its half"):
        by_hand().values("iou", "auto", half_of)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_outside_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"must be auto or lie in \[0, 1\], found"):
        by_hand().values("iou", threshold)


def test_an_unknown_metric_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no metric 'loss'; valid: iou, dice, iou_pooled, dice_pooled"):
        by_hand().values("loss", 0.5)


@pytest.mark.parametrize("also", [(), (0.617, 0.123456), (0.25, 300 / 1024)])
def test_every_stored_threshold_scores_as_the_curve_does(also: tuple[float, ...]) -> None:
    curve = curve_of(*batch(), thresholds=also)
    counts = curve.image_counts(also)
    assert 0.5 in counts.thresholds
    assert set(also) <= set(counts.thresholds)
    assert len(counts.thresholds) == 101 + len(set(also) - {0.25})
    assert (np.diff(counts.thresholds) > 0).all()
    for threshold in counts.thresholds:
        point = curve.at(float(threshold))
        assert counts.values("iou", threshold).tolist() == curve.per_image_iou(threshold).tolist()
        assert counts.values("dice", threshold).tolist() == curve.per_image_dice(threshold).tolist()
        for metric in IMAGE_SCORERS:
            assert counts.values(metric, threshold).mean() == pytest.approx(getattr(point, metric), abs=1e-12)


def test_counts_are_those_of_the_pixels() -> None:
    probs, targets = batch()
    counts = curve_of(probs, targets).image_counts()
    for index, threshold in enumerate(counts.thresholds):
        preds = (probs.double() >= threshold).numpy()
        assert counts.predicted[:, index].tolist() == preds.sum((1, 2, 3)).tolist()
        assert counts.true_positive[:, index].tolist() == (preds & (targets.numpy() > 0)).sum((1, 2, 3)).tolist()
    assert counts.positive.tolist() == targets.sum((1, 2, 3)).tolist()
    assert counts.true_positive.dtype == counts.predicted.dtype == counts.positive.dtype == np.int64


def test_a_threshold_that_was_not_counted_is_taken_down_to_an_edge() -> None:
    curve = curve_of(*batch())
    counts = curve.image_counts([0.6177])
    edge = curve.at(0.6177).threshold
    assert edge in counts.thresholds
    assert counts.values("iou", 0.6177).tolist() == curve.per_image_iou(edge).tolist()
    with pytest.raises(ValueError, match="must lie in"):
        curve.image_counts([1.5])


def test_auto_is_the_curves_best_where_that_is_stored() -> None:
    curve = curve_of(*batch(seed=3))
    threshold, value, _ = curve.best("iou")
    counts = curve.image_counts([threshold])
    assert counts.values("iou", "auto").mean() == pytest.approx(value, abs=1e-12)
    assert counts.values("dice", "auto").tolist() == curve.per_image_dice(threshold).tolist()


def test_many_images_are_counted_in_slices() -> None:
    probs, targets = batch(150, 4)
    curve = curve_of(probs, targets)
    assert curve.image_counts().values("iou", 0.5).tolist() == curve.per_image_iou(0.5).tolist()


def test_cross_fitting_does_as_the_card_does() -> None:
    """All edges are stored, so that both choose among the same thresholds."""
    probs, targets = batch(24, 8, seed=5)
    samples = [Sample(f"{i}", Path("x"), Path("y"), "val", "c", f"{i}") for i in range(24)]
    fit = CrossFit(samples, seed=0)
    for place in range(24):
        fit.update(place, probs[place].numpy(), targets[place, 0].numpy())
    expected = fit.result()
    assert expected is not None
    counts = curve_of(probs, targets).image_counts(points=1025)
    assert counts.values("iou", "auto", halves(samples, 0)).tolist() == expected[1]
    assert counts.values("dice", "auto", halves(samples, 0)).mean() == pytest.approx(expected[0].dice)
    assert len(set(expected[0].tree()["thresholds"])) == 2


def test_the_spread_of_linearised_numbers_is_that_of_the_ratio() -> None:
    """Over 400 drawn sets of 60 images, the pooled IoU varies by what one set's numbers say; the plain IoUs do not."""
    rng = np.random.default_rng(0)

    def draw() -> ImageCounts:
        positive = rng.integers(10, 1000, 60)
        found = (positive * rng.beta(8, 2, 60) * np.sqrt(positive / 1000)).astype(np.int64)
        wrong = rng.integers(0, 50, 60)
        return ImageCounts(np.array([0.5]), found[:, None], (found + wrong)[:, None], positive)

    sets = [draw().values("iou_pooled", 0.5) for _ in range(400)]
    told = np.sqrt(np.mean([values.var(ddof=1) / 60 for values in sets]))
    seen = float(np.std([values.mean() for values in sets]))
    assert told == pytest.approx(seen, rel=0.1)
    plain = np.sqrt(np.mean([draw().values("iou", 0.5).var(ddof=1) / 60 for _ in range(400)]))
    assert plain != pytest.approx(seen, rel=0.15)


def test_all_empty_scores_1() -> None:
    nothing = np.zeros((3, 1), np.int64)
    counts = ImageCounts(np.array([0.5]), nothing, nothing, nothing[:, 0])
    for metric in IMAGE_SCORERS:
        assert counts.values(metric, 0.5).tolist() == [1.0, 1.0, 1.0]


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    counts = curve_of(*batch(), thresholds=(0.617,)).image_counts([0.617])
    counts.save(tmp_path / "images.npz")
    again = ImageCounts.load(tmp_path / "images.npz")
    for name in ("thresholds", "true_positive", "predicted", "positive"):
        assert np.array_equal(getattr(again, name), getattr(counts, name))
        assert getattr(again, name).dtype == getattr(counts, name).dtype


def test_the_pixels_of_a_large_image_fit(tmp_path: Path) -> None:
    pixels = np.array([[4096 * 4096]])
    ImageCounts(np.array([0.5]), pixels, pixels, pixels[0]).save(tmp_path / "images.npz")
    assert ImageCounts.load(tmp_path / "images.npz").predicted.item() == 4096 * 4096


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    match = r"the counts per image in .*images\.npz cannot be read"
    with pytest.raises(TrainingError, match=match):
        ImageCounts.load(path)
    by_hand().save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TrainingError, match=match):
        ImageCounts.load(path)
    np.savez(path, thresholds=np.array([0.5]))
    with pytest.raises(TrainingError, match=match):
        ImageCounts.load(path)
    np.savez(path, thresholds=np.ones(2), true_positive=np.ones((3, 2)), predicted=np.ones((3, 1)), positive=np.ones(3))
    with pytest.raises(TrainingError, match=match):
        ImageCounts.load(path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_counts_what_the_cpu_counts() -> None:
    probs, targets = batch()
    expected = curve_of(probs, targets).image_counts([0.25])
    found = curve_of(probs.cuda(), targets.cuda()).image_counts([0.25])
    assert found.true_positive.tolist() == expected.true_positive.tolist()
    assert found.predicted.tolist() == expected.predicted.tolist()
