"""What is better, and which epoch is best."""

import math

import pytest

from segcore.objective import Objective


@pytest.mark.parametrize(
    ("mode", "value", "than", "expected"),
    [
        ("max", 0.5, 0.4, True),
        ("max", 0.5, 0.5, False),
        ("min", 0.5, 0.4, False),
        ("min", 0.3, 0.4, True),
        ("max", 0.1, None, True),
        ("max", math.nan, None, False),
        ("min", 0.9, math.nan, True),
    ],
)
def test_better(mode: str, value: float, than: float | None, expected: bool) -> None:
    assert Objective("val/iou", mode).better(value, than) is expected


def test_the_best_epoch_is_the_earliest_of_the_best_and_never_one_without_a_number() -> None:
    values = {1: 0.4, 2: 0.6, 3: 0.6, 4: math.nan}
    assert Objective("val/iou").best_epoch(values) == 2
    assert Objective("val/loss", "min").best_epoch(values) == 1
    assert Objective("val/iou").best_epoch({1: math.nan}) is None
    assert Objective("val/iou").best_epoch({}) is None


def test_the_best_value_follows_the_mode_and_is_a_number() -> None:
    assert Objective("val/iou").best([0.2, math.nan, 0.7, 0.1]) == 0.7
    assert Objective("val/loss", "min").best([0.2, 0.7, 0.1]) == 0.1
    assert Objective("val/iou").best([math.nan]) is None
