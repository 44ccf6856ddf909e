import json
import logging
import math
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from places import ROOT
from servers.wandb_logs import read_logs
from servers.wandb_server import API_KEY, WandbServer
from specs import new_spec

from search.tracking.wandb import (
    WandbCallback,
    log_run_summary,
    metrics_of,
    public,
    trial_config,
)
from search.tracking.wandb_run import Destination
from segcore.config import TrainConfig
from segcore.objective import Objective

NUM_EPOCHS = 5


@pytest.fixture(autouse=True)
def _only_loopback(tmp_path, monkeypatch):
    """No settings or key of this machine, and no address but 127.0.0.1."""
    home = tmp_path / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    paths = {"HOME": home, "NETRC": home / "netrc", "WANDB_CONFIG_DIR": home / "config"}
    paths |= {"WANDB_CACHE_DIR": home / "cache", "WANDB_DATA_DIR": home / "data"}
    for name, path in paths.items():
        monkeypatch.setenv(name, str(path))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.chdir(home)
    monkeypatch.setattr("search.tracking.wandb_run.FINISH_TIMEOUT_S", 3.0)
    monkeypatch.setattr("search.tracking.wandb_run.INIT_TIMEOUT_S", 3.0)
    monkeypatch.setattr("search.tracking.wandb_run.ASK_TIMEOUT_S", 1.0)
    monkeypatch.setattr("search.tracking.wandb_log.ASK_TIMEOUT_S", 1.0)


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "results" / "horses"


@pytest.fixture
def online(monkeypatch):
    """Points wandb at a server, with its key."""

    def use(server):
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)

    return use


class _Trial:
    """Stands in for Ray's trial: what the callback reads of one."""

    def __init__(self, number, error_file=None):
        self.trial_id = f"ray{number}"
        train = TrainConfig.model_validate({"optimizer": {"lr": 0.1 * number + 0.1}})
        self.config = new_spec(number, train).to_ray()
        self.last_result = {}
        self.error_file = error_file

    def __str__(self):
        return f"trial_{self.config['number']:05d}"


@pytest.fixture
def leave_checkpoint(run_dir):
    """Writes what a trial leaves in the run's folder, and returns where."""

    def leave(number):
        folder = run_dir / "tune" / "session-1" / f"trial_{number:05d}" / "checkpoint_000003"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        np.savez(
            folder / "overlays.npz",
            images=rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8),
            targets=rng.integers(0, 2, (2, 16, 16), dtype=np.uint8),
            probs=rng.random((2, 16, 16)).astype(np.float16),
            threshold=np.float64(0.5),
        )
        (folder / "curve.json").write_text(json.dumps({"threshold": [0.0, 0.5, 1.0], "iou": [0.1, 0.8, 0.0]}))
        (folder / "best.json").write_text(json.dumps({"epoch": 3, "metrics": {"val/iou": 0.93}}))
        return folder

    return leave


def _report(callback, trial, epoch, num_epochs=NUM_EPOCHS):
    value = 0.1 * epoch + 0.01 * trial.config["number"]
    trial.last_result = {
        "number": trial.config["number"], "epoch": epoch, "val/iou": value, "val/loss": math.nan,
        "train/loss": 1 / epoch, "lr": 0.1,
        "finished": epoch == num_epochs, "time_total_s": 3.0, "config": {"a": 1}, "done": False,
    }  # fmt: skip
    callback.on_trial_result(0, [], trial, trial.last_result)


def new_callback(run_dir, config_of=trial_config, **where):
    return WandbCallback(Destination("p", "g", Path(run_dir), **where), Objective("val/iou"), config_of=config_of)


def _with_a_secret(trial):
    return {**trial_config(trial), "token": "hidden"}


def _drive(callback, trials, error_file, between=lambda epoch: None):
    """Six trials side by side: 0-2 complete, 3 and 4 stopped after 2 epochs, 5 fails after 3."""
    callback.setup()
    last = dict.fromkeys(range(6), NUM_EPOCHS) | {3: 2, 4: 2, 5: 3}
    for trial in trials:
        callback.on_trial_start(0, trials, trial)
    for epoch in range(1, NUM_EPOCHS + 1):
        between(epoch)
        for number, trial in enumerate(trials):
            if epoch <= last[number]:
                _report(callback, trial, epoch)
            if epoch == last[number] and number == 5:
                trial.error_file = str(error_file)
                callback.on_trial_error(0, trials, trial)
            elif epoch == last[number]:
                callback.on_trial_complete(0, trials, trial)
    callback.on_experiment_end(trials)
    return {f"trial_{number:05d}": epochs for number, epochs in last.items()}


@pytest.fixture
def error_file(tmp_path):
    path = tmp_path / "error.txt"
    path.write_text(
        "Traceback (most recent call last):\n  x\nsegcore.errors.NonFiniteLossError: loss is nan in epoch 3\n"
    )
    return path


def _warnings(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name == "segsearch"
    ]


def _check_six(runs, expected):
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


def test_offline_log_holds_every_report(run_dir, error_file, leave_checkpoint, caplog):
    caplog.set_level(logging.INFO, "segsearch")
    leave_checkpoint(1)
    leave_checkpoint(2)
    trials = [_Trial(number) for number in range(6)]
    expected = _drive(new_callback(run_dir, tags=("x",), config_of=_with_a_secret), trials, error_file)
    runs = read_logs(run_dir)
    _check_six(runs, expected)
    assert runs["trial_00001"].tags == ["x"]
    assert runs["trial_00001"].summary["best/val/iou"] == pytest.approx(0.93)
    assert runs["trial_00001"].summary["best/epoch"] == 3
    assert runs["trial_00000"].summary["best/epoch"] == NUM_EPOCHS
    curve = [row for row in runs["trial_00001"].rows if "curve/iou" in row]
    assert [row["curve/threshold"] for row in curve] == [0.0, 0.5, 1.0]
    (shown,) = [row for row in runs["trial_00002"].rows if "overlays/count" in row]
    assert shown["overlays/count"] == 2
    assert set(shown["overlays/all_masks"][0]) == {"prediction", "target"}
    assert _warnings(caplog) == []
    assert "6 W&B runs are on this disk only" in caplog.text
    assert f"cd {run_dir} && wandb sync --yes" in caplog.text


def test_only_the_best_trial_so_far_shows_overlays(run_dir, leave_checkpoint):
    callback = new_callback(run_dir)
    callback.setup()
    for number, epoch in ((0, 3), (1, 2), (2, 4)):
        leave_checkpoint(number)
        trial = _Trial(number)
        _report(callback, trial, epoch)
        callback.on_trial_complete(0, [], trial)
    callback.on_experiment_end([])
    shown = {name: any("overlays/count" in row for row in run.rows) for name, run in read_logs(run_dir).items()}
    assert shown == {"trial_00000": True, "trial_00001": False, "trial_00002": True}


def test_the_server_has_every_report(run_dir, error_file, leave_checkpoint, online, caplog):
    caplog.set_level(logging.INFO, "segsearch")
    leave_checkpoint(1)
    with WandbServer() as server:
        online(server)
        callback = new_callback(run_dir, tags=("x",), config_of=_with_a_secret)
        expected = _drive(callback, [_Trial(number) for number in range(6)], error_file)
        _check_six({run.display_name: run for run in server.runs.values()}, expected)
        sent = {run.display_name: run for run in server.runs.values()}
    assert all(run.complete and run.tags == ["x"] and run.project == "p" for run in sent.values())
    assert any(name.endswith(".png") for name in sent["trial_00001"].files)
    assert _warnings(caplog) == []
    assert "on this disk only" not in caplog.text
    for path in run_dir.rglob("*"):
        assert not path.is_file() or API_KEY.encode() not in path.read_bytes(), path
    assert API_KEY not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["dead", "unauthorized", "silent", "error"])
def test_a_useless_server_means_offline_with_one_warning(run_dir, error_file, online, caplog, fault):
    with WandbServer("none" if fault == "dead" else fault) as server:
        online(server)
        if fault == "dead":
            server.kill()
        started = time.monotonic()
        expected = _drive(new_callback(run_dir), [_Trial(n) for n in range(6)], error_file)
        assert time.monotonic() - started < 20
        assert server.runs == {}
    _check_six(read_logs(run_dir), expected)
    assert len(_warnings(caplog)) == 1
    reason = {"dead": "cannot be reached", "unauthorized": "refuses the API key", "silent": "does not answer"}
    assert reason.get(fault, "answers HTTP 500") in _warnings(caplog)[0]
    assert "can be sent later" in _warnings(caplog)[0]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["dies", "silent", "unauthorized"])
def test_a_server_that_fails_midway_loses_no_row(run_dir, error_file, online, caplog, fault):
    caplog.set_level(logging.INFO, "segsearch")
    with WandbServer() as server:
        online(server)
        slowest = 0.0

        def between(epoch):
            if epoch == 3:
                server.wait_for_runs(6)
                if fault == "dies":
                    server.kill()
                else:
                    server.fault = fault

        callback = new_callback(run_dir)
        report = callback.on_trial_result

        def timed(*args):
            nonlocal slowest
            started = time.monotonic()
            report(*args)
            slowest = max(slowest, time.monotonic() - started)

        callback.on_trial_result = timed
        started = time.monotonic()
        expected = _drive(callback, [_Trial(number) for number in range(6)], error_file, between)
        assert time.monotonic() - started < 45
    _check_six(read_logs(run_dir), expected)
    assert slowest < 0.2
    assert len(_warnings(caplog)) == 1
    assert "wandb sync --yes --include-online" in caplog.text


@pytest.mark.slow
def test_sync_sends_what_a_dead_server_missed(run_dir, error_file, online):
    with WandbServer("error") as server:
        online(server)
        expected = _drive(new_callback(run_dir), [_Trial(n) for n in range(6)], error_file)
        server.fault = "none"
        command = [sys.executable, "-m", "wandb", "sync", "--yes"]
        subprocess.run(command, cwd=run_dir, check=True, capture_output=True, timeout=60)
        _check_six({run.display_name: run for run in server.runs.values()}, expected)


def test_a_resumed_trial_goes_on_with_its_run(run_dir, online):
    with WandbServer() as server:
        online(server)
        for epochs in (range(1, 4), range(3, 6)):  # the second session trains epoch 3 again
            callback = new_callback(run_dir)
            callback.setup()
            trial = _Trial(7)
            callback.on_trial_start(0, [], trial)
            for epoch in epochs:
                _report(callback, trial, epoch)
            if epoch == NUM_EPOCHS:
                callback.on_trial_complete(0, [], trial)
            callback.on_experiment_end([])
        (run,) = server.runs.values()
    assert [row["epoch"] for row in run.rows] == [1, 2, 3, 4, 5]
    assert run.summary["state"] == "COMPLETE"
    assert run.exit_code == 0


def test_an_open_trial_ends_as_interrupted(run_dir):
    callback = new_callback(run_dir)
    callback.setup()
    _report(callback, _Trial(0), 1)
    callback.on_experiment_end([])
    (run,) = read_logs(run_dir).values()
    assert (run.summary["state"], run.exit_code) == ("INTERRUPTED", 130)


def test_a_new_run_of_an_old_name_is_another_run(run_dir, tmp_path):
    for folder in (run_dir, tmp_path / "elsewhere" / "horses"):
        log_run_summary(Destination("p", "g", folder, "offline"), {"val": {"iou": 0.9, "bad": math.nan}})
    first, second = (read_logs(folder)["g summary"] for folder in (run_dir, tmp_path / "elsewhere" / "horses"))
    assert first.run_id != second.run_id
    assert first.run_id.startswith("horses-")
    assert first.job_type == "summary"
    assert first.summary["val/iou"] == 0.9
    assert "val/bad" not in first.summary


@pytest.mark.parametrize(("variable", "logs"), [("offline", 1), ("disabled", 0)])
def test_auto_follows_wandb_mode(run_dir, online, monkeypatch, caplog, variable, logs):
    with WandbServer() as server:
        online(server)
        monkeypatch.setenv("WANDB_MODE", variable)
        callback = new_callback(run_dir)
        callback.setup()
        _report(callback, _Trial(0), 1)
        callback.on_experiment_end([])
        assert server.operations == []
    assert len(read_logs(run_dir)) == logs
    assert _warnings(caplog) == []


def test_online_without_a_key_warns_and_never_asks(run_dir, caplog):
    callback = new_callback(run_dir, mode="online")
    callback.setup()
    _report(callback, _Trial(0), 1)
    callback.on_experiment_end([])
    assert len(read_logs(run_dir)) == 1
    assert len(_warnings(caplog)) == 1
    assert "no W&B API key" in _warnings(caplog)[0]


def test_a_key_in_netrc_counts(run_dir, tmp_path, monkeypatch):
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        Path(os.environ["NETRC"]).write_text(f"machine 127.0.0.1:{server.port}\n  login user\n  password {API_KEY}\n")
        callback = new_callback(run_dir)
        callback.setup()
        _report(callback, _Trial(0), 1)
        callback.on_experiment_end([])
        assert [len(run.epochs) for run in server.runs.values()] == [1]


def test_tracking_errors_stay_out_of_the_search(run_dir, caplog):
    def broken(trial):
        raise RuntimeError("no config for you")

    callback = new_callback(run_dir, config_of=broken)
    callback.setup()
    callback.on_trial_start(0, [], _Trial(0))
    callback.on_experiment_end([])
    assert "no config for you" in caplog.text


def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path, caplog):
    blocker = tmp_path / "file"
    blocker.write_text("")
    callback = new_callback(blocker / "run")
    callback.setup()
    _report(callback, _Trial(0), 1)
    callback.on_experiment_end([])
    assert len(_warnings(caplog)) == 1


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


_DRIVER = """
import signal, sys, time, logging
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
logging.basicConfig(level=logging.INFO)
sys.path[:0] = [{root!r}, {tests!r}, {here!r}]
from test_wandb import new_callback, _Trial, _report
if __name__ == "__main__":
    callback = new_callback({run_dir!r})
    callback.setup()
    trial = _Trial(0)
    for epoch in range(1, 4):
        _report(callback, trial, epoch)
    time.sleep(2.5)
    print("ready", flush=True)
    {rest}
"""


def _start_driver(run_dir, rest):
    code = _DRIVER.format(
        root=str(ROOT),
        tests=str(ROOT / "tests" / "support"),
        here=str(Path(__file__).parent),
        run_dir=str(run_dir),
        rest=rest,
    )
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.slow
def test_an_impatient_interrupt_ends_at_once_though_the_server_hangs(run_dir, online):
    with WandbServer() as server:
        online(server)
        process = _start_driver(run_dir, "callback.on_experiment_end([])")
        server.fault = "silent"
        time.sleep(1.5)  # until it waits for the server
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0  # a patient end takes 30 s
    assert [len(run.epochs) for run in read_logs(run_dir).values()] == [3]


@pytest.mark.slow
def test_a_driver_that_just_exits_is_bounded_and_loses_nothing(run_dir, online):
    with WandbServer() as server:
        online(server)
        process = _start_driver(run_dir, "pass")
        assert process.wait(30) == 0
        assert [len(run.epochs) for run in server.runs.values()] == [3]


@pytest.mark.slow
def test_kill_9_leaves_the_rows_on_disk(run_dir):
    process = _start_driver(run_dir, "time.sleep(60)")
    process.kill()
    process.wait(10)
    assert [len(run.epochs) for run in read_logs(run_dir).values()] == [3]


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


def test_a_damaged_checkpoint_costs_only_its_pictures(run_dir, leave_checkpoint, caplog):
    (leave_checkpoint(0) / "overlays.npz").write_bytes(b"PK")
    callback = new_callback(run_dir)
    callback.setup()
    trial = _Trial(0)
    _report(callback, trial, NUM_EPOCHS)
    callback.on_trial_complete(0, [], trial)
    callback.on_experiment_end([])
    (run,) = read_logs(run_dir).values()
    assert (len(run.epochs), run.summary["state"], run.exit_code) == (1, "COMPLETE", 0)
    assert _warnings(caplog) == []


def test_a_trial_that_waits_at_a_rung_has_one_run_however_often_it_goes_on(run_dir):
    callback = new_callback(run_dir)
    callback.setup()
    first, other = _Trial(0), _Trial(1)
    for trial in (first, other):
        callback.on_trial_start(0, [], trial)
        _report(callback, trial, 1)
        trial.last_result["waiting"] = True
        callback.on_trial_complete(0, [], trial)
    again = _Trial(0)
    again.trial_id = "ray-another"  # for Ray, each stay between two rungs is a trial
    callback.on_trial_start(0, [], again)
    for epoch in (2, 3, 4, 5):
        _report(callback, again, epoch)
    callback.on_trial_complete(0, [], again)
    callback.on_experiment_end([])
    runs = read_logs(run_dir)
    assert {name: [row["_step"] for row in run.epochs] for name, run in runs.items()} == {
        "trial_00000": [1, 2, 3, 4, 5], "trial_00001": [1],
    }  # fmt: skip
    assert {name: run.summary["state"] for name, run in runs.items()} == {
        "trial_00000": "COMPLETE", "trial_00001": "PRUNED",
    }  # fmt: skip
    assert len(list((run_dir / "wandb").glob("offline-run-*"))) == 2
