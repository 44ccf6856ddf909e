import numpy as np
import pytest

from search.report.threshold_cost import CurvePoints, IouCurve, cost_of_search, share_at_least


def test_a_tent_by_hand() -> None:
    """IoU rises from 0 at 0 to 0.8 at 0.5 and falls to 0 at 1: slope 1.6 on both sides."""
    record = cost_of_search(IouCurve([0.0, 0.5, 1.0], [0.0, 0.8, 0.0], 0.5, 0.8), 10)
    assert (record.best_threshold, record.iou_at_best, record.iou_at_half) == (0.5, 0.8, pytest.approx(0.8))
    # At 0.1 and 0.9 it is 0.16, so the mean over [0.1, 0.9] is (0.16 + 0.8) / 2.
    assert record.iou_at_random == pytest.approx(0.48)
    fine, coarse = record.tolerances
    # Within 0.001: 2 * 0.001 / 1.6 of a range of 0.8 wide.
    assert fine.share == pytest.approx(0.0015625)
    assert fine.draws == pytest.approx(640.0)
    assert fine.draws_in_all == pytest.approx(6400.0)
    assert coarse.draws == pytest.approx(128.0)


def test_a_best_between_the_stored_points_is_a_point_of_the_curve() -> None:
    record = cost_of_search(IouCurve([0.0, 1.0], [0.0, 0.0], 0.3, 0.6), 1)
    assert record.curve == CurvePoints([0.0, 0.3, 1.0], [0.0, 0.6, 0.0])
    # 0.2 at 0.1, 0.6 at 0.3, 0.6 / 7 at 0.9: trapezoids 0.2 * 0.4 and 0.6 * (0.6 + 0.6 / 7) / 2.
    assert record.iou_at_random == pytest.approx((0.08 + 0.6 * (0.6 + 0.6 / 7) / 2) / 0.8)


def test_a_best_outside_of_the_range_is_never_drawn() -> None:
    record = cost_of_search(IouCurve([0.0, 0.05, 0.1, 1.0], [0.0, 0.9, 0.2, 0.2], 0.05, 0.9), 5)
    for row_ in record.tolerances:
        assert (row_.share, row_.draws, row_.draws_in_all) == (0.0, None, None)


def test_on_a_flat_curve_the_first_draw_will_do_and_a_training_run_has_no_sum() -> None:
    record = cost_of_search(IouCurve([0.0, 1.0], [0.7, 0.7], 0.5, 0.7), None)
    assert record.iou_at_random == pytest.approx(0.7)
    assert [row_.draws for row_ in record.tolerances] == [1.0, 1.0]
    assert [row_.draws_in_all for row_ in record.tolerances] == [None, None]


@pytest.mark.parametrize(
    ("ys", "floor", "share"),
    [
        ([0.0, 1.0, 0.0], 0.75, 0.25),
        ([0.0, 1.0, 1.0], 0.5, 0.75),
        ([0.5, 0.5, 0.5], 0.5, 1.0),
        ([0.5, 0.5, 0.4], 0.5, 0.5),
        ([0.1, 0.2, 0.1], 0.5, 0.0),
    ],
)
def test_the_share_at_or_above_a_floor(ys: list[float], floor: float, share: float) -> None:
    assert share_at_least(np.array([0.0, 1.0, 2.0]), np.array(ys), floor) == pytest.approx(share)
