from pathlib import Path

import numpy as np
import pytest
from report_runs import card, row, sources, write_curve

from search.report.threshold import (
    cost_of_search,
    read_iou_curve,
    share_at_least,
    threshold_cost,
)


def test_a_tent_by_hand() -> None:
    """IoU rises from 0 at 0 to 0.8 at 0.5 and falls to 0 at 1: slope 1.6 on both sides."""
    record = cost_of_search([0.0, 0.5, 1.0], [0.0, 0.8, 0.0], (0.5, 0.8), 10)
    assert (record["best_threshold"], record["iou_at_best"], record["iou_at_half"]) == (0.5, 0.8, pytest.approx(0.8))
    # At 0.1 and 0.9 it is 0.16, so the mean over [0.1, 0.9] is (0.16 + 0.8) / 2.
    assert record["iou_at_random"] == pytest.approx(0.48)
    fine, coarse = record["tolerances"]
    # Within 0.001: 2 * 0.001 / 1.6 of a range of 0.8 wide.
    assert fine["share"] == pytest.approx(0.0015625)
    assert fine["draws"] == pytest.approx(640.0)
    assert fine["draws_in_all"] == pytest.approx(6400.0)
    assert coarse["draws"] == pytest.approx(128.0)


def test_a_best_between_the_stored_points_is_a_point_of_the_curve() -> None:
    record = cost_of_search([0.0, 1.0], [0.0, 0.0], (0.3, 0.6), 1)
    assert record["curve"] == {"threshold": [0.0, 0.3, 1.0], "iou": [0.0, 0.6, 0.0]}
    # 0.2 at 0.1, 0.6 at 0.3, 0.6 / 7 at 0.9: trapezoids 0.2 * 0.4 and 0.6 * (0.6 + 0.6 / 7) / 2.
    assert record["iou_at_random"] == pytest.approx((0.08 + 0.6 * (0.6 + 0.6 / 7) / 2) / 0.8)


def test_a_best_outside_of_the_range_is_never_drawn() -> None:
    record = cost_of_search([0.0, 0.05, 0.1, 1.0], [0.0, 0.9, 0.2, 0.2], (0.05, 0.9), 5)
    for row_ in record["tolerances"]:
        assert (row_["share"], row_["draws"], row_["draws_in_all"]) == (0.0, None, None)


def test_on_a_flat_curve_the_first_draw_will_do_and_a_training_run_has_no_sum() -> None:
    record = cost_of_search([0.0, 1.0], [0.7, 0.7], (0.5, 0.7), None)
    assert record["iou_at_random"] == pytest.approx(0.7)
    assert [row_["draws"] for row_ in record["tolerances"]] == [1.0, 1.0]
    assert [row_["draws_in_all"] for row_ in record["tolerances"]] == [None, None]


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


def test_the_winners_newest_whole_curve_is_taken(tmp_path: Path) -> None:
    cut_off, whole, older = tmp_path / "c", tmp_path / "b", tmp_path / "a"
    write_curve(whole, [0.0, 0.5, 1.0], [0.0, 0.8, 0.0], (0.5, 0.8))
    write_curve(older, [0.0, 0.5, 1.0], [0.0, 0.4, 0.0], (0.5, 0.4))
    cut_off.mkdir()
    (cut_off / "curve.json").write_text('{"threshold": [0.0,')
    record = threshold_cost(sources(trials=[row(3, 0.8)], card=card(3), checkpoints=[cut_off, whole, older]))
    assert record is not None
    assert (record["kind"], record["trial"], record["iou_at_best"], record["num_trials"]) == ("curve", 3, 0.8, 1)
    assert read_iou_curve(cut_off) is None
    assert threshold_cost(sources(checkpoints=[cut_off, tmp_path / "gone"])) is None


def test_searched_thresholds_are_held_against_their_own_curves() -> None:
    def searched(number: int, iou: float, auto: float, threshold: object) -> dict[str, object]:
        columns = {"val/iou": iou, "val/iou_auto": auto, "val/threshold_auto": 0.4, "param/threshold": threshold}
        return row(number, iou, **columns)

    rows = [
        searched(0, 0.5, 0.6, 0.2), searched(1, 0.7, 0.72, 0.3), searched(2, 0.4, 0.7, 0.9),
        searched(3, 0.6, 0.6, "auto"),
        row(4, None, "failed", **{"param/threshold": 0.5, "val/iou_auto": None}),
    ]  # fmt: skip
    record = threshold_cost(sources(trials=rows))
    assert record is not None
    assert (record["kind"], record["num_trials"]) == ("searched", 3)
    assert record["mean"] == pytest.approx((0.1 + 0.02 + 0.3) / 3)
    assert record["median"] == pytest.approx(0.1)
    assert record["most"] == pytest.approx(0.3)
    assert record["by_winner"] == pytest.approx(0.02)
    assert [loss["number"] for loss in record["losses"]] == [0, 1, 2]
