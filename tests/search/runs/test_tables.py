import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
import pytest
from optuna.trial import TrialState

from search.runs.events import Epoch, Error, Event
from search.runs.lives import lives_of
from search.runs.tables import (
    Tables,
    build_tables,
    read_table,
    write_epochs,
    write_tables,
)
from search.study.lives import with_study
from search.study.observations import COST_ATTR, PARAMS_ATTR, RAY_IDS_ATTR
from search.study.optuna_internals import set_attr
from segcore.objective import Mode, Objective

METRIC = "val/iou"


def epoch(number: int, epoch: int, value: float, **metrics: Any) -> Epoch:
    """A line of the journal."""
    told = {METRIC: value, "train/loss": 1.0 / epoch, "lr": 0.1, "time/train_s": 2.0, "finished": False, **metrics}
    return Epoch(number, epoch, 1000.0 + epoch, told)


def new_study(*trials: tuple[TrialState, dict[str, Any]]) -> optuna.Study:
    """A study with one trial for each state and its searched parameters."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for state, params in trials:
        if state == TrialState.WAITING:
            study.enqueue_trial({})
            continue
        trial = study.ask()
        if params:
            trial.set_user_attr(PARAMS_ATTR, params)
            trial.set_user_attr(RAY_IDS_ATTR, [f"ray-{trial.number}"])
        if state != TrialState.RUNNING:
            study.tell(trial, 0.5 if state == TrialState.COMPLETE else None, state=state)
    return study


def tables_of(study: optuna.Study, events: Sequence[Event], mode: Mode = "max") -> Tables:
    lives = with_study(lives_of(events), study.trials)
    return build_tables(lives.values(), Objective(METRIC, mode))


def test_a_trial_is_worth_its_best_epoch_not_its_last() -> None:
    study = new_study((TrialState.COMPLETE, {"optimizer.lr": 0.1}))
    events = [epoch(0, 1, 0.2), epoch(0, 2, 0.72, **{"val/dice": 0.8}), epoch(0, 3, 0.18, **{"val/dice": 0.3})]
    (row,) = tables_of(study, events).trials
    assert (row["value"], row["best_epoch"], row["epochs"]) == (0.72, 2, 3)
    assert (row[METRIC], row["val/dice"], row["train/loss"]) == (0.72, 0.8, 0.5)
    assert row["train_s"] == 6.0
    assert row["param/optimizer.lr"] == 0.1
    assert (row["number"], row["state"], row["error"], row["ray_trial_ids"]) == (0, "complete", None, ["ray-0"])
    assert row["started"] <= row["ended"]


def test_of_equal_epochs_the_earlier_counts() -> None:
    study = new_study((TrialState.COMPLETE, {}))
    (row,) = tables_of(study, [epoch(0, 1, 0.2), epoch(0, 2, 0.7), epoch(0, 3, 0.7)]).trials
    assert row["best_epoch"] == 2


def test_in_mode_min_the_lowest_is_the_best() -> None:
    study = new_study((TrialState.COMPLETE, {}), (TrialState.COMPLETE, {}))
    events = [epoch(0, 1, 0.5), epoch(0, 2, 0.2), epoch(0, 3, 0.2), epoch(1, 1, 0.3)]
    rows = tables_of(study, events, mode="min").trials
    assert [(row["value"], row["best_epoch"]) for row in rows] == [(0.2, 2), (0.3, 1)]


def test_every_state_has_its_word_and_a_waiting_trial_no_row() -> None:
    study = new_study(
        (TrialState.COMPLETE, {}), (TrialState.PRUNED, {}), (TrialState.FAIL, {}), (TrialState.RUNNING, {}),
        (TrialState.WAITING, {}),
    )  # fmt: skip
    rows = tables_of(study, []).trials
    assert [row["state"] for row in rows] == ["complete", "pruned", "failed", "running"]
    assert [row["value"] for row in rows] == [None] * 4
    assert [row["ended"] is None for row in rows] == [False, False, False, True]


def test_a_failed_trial_says_why_and_only_a_failed_one() -> None:
    study = new_study((TrialState.FAIL, {}), (TrialState.COMPLETE, {}))
    events = [
        Error(0, 1.0, "out of memory", "tried to allocate 2 GiB"),
        Error(1, 1.0, "ActorDiedError", "in an earlier session"),
    ]
    rows = tables_of(study, events).trials
    assert [row["error"] for row in rows] == ["out of memory: tried to allocate 2 GiB", None]


def test_an_epoch_that_was_trained_again_has_one_row() -> None:
    study = new_study((TrialState.COMPLETE, {}))
    tables = tables_of(study, [epoch(0, 1, 0.2), epoch(0, 2, 0.9), epoch(0, 2, 0.3)])
    assert [(row["epoch"], row[METRIC]) for row in tables.epochs] == [(1, 0.2), (2, 0.3)]
    assert tables.trials[0]["value"] == 0.3
    assert tables.trials[0]["train_s"] == 4.0


def test_an_epoch_row_holds_the_numbers_of_its_report() -> None:
    study = new_study((TrialState.COMPLETE, {}))
    (row,) = tables_of(study, [epoch(0, 1, 0.2, best_epoch=1, finished=True, note="text")]).epochs
    assert row == {
        "number": 0, "epoch": 1, "time": 1001.0, METRIC: 0.2, "train/loss": 1.0, "lr": 0.1, "time/train_s": 2.0
    }  # fmt: skip


def test_with_a_second_metric_each_trial_has_its_cost_and_a_word_on_the_front() -> None:
    """The cost is the one that the trial was judged by, not that of its best epoch."""
    study = new_study(*[(TrialState.RUNNING, {"optimizer.lr": 0.1})] * 4)
    for number, cost in ((0, 9.0), (1, 3.0), (2, 2.0)):
        set_attr(study, number, COST_ATTR, cost)
    study.tell(2, state=TrialState.FAIL)
    latency = "cost/latency_ms"
    events = [
        epoch(0, 1, 0.2, **{latency: 9.0}),
        epoch(0, 2, 0.9, **{latency: 1.0}),
        epoch(1, 1, 0.5),
        epoch(2, 1, 0.7),
    ]
    lives = with_study(lives_of(events), study.trials)
    rows = build_tables(lives.values(), Objective(METRIC, second=latency)).trials
    assert [row[latency] for row in rows] == [9.0, 3.0, 2.0, None]
    assert [row["pareto"] for row in rows] == [True, True, False, False]


def test_without_a_second_metric_a_cost_is_a_column_and_there_is_no_front() -> None:
    study = new_study((TrialState.COMPLETE, {}))
    (row,) = tables_of(study, [epoch(0, 1, 0.2, **{"cost/parameters": 120})]).trials
    assert row["cost/parameters"] == 120
    assert "pareto" not in row


def write_and_read(tmp_path: Path, tables: Tables) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    write_tables(tables, tmp_path / "trials.parquet", tmp_path / "epochs.parquet")
    return read_table(tmp_path / "trials.parquet"), read_table(tmp_path / "epochs.parquet")


def test_tables_come_back_from_parquet(tmp_path: Path) -> None:
    study = new_study(
        (TrialState.COMPLETE, {"optimizer.lr": 0.1, "lr_scheduler.name": "plateau", "lr_scheduler.patience": 3}),
        (TrialState.PRUNED, {"optimizer.lr": 0.2, "lr_scheduler.name": "cosine"}),
        (TrialState.FAIL, {}),
    )
    tables = tables_of(study, [epoch(0, 1, 0.2), epoch(1, 1, 0.3, **{"val/dice": 0.4})])
    trials, epochs = write_and_read(tmp_path, tables)
    columns = list(dict.fromkeys(key for row in tables.trials for key in row))
    assert list(trials[0]) == columns
    assert trials == [{key: row.get(key) for key in columns} for row in tables.trials]
    assert trials[0]["param/lr_scheduler.patience"] == 3
    assert trials[1]["param/lr_scheduler.patience"] is None
    assert epochs[0]["val/dice"] is None
    assert epochs[1]["val/dice"] == 0.4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epochs.parquet", "trials.parquet"]


def test_a_parameter_of_several_types_has_a_column(tmp_path: Path) -> None:
    values: list[Any] = ["auto", 0.25, None]
    study = new_study(*((TrialState.COMPLETE, {"threshold": value, "other": 1}) for value in values))
    trials, _ = write_and_read(tmp_path, tables_of(study, []))
    assert [row["param/threshold"] for row in trials] == ["auto", "0.25", None]


def test_whole_and_broken_numbers_are_numbers(tmp_path: Path) -> None:
    study = new_study(*((TrialState.COMPLETE, {"loss.dice": value}) for value in (0, 0.5, 1)))
    trials, _ = write_and_read(tmp_path, tables_of(study, []))
    assert [row["param/loss.dice"] for row in trials] == [0.0, 0.5, 1.0]


def test_lists_and_switches_as_parameters(tmp_path: Path) -> None:
    values = [{"model.decoder_channels": [64, 32], "augment.vertical_flip": True}, {"augment.vertical_flip": False}]
    study = new_study(*((TrialState.COMPLETE, value) for value in values))
    trials, _ = write_and_read(tmp_path, tables_of(study, []))
    assert [row["param/model.decoder_channels"] for row in trials] == [[64, 32], None]
    assert [row["param/augment.vertical_flip"] for row in trials] == [True, False]


def test_values_that_are_no_numbers_come_back(tmp_path: Path) -> None:
    study = new_study((TrialState.COMPLETE, {}))
    _, epochs = write_and_read(tmp_path, tables_of(study, [epoch(0, 1, 0.2, **{"val/loss": float("nan")})]))
    assert math.isnan(epochs[0]["val/loss"])


def test_empty_tables_are_files_too(tmp_path: Path) -> None:
    assert write_and_read(tmp_path, Tables([], [])) == ([], [])


def test_a_run_without_a_study_has_its_epochs(tmp_path: Path) -> None:
    write_epochs([epoch(0, 2, 0.3), epoch(0, 1, 0.2)], tmp_path / "epochs.parquet")
    assert [(row["epoch"], row[METRIC]) for row in read_table(tmp_path / "epochs.parquet")] == [(1, 0.2), (2, 0.3)]


def test_a_failed_write_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_epochs([epoch(0, 1, 0.2)], tmp_path / "epochs.parquet")

    def full_disk(table: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_epochs([epoch(0, 1, 0.9)], tmp_path / "epochs.parquet")
    assert read_table(tmp_path / "epochs.parquet")[0][METRIC] == 0.2
