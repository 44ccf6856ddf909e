"""The orderings of trials, by hand, and their way through the table and back."""

import math
from typing import Any

import pytest

from search.runs.events import Applied, Epoch, Error
from search.runs.lives import TrialLife
from search.runs.rows import TrialRow, epoch_rows
from search.runs.trials import Trials
from segcore.objective import Mode, Objective

COST = "cost/parameters"


def row(number: int, value: float | None, state: str = "complete", cost: float | None = None) -> TrialRow:
    return TrialRow(number, state, value, metrics={} if cost is None else {COST: float(cost)})


def trials(*rows: TrialRow, mode: Mode = "max", second: str | None = None) -> Trials:
    return Trials(rows, Objective("val/iou", mode, second))


@pytest.mark.parametrize(
    ("rows", "mode", "winner"),
    [
        ([row(0, 0.5), row(1, 0.7), row(2, 0.6)], "max", 1),
        ([row(0, 0.5), row(1, 0.7), row(2, 0.6)], "min", 0),
        ([row(2, 0.7), row(1, 0.7), row(3, 0.7)], "max", 1),
        ([row(2, 0.7), row(1, 0.7), row(3, 0.7)], "min", 1),
        ([row(0, 0.5), row(1, 0.7, "pruned")], "max", 1),
        ([row(0, 0.5), row(1, 0.7, "running")], "max", 1),
        ([row(0, 0.5), row(1, 0.7, "failed")], "max", 0),
        ([row(0, 0.0), row(1, -0.7), row(2, 0.7, "failed")], "max", 0),
        ([row(0, 0.5), row(1, None, "failed"), row(2, None, "pruned")], "max", 0),
        ([row(0, None), row(1, 0.7, "failed")], "max", 1),
        ([row(0, None), row(1, None, "failed")], "max", None),
        ([], "max", None),
    ],
)
def test_the_best(rows: list[TrialRow], mode: Mode, winner: int | None) -> None:
    best = trials(*rows, mode=mode).best()
    assert (None if best is None else best.number) == winner


def test_by_rank_failed_ones_come_after_the_others_and_those_without_a_value_last() -> None:
    found = trials(
        row(0, 0.5), row(1, None, "failed"), row(2, 0.75, "pruned"), row(3, 0.5), row(4, 0.875, "failed"), row(5, None)
    )
    assert [each.number for each in found.ranked()] == [2, 0, 3, 4, 5, 1]
    assert [each.number for each in found.top(2)] == [2, 0]
    assert [each.number for each in found.top(9)] == [2, 0, 3]


def test_in_mode_min_the_lowest_comes_first() -> None:
    found = trials(row(0, 0.5), row(1, 0.25), row(2, None, "failed"), row(3, 0.75), mode="min")
    assert [each.number for each in found.ranked()] == [1, 0, 3, 2]


FRONT = (
    row(0, 0.5, cost=100), row(1, 0.7, cost=400), row(2, 0.6, cost=400), row(3, 0.9, "failed", cost=50),
    row(4, None, cost=10), row(5, 0.4), row(6, 0.5, cost=100), row(7, 0.3, "pruned", cost=60),
    row(8, 0.2, "running", cost=80),
)  # fmt: skip


@pytest.mark.parametrize(("mode", "numbers"), [("max", [1, 0, 6, 7]), ("min", [8, 7])])
def test_the_front_holds_what_no_sound_trial_beats(mode: Mode, numbers: list[int]) -> None:
    assert [each.number for each in trials(*FRONT, mode=mode, second=COST).front()] == numbers


def test_without_a_second_metric_or_costs_there_is_no_front() -> None:
    assert trials(*FRONT).front() == []
    assert trials(row(0, 0.5), second=COST).front() == []


def test_they_are_a_sequence_in_order_of_their_number() -> None:
    found = trials(row(3, 0.5), row(1, None, "failed"), row(2, 0.25))
    assert [each.number for each in found] == [1, 2, 3]
    assert (len(found), found[0].number, [each.number for each in found[1:]]) == (3, 1, [2, 3])
    assert found.states() == {"complete": 2, "failed": 1}
    assert found.get(2) is found[1]
    assert (found.get(0), found.get(None)) == (None, None)


FULL = TrialRow(
    number=4, state="complete", value=0.75, best_epoch=2, epochs=3, started=10.0, ended=20.5, train_s=9.0,
    metrics={"val/iou": 0.75, "val/dice": 0.8, COST: 120.0}, params={"optimizer.lr": 0.1, "model.arch": "unet"},
    error=None, applied={"optimizer.lr": 0.1}, ray_trial_ids=("a", "b"),
)  # fmt: skip
COLUMNS: dict[str, Any] = {
    "number": 4, "state": "complete", "value": 0.75, "best_epoch": 2, "epochs": 3, "started": 10.0, "ended": 20.5,
    "train_s": 9.0, "val/iou": 0.75, "val/dice": 0.8, COST: 120.0, "param/optimizer.lr": 0.1,
    "param/model.arch": "unet", "error": None, "applied": '{"optimizer.lr": 0.1}', "ray_trial_ids": ["a", "b"],
    "pareto": True,
}  # fmt: skip


def test_a_row_of_the_table_has_these_columns_in_this_order() -> None:
    (columns,) = trials(FULL, second=COST).table()
    assert list(columns.items()) == list(COLUMNS.items())
    assert "pareto" not in trials(FULL).table()[0]


def test_all_rows_have_the_columns_of_any() -> None:
    failed = TrialRow(5, "failed", error="x: y", params={"loss.dice": 1.0})
    first, second = trials(FULL, failed, second=COST).table()
    assert list(first) == list(second)
    assert (first["param/loss.dice"], second["param/optimizer.lr"], second[COST]) == (None, None, None)
    assert (second["pareto"], second["error"]) == (False, "x: y")


def test_what_the_table_holds_comes_back() -> None:
    written = trials(FULL, TrialRow(5, "failed", error="x: y", params={"loss.dice": 1.0}), second=COST)
    assert Trials.from_table(written.table(), written.objective) == written


def test_a_table_of_an_early_version_has_fewer_columns() -> None:
    (found,) = Trials.from_table([{"number": 0, "state": "pruned", "value": None}], Objective("val/iou"))
    assert found == TrialRow(0, "pruned")


def test_the_journal_makes_the_same_rows() -> None:
    reports = {
        1: Epoch(4, 1, 11.0, {"val/iou": 0.5, "val/dice": 0.6, COST: 120.0, "time/train_s": 4.0, "finished": False}),
        2: Epoch(4, 2, 15.0, {"val/iou": 0.75, "val/dice": 0.8, COST: 130.0, "time/train_s": 5.0, "best_epoch": 2}),
        3: Epoch(4, 3, 20.0, {"val/iou": math.nan, "finished": True}),
    }
    life = TrialLife(
        4, "complete", {"optimizer.lr": 0.1, "model.arch": "unet", "train.grad_clip": None}, began=10.0, ended=20.5,
        ray_ids=("a", "b"), epochs=reports, first=reports[1].metrics,
        applied=(Applied(4, 10.0, {"optimizer.lr": 0.1}, {"device": "cpu"}),),
    )  # fmt: skip
    waiting = TrialLife(5, "waiting")
    (row,) = Trials.of_lives([life, waiting], Objective("val/iou", second=COST))
    assert row == FULL, "the cost is the one that it was judged by: that of its first report"
    reported = epoch_rows([life])
    assert [(each.epoch, each.time) for each in reported] == [(1, 11.0), (2, 15.0), (3, 20.0)]
    assert reported[1].metrics == {"val/iou": 0.75, "val/dice": 0.8, COST: 130.0, "time/train_s": 5.0}


def test_an_error_is_that_of_a_trial_that_failed() -> None:
    error = Error(0, 1.0, "out of memory", "2 GiB")
    rows = Trials.of_lives(
        [TrialLife(0, "failed", {}, error=error), TrialLife(1, "running", {}, error=error)], Objective("val/iou")
    )
    assert [(each.state, each.value, each.error) for each in rows] == [
        ("failed", None, "out of memory: 2 GiB"), ("running", None, None),
    ]  # fmt: skip
