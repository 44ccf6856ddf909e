"""What every score keeps to, and what the registry of metrics gives to config, tables and intervals."""

import math
import subprocess
import sys
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from search.config.tree import SearchSettings
from segcore.errors import ConfigError
from segcore.objective import Objective
from segcore.scores.curve import METRICS as CURVES
from segcore.scores.curve import CurvePoint, CurveResult
from segcore.scores.image_counts import ImageCounts
from segcore.scores.scorer import (
    BOUNDARY_IOU,
    CARD_SCORERS,
    DICE,
    DICE_POOLED,
    ECE,
    IMAGE_SCORERS,
    IOU,
    IOU_POOLED,
    LOSS,
    METRICS,
    PRECISION,
    RECALL,
    Scorer,
    scorer_of,
)


@dataclass(frozen=True)
class Some:
    """Counts of an image."""

    true_positive: int
    predicted: int
    positive: int
    boundary_overlap: int = 0
    boundary_union: int = 0
    calibration: Any = field(default_factory=lambda: np.zeros((3, 15)))


EMPTY, PERFECT = Some(0, 0, 0), Some(24, 24, 24, 5, 5)
SOME = Some(true_positive=30, predicted=40, positive=50, boundary_overlap=2, boundary_union=8)
"""IoU 30 / 60, Dice 60 / 90, precision 30 / 40, recall 30 / 50."""


def value(scorer: Scorer, counts: Some) -> float:
    assert scorer.value is not None
    return scorer.value(counts)


def test_the_metrics_of_a_search_in_their_order() -> None:
    assert METRICS.names == ("val/iou", "val/dice", "val/iou_pooled", "val/dice_pooled", "val/loss")
    assert all(metric.name == metric.build.key for metric in METRICS)
    assert [metric.build.mode for metric in METRICS] == ["max", "max", "max", "max", "min"]
    assert [metric.build.share for metric in METRICS] == ["mean", "mean", "ratio", "ratio", "none"]
    assert [metric.build.label for metric in METRICS] == ["IoU", "Dice", "IoU pooled", "Dice pooled", "loss"]


def test_no_two_scores_share_a_name() -> None:
    every = {*CARD_SCORERS, *(metric.build for metric in METRICS)}
    assert len({scorer.name for scorer in every}) == len({scorer.label for scorer in every}) == len(every) == 9


def test_an_unknown_metric_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"search\.metric: no metric 'iou'; valid: val/iou, val/dice, val/iou_pooled"):
        scorer_of("iou")


@pytest.mark.parametrize("metric", list(METRICS), ids=lambda metric: metric.name)
def test_the_config_takes_direction_and_range_of_each_metric(metric: Any) -> None:
    scorer = metric.build
    low, high = scorer.bounds
    settings = SearchSettings.model_validate({"metric": metric.name, "target": low})
    assert settings.objective == Objective(metric.name, scorer.mode)
    other = "min" if scorer.mode == "max" else "max"
    with pytest.raises(ValidationError, match=f"{metric.name} is better when it is {scorer.mode}"):
        SearchSettings.model_validate({"metric": metric.name, "mode": other})
    for outside in (low - 0.1, high + 0.1 if math.isfinite(high) else low - 1.0):
        with pytest.raises(ValidationError, match=f"a value that {metric.name} cannot have; valid: 0 "):
            SearchSettings.model_validate({"metric": metric.name, "target": outside})


def test_values_that_a_score_can_have() -> None:
    assert [IOU.can_be(v) for v in (0.0, 1.0, -1e-9, 1.01, math.nan, math.inf)] == [True, True, *[False] * 4]
    assert [LOSS.can_be(v) for v in (0.0, 99.0, -1e-9, math.nan, math.inf)] == [True, True, False, False, False]
    assert (IOU.range_text, LOSS.range_text) == ("0 to 1", "0 or more")


@pytest.mark.parametrize("scorer", CARD_SCORERS, ids=lambda scorer: scorer.name)
def test_every_score_of_a_card_lies_within_its_bounds_and_is_best_when_all_is_right(scorer: Scorer) -> None:
    low, high = scorer.bounds
    best = high if scorer.mode == "max" else low
    assert value(scorer, PERFECT) == value(scorer, EMPTY) == best
    assert low <= value(scorer, SOME) <= high


@pytest.mark.parametrize(
    ("scorer", "expected"),
    [(IOU, 30 / 60), (DICE, 60 / 90), (PRECISION, 30 / 40), (RECALL, 30 / 50), (BOUNDARY_IOU, 2 / 8)],
    ids=lambda of: of.name if isinstance(of, Scorer) else "",
)
def test_scores_by_hand(scorer: Scorer, expected: float) -> None:
    assert value(scorer, SOME) == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [(Some(0, 24, 0), 0.0), (Some(0, 0, 24), 0.0), (Some(0, 12, 12), 0.0), (Some(24, 24, 24), 1.0)],
    ids=["full on an empty mask", "empty on a full mask", "inverted", "full on a full mask"],
)
def test_empty_full_and_inverted(counts: Some, expected: float) -> None:
    assert [value(scorer, counts) for scorer in (IOU, DICE, PRECISION, RECALL)] == [expected] * 4


def test_calibration_by_hand() -> None:
    """Four pixels at 0.1, of which one is foreground, and none elsewhere: |0.4 - 1| / 4."""
    bins = np.zeros((3, 15))
    bins[:, 1] = 4, 0.4, 1
    assert value(ECE, Some(0, 0, 1, calibration=bins)) == pytest.approx(0.15)


def test_counts_that_are_no_number_give_a_score_that_is_none() -> None:
    """A sum with NaN in it must not turn into a score."""
    bins = np.zeros((3, 15))
    bins[:, 1] = 4, math.nan, 1
    assert math.isnan(value(ECE, Some(0, 0, 1, calibration=bins)))


@pytest.mark.parametrize("name", IMAGE_SCORERS)
def test_a_ratio_says_the_same_of_ints_arrays_and_tensors_and_leaves_them_alone(name: str) -> None:
    ratio = IMAGE_SCORERS[name].ratio
    assert ratio is not None
    whole_numbers = [(30, 40, 50), (0, 0, 0), (0, 7, 0), (5, 5, 5)]
    expected = [ratio(*counts) for counts in whole_numbers]
    arrays = [np.array(column) for column in zip(*whole_numbers, strict=True)]
    tensors = [torch.tensor(column, dtype=torch.float64) for column in zip(*whole_numbers, strict=True)]
    for columns in (arrays, tensors):
        before = [column.tolist() for column in columns]
        part, whole = ratio(*columns)
        assert list(zip(part.tolist(), whole.tolist(), strict=True)) == expected
        assert [column.tolist() for column in columns] == before


def test_images_have_a_share_in_all_metrics_but_the_loss() -> None:
    assert list(IMAGE_SCORERS.values()) == [IOU, DICE, IOU_POOLED, DICE_POOLED]
    assert not LOSS.has_images
    counts = ImageCounts(np.array([0.5]), np.array([[4], [2]]), np.array([[5], [2]]), np.array([5, 5]))
    for name in IMAGE_SCORERS:
        assert counts.values(name, 0.5).shape == (2,)


def test_every_metric_of_images_has_its_curve() -> None:
    assert set(CURVES) == set(IMAGE_SCORERS)
    assert set(CURVES.values()) <= {column.name for column in fields(CurveResult)}
    assert set(CURVES) <= {column.name for column in fields(CurvePoint)}


def test_declaring_the_scores_imports_neither_torch_nor_numpy() -> None:
    code = "import segcore.scores.scorer, sys; print({'torch', 'numpy', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
