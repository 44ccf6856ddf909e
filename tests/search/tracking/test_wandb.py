"""The callback: every report of every trial, offline and online."""

import logging
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from servers.wandb_logs import read_logs
from servers.wandb_server import API_KEY, WandbServer
from specs import new_spec
from wandb_trials import (
    NUM_EPOCHS,
    TrackedTrial,
    check_six,
    drive_six,
    new_callback,
    report_epoch,
    warnings_of,
    with_a_secret,
)

from search.tracking.wandb import (
    metrics_of,
    public,
)

pytestmark = pytest.mark.slow


def test_offline_log_holds_every_report(run_dir, error_file, leave_checkpoint, caplog):
    caplog.set_level(logging.INFO, "segsearch")
    leave_checkpoint(1)
    leave_checkpoint(2)
    trials = [TrackedTrial(number) for number in range(6)]
    expected = drive_six(new_callback(run_dir, tags=("x",), config_of=with_a_secret), trials, error_file)
    runs = read_logs(run_dir)
    check_six(runs, expected)
    assert runs["trial_00001"].tags == ["x"]
    assert runs["trial_00001"].summary["best/val/iou"] == pytest.approx(0.93)
    assert runs["trial_00001"].summary["best/epoch"] == 3
    assert runs["trial_00000"].summary["best/epoch"] == NUM_EPOCHS
    curve = [row for row in runs["trial_00001"].rows if "curve/iou" in row]
    assert [row["curve/threshold"] for row in curve] == [0.0, 0.5, 1.0]
    (shown,) = [row for row in runs["trial_00002"].rows if "overlays/count" in row]
    assert shown["overlays/count"] == 2
    assert set(shown["overlays/all_masks"][0]) == {"prediction", "target"}
    assert warnings_of(caplog) == []
    assert "6 W&B runs are on this disk only" in caplog.text
    assert f"cd {run_dir} && wandb sync --yes" in caplog.text


def test_only_the_best_trial_so_far_shows_overlays(run_dir, leave_checkpoint):
    callback = new_callback(run_dir)
    callback.setup()
    for number, epoch in ((0, 3), (1, 2), (2, 4)):
        leave_checkpoint(number)
        trial = TrackedTrial(number)
        report_epoch(callback, trial, epoch)
        callback.on_trial_complete(0, [], trial)
    callback.on_experiment_end([])
    shown = {name: any("overlays/count" in row for row in run.rows) for name, run in read_logs(run_dir).items()}
    assert shown == {"trial_00000": True, "trial_00001": False, "trial_00002": True}


def test_the_server_has_every_report(run_dir, error_file, leave_checkpoint, online, caplog):
    caplog.set_level(logging.INFO, "segsearch")
    leave_checkpoint(1)
    with WandbServer() as server:
        online(server)
        callback = new_callback(run_dir, tags=("x",), config_of=with_a_secret)
        expected = drive_six(callback, [TrackedTrial(number) for number in range(6)], error_file)
        check_six({run.display_name: run for run in server.runs.values()}, expected)
        sent = {run.display_name: run for run in server.runs.values()}
    assert all(run.complete and run.tags == ["x"] and run.project == "p" for run in sent.values())
    assert any(name.endswith(".png") for name in sent["trial_00001"].files)
    assert warnings_of(caplog) == []
    assert "on this disk only" not in caplog.text
    for path in run_dir.rglob("*"):
        assert not path.is_file() or API_KEY.encode() not in path.read_bytes(), path
    assert API_KEY not in caplog.text


def test_tracking_errors_stay_out_of_the_search(run_dir, caplog):
    def broken(trial):
        raise RuntimeError("no config for you")

    callback = new_callback(run_dir, config_of=broken)
    callback.setup()
    callback.on_trial_start(0, [], TrackedTrial(0))
    callback.on_experiment_end([])
    assert "no config for you" in caplog.text


def test_it_pickles_while_it_runs(run_dir):
    callback = new_callback(run_dir)
    callback.setup()
    copy = pickle.loads(pickle.dumps(callback))
    copy.on_experiment_end([])
    callback.on_experiment_end([])


def test_secrets_never_reach_a_config(monkeypatch):
    monkeypatch.setenv("YADISK_TOKEN", "y0_secret")
    config = {"a": {"api_key": 1, "note": "uses y0_secret", "paths": (Path("/x"), "y0_secret")}, "wandb_token": "t"}
    assert public(config) == {"a": {"note": "uses [secret]", "paths": ["/x", "[secret]"]}}


def test_metrics_are_the_finite_numbers_with_a_slash_and_the_rate():
    result = {
        "val/iou": np.float32(0.5),
        "val/x": math.inf,
        "lr": 1,
        "done/b": True,
        "time_s": 3,
        "config/a": 1,
        "val/n": "s",
    }
    assert metrics_of(result) == {"val/iou": 0.5, "lr": 1.0}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_real_ray_run_is_tracked(run_dir, tmp_path, monkeypatch):
    from ray import tune

    def train(spec):
        for epoch in range(1, 4):
            if spec["number"] == 1 and epoch == 2:
                raise ValueError("bad trial")
            tune.report(
                {
                    "number": spec["number"],
                    "val/iou": 0.1 * epoch * (1 + spec["number"]),
                    "epoch": epoch,
                    "finished": epoch == 3,
                }
            )

    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    rest = {key: value for key, value in new_spec().to_ray().items() if key != "number"}
    tune.Tuner(
        train,
        param_space={"number": tune.grid_search([0, 1, 2]), **rest},
        tune_config=tune.TuneConfig(trial_name_creator=lambda trial: f"t{trial.config['number']}"),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path / "tune"),
            callbacks=[new_callback(run_dir)],
            stop=lambda trial_id, result: result["val/iou"] > 0.55,
            verbose=0,
        ),
    ).fit()
    runs = read_logs(run_dir)
    assert {name: (len(run.epochs), run.summary["state"], run.exit_code) for name, run in runs.items()} == {
        "t0": (3, "COMPLETE", 0),
        "t1": (1, "FAIL", 1),
        "t2": (2, "PRUNED", 0),
    }
    assert runs["t1"].summary["error"] == "ValueError: bad trial"
