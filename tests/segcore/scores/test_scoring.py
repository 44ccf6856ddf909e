import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segcore.config import SyntheticConfig, TrainConfig
from segcore.data.masks.rule import MaskRule
from segcore.data.pairs.samples import Sample
from segcore.data.synthetic import write_synthetic
from segcore.errors import BundleError
from segcore.models.build import build_model
from segcore.scores.scorer import BOUNDARY_IOU, CARD_SCORERS, DICE, ECE, PRECISION, RECALL, calibration_error
from segcore.scores.scoring import (
    NUM_CALIBRATION_BINS,
    ImageScore,
    boundary,
    calibration_counts,
    object_size,
    score_image,
    score_images,
    summarize,
    worst,
)
from segcore.sealed.bundle import Bundle, load_bundle, write_bundle
from segcore.sealed.card import Card, Threshold
from segcore.task import BINARY

CONFIG = TrainConfig.model_validate({"data": {"image_size": [32, 48]}, "model": {"base_channels": 2, "depth": 2}})


def sample(name: str = "a", class_name: str = "", group: str | None = None) -> Sample:
    return Sample(name, Path(f"{name}.png"), Path(f"{name}_mask.png"), "val", class_name, group or name)


def square(top: int, left: int, side: int, hw: tuple[int, int] = (10, 10)) -> np.ndarray:
    mask = np.zeros(hw, dtype=np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def scored(pred: np.ndarray, mask: np.ndarray, **of: str) -> ImageScore:
    return score_image(BINARY, sample(**of), pred.astype(np.float32)[None], mask, 0.5)


def test_a_shifted_square_by_hand() -> None:
    """Two 6 x 6 squares, one pixel apart: 30 shared pixels. Their rings of 20 pixels share 5 above and 5 below."""
    score = scored(square(2, 3, 6), square(2, 2, 6))
    assert (score.true_positive, score.predicted, score.positive) == (30, 36, 36)
    assert score.iou == 30 / 42
    assert score.of(DICE) == 60 / 72
    assert (score.of(PRECISION), score.of(RECALL)) == (30 / 36, 30 / 36)
    assert (score.boundary_overlap, score.boundary_union) == (10, 30)
    assert score.of(BOUNDARY_IOU) == 1 / 3
    assert score.of(ECE) == 12 / 100  # as sure as can be, and wrong in 12 pixels


def test_precision_and_recall_are_not_swapped() -> None:
    """4 x 4 predicted within 6 x 6: all of it right, 16 of 36 found."""
    score = scored(square(3, 3, 4), square(2, 2, 6))
    assert (score.of(PRECISION), score.of(RECALL)) == (1.0, 16 / 36)


@pytest.mark.parametrize(
    ("pred", "mask", "expected"),
    [
        ("empty", "empty", dict.fromkeys(("iou", "dice", "precision", "recall", "boundary_iou"), 1.0)),
        ("full", "full", dict.fromkeys(("iou", "dice", "precision", "recall", "boundary_iou"), 1.0)),
        ("empty", "full", dict.fromkeys(("iou", "dice", "precision", "recall", "boundary_iou"), 0.0)),
        ("full", "empty", dict.fromkeys(("iou", "dice", "precision", "recall", "boundary_iou"), 0.0)),
    ],
)
def test_empty_and_full(pred: str, mask: str, expected: dict[str, float]) -> None:
    arrays = {"empty": np.zeros((10, 10), np.uint8), "full": np.ones((10, 10), np.uint8)}
    score = scored(arrays[pred], arrays[mask])
    assert {scorer.name: score.of(scorer) for scorer in CARD_SCORERS if scorer is not ECE} == expected
    assert score.of(ECE) == float(pred != mask)
    assert score.size == ("empty" if mask == "empty" else "large")


def test_an_inverted_prediction_scores_nothing() -> None:
    mask = square(2, 2, 6)
    score = scored(1 - mask, mask)
    assert [score.iou, score.of(DICE), score.of(PRECISION), score.of(RECALL), score.of(BOUNDARY_IOU)] == [0.0] * 5
    assert score.of(ECE) == 1.0


def test_probabilities_that_are_nan_are_told_with_the_image() -> None:
    probs = np.full((10, 10), 0.5, np.float32)
    probs[3, 4] = np.nan
    with pytest.raises(BundleError, match=r"a\.png: the model's probabilities hold NaN; its weights are not finite"):
        score_image(BINARY, sample(), probs[None], square(2, 2, 6), 0.5)


def test_the_threshold_itself_is_foreground() -> None:
    probs = np.full((10, 10), 0.5, np.float32)
    assert score_image(BINARY, sample(), probs[None], np.ones((10, 10), np.uint8), 0.5).predicted == 100
    assert score_image(BINARY, sample(), probs[None], np.ones((10, 10), np.uint8), 0.500001).predicted == 0


def test_the_boundary_is_two_hundredths_of_the_diagonal_wide() -> None:
    """100 x 100: 2.83, so 3 pixels of a square of 40: 40 * 40 - 34 * 34."""
    mask = square(30, 30, 40, (100, 100)).astype(bool)
    assert boundary(mask).sum() == 40**2 - 34**2
    assert boundary(mask)[30:33, 30:70].all()
    assert not boundary(mask)[33:67, 33:67].any()


def test_a_mask_at_the_border_of_the_image_ends_there() -> None:
    assert boundary(np.ones((10, 10), bool)).sum() == 100 - 64
    assert not boundary(np.zeros((10, 10), bool)).any()


@pytest.mark.parametrize(("hw", "steps"), [((60, 80), 2), ((120, 160), 4), ((16, 16), 1)])
def test_the_boundary_is_what_its_definition_says(hw: tuple[int, int], steps: int) -> None:
    """A pixel is inside when all pixels up to so many steps away are foreground; beyond the image there is none."""
    mask = np.random.default_rng(0).random(hw) < 0.97
    padded = np.pad(mask, steps)
    side = 2 * steps + 1
    inside = np.lib.stride_tricks.sliding_window_view(padded, (side, side)).all(axis=(2, 3))
    assert inside.any()
    assert np.array_equal(boundary(mask), mask & ~inside)


def test_calibration_by_hand() -> None:
    """Two pixels at 0.1, of which one is foreground, and two at 0.9, which both are: (0.4 + 0.1) / 2."""
    probs, target = np.array([[0.1, 0.1], [0.9, 0.9]]), np.array([[False, True], [True, True]])
    counts = calibration_counts(probs, target)
    assert counts.shape == (3, NUM_CALIBRATION_BINS)
    assert counts[0, 1] == counts[0, 13] == 2
    assert calibration_error(counts) == pytest.approx(0.25)


def test_errors_of_opposite_sign_in_two_images_cancel_only_in_the_pooled_value() -> None:
    """All at 0.5; one image is all foreground, the other has none."""
    half = np.full((10, 10), 0.5, np.float32)
    scores = [
        score_image(BINARY, sample(n), half[None], np.full((10, 10), m, np.uint8), 0.5) for n, m in (("a", 0), ("b", 1))
    ]
    summary = summarize(scores).tree()
    assert summary["ece"] == 0.5
    assert summary["ece_pooled"] == 0.0


def test_a_calibrated_model_has_almost_no_error_and_certainty_costs() -> None:
    rng = np.random.default_rng(0)
    probs = rng.random((400, 400))
    target = rng.random((400, 400)) < probs
    assert calibration_error(calibration_counts(probs, target)) < 0.01
    assert calibration_error(calibration_counts((probs > 0.5).astype(float), target)) > 0.2


def test_a_probability_of_one_lies_in_the_last_bin() -> None:
    assert calibration_counts(np.ones((1, 1)), np.ones((1, 1), bool))[0].tolist() == [0.0] * 14 + [1.0]


@pytest.mark.parametrize(
    ("squares", "size"),
    [
        ([], "empty"),
        ([(10, 10, 5)], "small"),  # 0.25 % of the image
        ([(10, 10, 6)], "medium"),  # 0.36 %
        ([(10, 10, 17)], "medium"),  # 2.9 %
        ([(10, 10, 18)], "large"),  # 3.2 %
        ([(10 * row, 10 * column, 5) for row in range(9) for column in range(9)], "small"),  # many small ones
        ([(40, 40, 20), (5, 5, 1), (5, 50, 1), (50, 5, 1), (5, 90, 1)], "large"),  # and four specks
        ([(10, 10, 5), (15, 15, 5), (20, 20, 5)], "medium"),  # corners that touch are one object: 0.75 %
    ],
)
def test_the_size_is_that_of_the_objects(squares: list[tuple[int, int, int]], size: str) -> None:
    mask = np.zeros((100, 100), dtype=bool)
    for top, left, side in squares:
        mask[top : top + side, left : left + side] = True
    assert object_size(mask) == size
    assert object_size(np.kron(mask, np.ones((2, 2), bool))) == size, "whatever the resolution"


def two_images() -> list[ImageScore]:
    """30 of 60 and 10 of 40 pixels."""
    return [
        ImageScore("a", 30, 40, 50, 2, 8, "large", "cat", "a"),
        ImageScore("b", 10, 30, 20, 1, 2, "small", "dog", "b"),
    ]


def test_the_summary_by_hand() -> None:
    summary = summarize(two_images()).tree()
    assert summary["num_images"] == 2
    assert (summary["iou"], summary["iou_pooled"]) == (0.375, 0.4)
    assert summary["dice"] == pytest.approx((60 / 90 + 20 / 50) / 2)
    assert summary["dice_pooled"] == 80 / 140
    assert (summary["precision"], summary["precision_pooled"]) == (pytest.approx((3 / 4 + 1 / 3) / 2), 40 / 70)
    assert (summary["recall"], summary["recall_pooled"]) == (pytest.approx((3 / 5 + 1 / 2) / 2), 40 / 70)
    assert (summary["boundary_iou"], summary["boundary_iou_pooled"]) == (0.375, 0.3)
    assert summary["confidence"] == 0.95
    assert {name: (part["num_images"], part["iou"]) for name, part in summary["by_class"].items()} == {
        "cat": (1, 0.5), "dog": (1, 0.25),
    }  # fmt: skip
    assert {name: part["iou"] for name, part in summary["by_size"].items()} == {"small": 0.25, "large": 0.5}
    assert [(image["name"], image["iou"]) for image in summary["worst_images"]] == [("b", 0.25), ("a", 0.5)]
    json.dumps(summary, allow_nan=False)


def test_one_class_is_not_listed_beside_itself() -> None:
    assert summarize([scored(square(2, 2, 6), square(2, 2, 6), class_name="cat")]).tree()["by_class"] == {}


def test_groups_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    values = [int(100 * v) for v in np.repeat(rng.uniform(0.2, 0.9, 6), 10)]
    alone = [ImageScore(str(i), v, v, 100, group=str(i)) for i, v in enumerate(values)]
    films = [ImageScore(str(i), v, v, 100, group=str(i // 10)) for i, v in enumerate(values)]
    (low, high), (wide_low, wide_high) = (summarize(scores).tree()["iou_interval"] for scores in (alone, films))
    assert wide_high - wide_low > 2 * (high - low)


def test_the_worst_images_are_those_of_the_lowest_iou() -> None:
    scores = [ImageScore(f"{i}", hits, 10, 10) for i, hits in enumerate([9, 1, 5, 1, 0])]
    assert [row.name for row in worst(scores, 3)] == ["4", "1", "3"]
    assert len(worst(scores[:2])) == 2


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Twelve generated images of many sizes, and one with an empty mask."""
    root = tmp_path_factory.mktemp("images")
    write_synthetic(root, SyntheticConfig(num_images=12), seed=3)
    found = [
        Sample(path.stem, path, Path(str(path).replace("/images/", "/gt/")).with_suffix(".png"), "val", "", path.stem)
        for path in sorted(root.rglob("images/*/*.jpg"))
    ]
    empty = root / "empty.png"
    Image.new("L", Image.open(found[0].image).size, 0).save(empty)
    return [*found, Sample("empty", found[0].image, empty, "val", "", "empty")]


@pytest.fixture(scope="module")
def bundle(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Untrained weights at a threshold at which they give masks of both kinds of pixels."""
    torch.manual_seed(0)
    model = build_model(CONFIG.model)
    image = np.asarray(Image.open(samples[0].image).convert("RGB").resize((48, 32)))
    with torch.inference_mode():
        probs = model.eval()(torch.from_numpy(image.copy()).permute(2, 0, 1)[None]).sigmoid()
    weights = {name: value.clone().contiguous() for name, value in model.state_dict().items()}
    folder = tmp_path_factory.mktemp("model") / "best"
    write_bundle(folder, weights, CONFIG, Card(threshold=Threshold(value=float(probs.median()))))
    return load_bundle(folder, torch.device("cpu"))


def independent_iou(bundle: Bundle, sample: Sample, tmp_path: Path) -> float:
    """What a stranger computes from a written mask, with PIL and numpy alone."""
    written = tmp_path / "pred.png"
    Image.fromarray(bundle.predict_file(sample.image, original_size=False)).save(written)
    pred = np.asarray(Image.open(written)) > 127
    foreground = Image.fromarray((np.asarray(Image.open(sample.mask)) > 127).astype(np.uint8))
    target = np.asarray(foreground.resize((48, 32), Image.Resampling.NEAREST)) == 1
    union = np.count_nonzero(pred | target)
    return np.count_nonzero(pred & target) / union if union else 1.0


def test_scores_equal_an_independent_computation_exactly(bundle: Bundle, samples: list[Sample], tmp_path: Path) -> None:
    scores = score_images(bundle, samples, MaskRule())
    assert [score.name for score in scores] == [sample.name for sample in samples]
    expected = [independent_iou(bundle, sample, tmp_path) for sample in samples]
    assert [score.iou for score in scores] == expected
    assert scores[-1].iou == 0.0  # an empty target, and a prediction that is not
    assert len(set(expected)) > 5
    for score in scores:
        assert score.of(DICE) == pytest.approx(2 * score.iou / (1 + score.iou))


def test_a_score_does_not_depend_on_the_other_images(bundle: Bundle, samples: list[Sample]) -> None:
    together = {score.name: score for score in score_images(bundle, samples, MaskRule())}
    for one in reversed(samples):
        (alone,) = score_images(bundle, [one], MaskRule())
        assert alone == together[one.name]
        assert np.array_equal(alone.calibration, together[one.name].calibration)


def test_scoring_tells_how_far_it_is_and_shows_the_probabilities(bundle: Bundle, samples: list[Sample]) -> None:
    seen: list[int] = []
    shown: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
    score_images(
        bundle, samples[:3], MaskRule(), seen.append, lambda place, p, m: shown.append((place, p.shape, m.shape))
    )
    assert seen == [1, 2, 3]
    assert shown == [(i, (1, 32, 48), (32, 48)) for i in range(3)]
