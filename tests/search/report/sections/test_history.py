import pytest
from report_runs import card, epoch, row, run_with, subject

from search.report.course import Step, search_history
from search.report.sections.history import learning_curves, render

ROWS = [
    row(0, 0.6, **{"best_epoch": 2}), row(1, 0.8, "pruned", **{"best_epoch": 1}),
    row(2, 0.9, "failed", **{"best_epoch": 1}), row(3, None, "failed"),
]  # fmt: skip
EPOCHS = [epoch(1, 1, 0.8, 30.0), epoch(0, 1, 0.5, 10.0), epoch(0, 2, 0.6, 40.0), epoch(2, 1, 0.9, 20.0)]


def test_values_by_number_and_by_epochs_spent() -> None:
    record = search_history(run_with(trials=ROWS, epochs=EPOCHS, config={"train": {"epochs": 9}}))
    assert record is not None
    points = [(t.number, t.value, t.best_so_far, t.epochs_spent) for t in record.trials]
    # In time: trial 0 (0.5), trial 2 (0.9, fails), trial 1 (0.8), trial 0 again (0.6).
    assert points == [(0, 0.6, 0.6, 4), (1, 0.8, 0.8, 3), (2, 0.9, 0.8, 2)]
    assert record.steps == [Step(1, 0.5), Step(3, 0.8)]
    assert record.epochs == 4
    assert record.rungs == [2, 6]


def test_where_all_failed_the_failed_count() -> None:
    record = search_history(run_with(trials=[ROWS[2], ROWS[3]], epochs=[EPOCHS[3]]))
    assert record is not None
    assert record.steps == [Step(1, 0.9)]


def test_of_a_loss_the_smaller_is_the_better() -> None:
    config = {"search": {"metric": "val/loss"}}
    epochs = [{"number": n, "epoch": 1, "time": float(n), "val/loss": v} for n, v in enumerate([0.5, 0.7, 0.4])]
    record = search_history(run_with(trials=[row(0, 0.5), row(1, 0.7), row(2, 0.4)], epochs=epochs, config=config))
    assert record is not None
    assert [trial.best_so_far for trial in record.trials] == [0.5, 0.5, 0.4]
    assert record.steps == [Step(1, 0.5), Step(3, 0.4)]


def test_every_trial_has_its_curve_and_the_sealed_one_is_marked() -> None:
    record = search_history(run_with(trials=ROWS, epochs=EPOCHS, card=card(0)))
    assert record is not None
    curves = {curve.number: curve for curve in record.curves}
    assert sorted(curves) == [0, 1, 2]
    assert (curves[0].epochs, curves[0].values, curves[0].is_winner) == ([1, 2], [0.5, 0.6], True)
    assert (curves[1].state, curves[1].is_winner) == ("pruned", False)


def test_of_too_many_curves_the_best_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.report.course.MAX_CURVES", 2)
    record = search_history(run_with(trials=ROWS, epochs=EPOCHS))
    assert record is not None
    assert [curve.number for curve in record.curves] == [0, 1]
    assert record.num_curves_left_out == 1


def test_a_single_training_run_has_a_curve_and_nothing_else() -> None:
    record = search_history(run_with(epochs=[epoch(0, 1, 0.3, 1.0), epoch(0, 2, 0.4, 2.0)]))
    assert record is not None
    assert record.trials == []
    assert record.rungs == []
    assert [(curve.values, curve.is_winner) for curve in record.curves] == [([0.3, 0.4], True)]


def test_before_the_first_report_there_is_no_history() -> None:
    assert search_history(run_with(trials=[row(0, None, "running")])) is None


def test_the_bold_curve_is_the_one_of_the_sealed_training_where_a_trial_was_trained_again() -> None:
    again = {**card(0), "origin": {"trial": 0, "epoch": 2, "seed": 7, "rerun": 1}}
    reports = {1: {"val/iou": 0.55}, 2: {"val/iou": 0.65}}
    record = search_history(run_with(trials=ROWS, epochs=EPOCHS, card=again, reports=reports))
    assert record is not None
    bold = [curve for curve in record.curves if curve.is_winner]
    assert [(curve.number, curve.seed, curve.values) for curve in bold] == [(0, 7, [0.55, 0.65])]
    own = next(curve for curve in record.curves if (curve.number, curve.seed) == (0, None))
    assert (own.values, own.is_winner) == ([0.5, 0.6], False)
    front = learning_curves(record)["data"][-1]
    assert (front["line"]["width"], front["y"]) == (3, [0.55, 0.65])
    assert front["hovertemplate"].startswith("<b>trial 0, trained again with seed 7</b>, complete")
    page = render(record, subject())
    assert "Blue: trial 0, trained again with seed 7, which is sealed. " in page
    assert "the winner" not in page


def test_a_sealed_training_whose_journal_is_gone_has_no_curve_and_another_ones_is_not_shown_for_it() -> None:
    again = {**card(0), "origin": {"trial": 0, "epoch": 2, "seed": 7, "rerun": 1}}
    record = search_history(run_with(trials=ROWS, epochs=EPOCHS, card=again))
    assert record is not None
    assert [curve.is_winner for curve in record.curves] == [False, False, False]
    assert "Blue" not in render(record, subject())
