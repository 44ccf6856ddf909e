import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from segcore.data.pairs.samples import Sample
from segcore.data.pairs.splits import halves
from segcore.scores.crossfit import CrossFit, optimism_of_threshold, optimism_on_test
from segcore.scores.scoring import ImageScore


def samples(count: int, group: int | None = None, classes: int = 1) -> list[Sample]:
    return [
        Sample(f"{i}", Path("x"), Path("y"), "val", f"c{i % classes}", f"g{i // group}" if group else f"{i}")
        for i in range(count)
    ]


def test_halves_share_out_each_class_and_follow_the_seed() -> None:
    given = samples(40, classes=2)
    half = halves(given, 0)
    assert Counter(zip(half, (s.class_name for s in given), strict=True)) == dict.fromkeys(
        [(0, "c0"), (0, "c1"), (1, "c0"), (1, "c1")], 10
    )
    assert halves(given, 0) == half
    assert halves(given, 1) != half


def test_halves_keep_groups_whole() -> None:
    given = samples(40, group=5)
    half = halves(given, 0)
    assert Counter(half) == {0: 20, 1: 20}
    assert all(len({half[i] for i in range(g * 5, g * 5 + 5)}) == 1 for g in range(8))
    assert halves(samples(5, group=5), 0) == [0] * 5


def test_each_half_is_scored_at_the_threshold_of_the_other() -> None:
    """All masks are the left half of 4 x 4. One half of the images has it at 0.25, and the right one at 0.125.

    In the other half all is four times as much. So the first half's best is all foreground for the second, IoU 0.5, and
    the second's best leaves the first empty, IoU 0.
    """
    given = samples(6)
    half = np.array(halves(given, 0))
    mask = np.zeros((4, 4), np.uint8)
    mask[:, :2] = 1
    fit = CrossFit(given, 0)
    for place in range(6):
        probs = np.where(mask, 0.25, 0.125).astype(np.float32)
        fit.update(place, (probs * (4 if half[place] else 1) * np.float32(0.999))[None], mask)
    result = fit.result()
    assert result is not None
    score, ious = result[0].tree(), result[1]
    low, high = score["thresholds"]
    assert 0.125 < low <= 0.25
    assert 0.4995 < high <= 0.999
    assert [ious[i] for i in range(6)] == [0.0 if half[i] == 0 else 0.5 for i in range(6)]
    assert score["iou"] == np.mean(ious)
    assert score["num_images"] == 6
    json.dumps(score)


def test_one_image_cannot_be_halved() -> None:
    fit = CrossFit(samples(1), 0)
    fit.update(0, np.zeros((1, 4, 4), np.float32), np.zeros((4, 4), np.uint8))
    assert fit.result() is None


def noise(rng: np.random.Generator, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Masks of the left or of the right half, and probabilities that know nothing of it: one for each half."""
    found = []
    for _ in range(count):
        mask, probs = np.zeros((4, 4), np.uint8), np.empty((4, 4), np.float32)
        side = int(rng.integers(2)) * 2
        mask[:, side : side + 2] = 1
        probs[:, :2], probs[:, 2:] = rng.random(2)
        found.append((probs, mask))
    return found


@pytest.mark.slow
def test_on_noise_the_best_threshold_flatters_and_the_cross_fitted_score_does_not() -> None:
    """No threshold does better than all foreground, IoU 0.5, in the long run."""
    rng = np.random.default_rng(0)
    given = samples(16)
    plain, fitted = [], []
    for _ in range(300):
        fit = CrossFit(given, 0)
        images = noise(rng, 16)
        for place, (probs, mask) in enumerate(images):
            fit.update(place, probs[None], mask)
        result = fit.result()
        assert result is not None
        fitted.append(result[0].iou)
        plain.append(best_iou(images))
    error = 3 * np.std(fitted) / np.sqrt(300)
    assert np.mean(fitted) <= 0.5 + error
    assert np.mean(plain) > 0.5 + 3 * error


def best_iou(images: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The best mean IoU of any threshold."""
    values = sorted({float(v) for probs, _ in images for v in np.unique(probs)})
    return max(
        float(np.mean([((p >= t) & (m > 0)).sum() / ((p >= t) | (m > 0)).sum() for p, m in images])) for t in values
    )


def scores(ious: list[float]) -> list[ImageScore]:
    return [ImageScore(f"{i}", round(v * 100), round(v * 100), 100, group=f"{i}") for i, v in enumerate(ious)]


def test_the_gap_to_test_by_hand() -> None:
    rng = np.random.default_rng(0)
    val, test = rng.normal(0.8, 0.05, 100).round(2).tolist(), rng.normal(0.7, 0.05, 64).round(2).tolist()
    record = optimism_on_test(scores(val), scores(test)).tree()
    assert (record["against"], record["val"], record["honest"]) == (
        "test", pytest.approx(np.mean(val)), pytest.approx(np.mean(test)),
    )  # fmt: skip
    assert record["gap"] == record["val"] - record["honest"]
    half = 1.98 * np.sqrt(np.var(val) / 100 + np.var(test) / 64)
    assert record["interval"] == pytest.approx([record["gap"] - half, record["gap"] + half], abs=0.002)
    json.dumps(record)


def test_the_gap_of_the_threshold_is_taken_image_by_image() -> None:
    """Images differ much and all lose 0.01 to 0.03: the interval is that of the loss."""
    val = np.linspace(0.2, 0.9, 50).round(2)
    lost = np.resize([0.01, 0.02, 0.03], 50)
    record = optimism_of_threshold(scores(val.tolist()), (val - lost).tolist()).tree()
    assert record["gap"] == pytest.approx(lost.mean())
    low, high = record["interval"]
    assert 0.015 < low < record["gap"] < high < 0.025
