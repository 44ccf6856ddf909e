"""Trials that a W&B callback is told of as Ray tells it, and what their runs have to hold."""

import logging
import math
from pathlib import Path

import pytest
from specs import new_spec

from search.tracking.wandb import (
    WandbCallback,
    trial_config,
)
from search.tracking.wandb_run import Destination
from segcore.config import TrainConfig
from segcore.objective import Objective

NUM_EPOCHS = 5


class TrackedTrial:
    """Stands in for Ray's trial: what the callback reads of one."""

    def __init__(self, number, error_file=None):
        self.trial_id = f"ray{number}"
        train = TrainConfig.model_validate({"optimizer": {"lr": 0.1 * number + 0.1}})
        self.config = new_spec(number, train).to_ray()
        self.last_result = {}
        self.error_file = error_file

    def __str__(self):
        return f"trial_{self.config['number']:05d}"


def report_epoch(callback, trial, epoch, num_epochs=NUM_EPOCHS):
    """One epoch's report; the last one says that the trial is finished."""
    value = 0.1 * epoch + 0.01 * trial.config["number"]
    trial.last_result = {
        "number": trial.config["number"], "epoch": epoch, "val/iou": value, "val/loss": math.nan,
        "train/loss": 1 / epoch, "lr": 0.1,
        "finished": epoch == num_epochs, "time_total_s": 3.0, "config": {"a": 1}, "done": False,
    }  # fmt: skip
    callback.on_trial_result(0, [], trial, trial.last_result)


def new_callback(run_dir, config_of=trial_config, **where):
    """A callback for project `p` and group `g` that logs into a folder."""
    return WandbCallback(Destination("p", "g", Path(run_dir), **where), Objective("val/iou"), config_of=config_of)


def with_a_secret(trial):
    """A trial's config with a token that may not be logged."""
    return {**trial_config(trial), "token": "hidden"}


def drive_six(callback, trials, error_file, between=lambda epoch: None):
    """Six trials side by side: 0-2 complete, 3 and 4 stopped after 2 epochs, 5 fails after 3."""
    callback.setup()
    last = dict.fromkeys(range(6), NUM_EPOCHS) | {3: 2, 4: 2, 5: 3}
    for trial in trials:
        callback.on_trial_start(0, trials, trial)
    for epoch in range(1, NUM_EPOCHS + 1):
        between(epoch)
        for number, trial in enumerate(trials):
            if epoch <= last[number]:
                report_epoch(callback, trial, epoch)
            if epoch == last[number] and number == 5:
                trial.error_file = str(error_file)
                callback.on_trial_error(0, trials, trial)
            elif epoch == last[number]:
                callback.on_trial_complete(0, trials, trial)
    callback.on_experiment_end(trials)
    return {f"trial_{number:05d}": epochs for number, epochs in last.items()}


def warnings_of(caplog):
    """What was warned of under our own logger's name."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name == "segsearch"
    ]


def check_six(runs, expected):
    """The same of a log file and of the server: rows equal reports, states and exit codes as they were."""
    assert {name: [row["_step"] for row in run.epochs] for name, run in runs.items()} == {
        name: list(range(1, epochs + 1)) for name, epochs in expected.items()
    }
    assert [runs[name].exit_code for name in sorted(runs)] == [0, 0, 0, 0, 0, 1]
    states = [runs[name].summary["state"] for name in sorted(runs)]
    assert states == ["COMPLETE"] * 3 + ["PRUNED"] * 2 + ["FAIL"]
    assert {run.group for run in runs.values()} == {"g"}
    first = runs["trial_00001"].epochs[0]
    assert first["val/iou"] == pytest.approx(0.11)
    assert {key for key in first if not key.startswith("_")} == {"epoch", "val/iou", "train/loss", "lr"}
    assert runs["trial_00005"].summary["error"] == "NonFiniteLossError: loss is nan in epoch 3"
    assert "token" not in runs["trial_00001"].config
