from pathlib import Path

import plotly.graph_objects as go
import pytest
from report_runs import card, row, run_with, subject, write_curve

from search.report.jsonable import as_json
from search.report.sections.threshold import SECTION, CurveCost, render, threshold_cost, threshold_losses
from search.report.threshold_cost import SearchedThresholds, read_iou_curve

AGAIN = {**card(1), "origin": {"trial": 1, "epoch": 2, "seed": 7, "rerun": 0}}
"""Trial 1 was trained again, and that training is sealed."""


def searched(number: int, iou: float, auto: float, threshold: object) -> dict[str, object]:
    columns = {"val/iou": iou, "val/iou_auto": auto, "val/threshold_auto": 0.4, "param/threshold": threshold}
    return row(number, iou, **columns)


def test_the_winners_newest_whole_curve_is_taken(tmp_path: Path) -> None:
    cut_off, whole, older = tmp_path / "c", tmp_path / "b", tmp_path / "a"
    write_curve(whole, [0.0, 0.5, 1.0], [0.0, 0.8, 0.0], (0.5, 0.8))
    write_curve(older, [0.0, 0.5, 1.0], [0.0, 0.4, 0.0], (0.5, 0.4))
    cut_off.mkdir()
    (cut_off / "curve.json").write_text('{"threshold": [0.0,')
    record = threshold_cost(run_with(trials=[row(3, 0.8)], card=card(3), checkpoints=[cut_off, whole, older]))
    assert isinstance(record, CurveCost)
    assert (record.trial, record.seed, record.cost.iou_at_best, record.cost.num_trials) == (3, None, 0.8, 1)
    assert "the curve of trial 3, its best epoch." in render(record, subject())
    tree = as_json(record)
    assert (tree["kind"], tree["trial"], tree["iou_at_best"], tree["num_trials"]) == ("curve", 3, 0.8, 1)
    assert read_iou_curve(cut_off) is None
    assert threshold_cost(run_with(checkpoints=[cut_off, tmp_path / "gone"])) is None


def test_searched_thresholds_are_held_against_their_own_curves() -> None:
    rows = [
        searched(0, 0.5, 0.6, 0.2), searched(1, 0.7, 0.72, 0.3), searched(2, 0.4, 0.7, 0.9),
        searched(3, 0.6, 0.6, "auto"),
        row(4, None, "failed", **{"param/threshold": 0.5, "val/iou_auto": None}),
    ]  # fmt: skip
    record = threshold_cost(run_with(trials=rows))
    assert isinstance(record, SearchedThresholds)
    assert (record.kind, record.num_trials) == ("searched", 3)
    assert record.mean == pytest.approx((0.1 + 0.02 + 0.3) / 3)
    assert record.median == pytest.approx(0.1)
    assert record.most == pytest.approx(0.3)
    assert record.by_winner == pytest.approx(0.02)
    assert [loss.number for loss in record.losses] == [0, 1, 2]
    go.Figure(threshold_losses(record))  # raises on a property that plotly does not have
    page = SECTION.html(record, subject())
    assert "What searching the threshold cost" in page
    assert "the winner&#x27;s lost 0.0200" in page.replace("'", "&#x27;")


def test_the_curve_says_which_training_it_is_of_where_a_trial_was_trained_again(tmp_path: Path) -> None:
    write_curve(tmp_path, [0.0, 0.5, 1.0], [0.0, 0.8, 0.0], (0.5, 0.8))
    record = threshold_cost(run_with(trials=[row(1, 0.9)], card=AGAIN, checkpoints=[tmp_path]))
    assert isinstance(record, CurveCost)
    assert (as_json(record)["trial"], as_json(record)["seed"]) == (1, 7)
    page = SECTION.html(record, subject())
    assert "the curve of trial 1, trained again with seed 7, its best epoch." in page
    assert "What the threshold would have cost" in page


def test_a_training_runs_curve_is_the_runs(tmp_path: Path) -> None:
    write_curve(tmp_path, [0.0, 0.5, 1.0], [0.0, 0.8, 0.0], (0.5, 0.8))
    record = threshold_cost(run_with(card=card(None), checkpoints=[tmp_path]))
    assert isinstance(record, CurveCost)
    assert (record.trial, "seed" in as_json(record)) == (None, False)
    page = render(record, subject())
    assert "the curve of the run's best epoch." in page
    assert "settings of this run" not in page


@pytest.mark.parametrize(("reports", "lost"), [({2: {"val/iou": 0.6, "val/iou_auto": 0.65}}, 0.05), ({}, None)])
def test_what_the_winner_lost_is_of_the_training_that_is_sealed(
    reports: dict[int, dict[str, float]], lost: float | None
) -> None:
    rows = [searched(0, 0.5, 0.6, 0.2), searched(1, 0.7, 0.72, 0.3)]
    record = threshold_cost(run_with(trials=rows, card=AGAIN, reports=reports))
    assert isinstance(record, SearchedThresholds)
    assert record.by_winner == (None if lost is None else pytest.approx(lost))
