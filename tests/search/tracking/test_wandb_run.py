"""One trial's run: resumed, waiting, interrupted, killed."""

import math
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from places import ROOT
from servers.wandb_logs import read_logs
from servers.wandb_server import WandbServer
from wandb_trials import NUM_EPOCHS, TrackedTrial, new_callback, report_epoch, warnings_of

from search.tracking.wandb import (
    log_run_summary,
)
from search.tracking.wandb_run import Destination


def test_a_resumed_trial_goes_on_with_its_run(run_dir, online):
    with WandbServer() as server:
        online(server)
        for epochs in (range(1, 4), range(3, 6)):  # the second session trains epoch 3 again
            callback = new_callback(run_dir)
            callback.setup()
            trial = TrackedTrial(7)
            callback.on_trial_start(0, [], trial)
            for epoch in epochs:
                report_epoch(callback, trial, epoch)
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
    report_epoch(callback, TrackedTrial(0), 1)
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


def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path, caplog):
    blocker = tmp_path / "file"
    blocker.write_text("")
    callback = new_callback(blocker / "run")
    callback.setup()
    report_epoch(callback, TrackedTrial(0), 1)
    callback.on_experiment_end([])
    assert len(warnings_of(caplog)) == 1


_DRIVER = """
import signal, sys, time, logging
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
logging.basicConfig(level=logging.INFO)
sys.path[:0] = [{root!r}, {tests!r}]
from wandb_trials import new_callback, TrackedTrial, report_epoch
if __name__ == "__main__":
    callback = new_callback({run_dir!r})
    callback.setup()
    trial = TrackedTrial(0)
    for epoch in range(1, 4):
        report_epoch(callback, trial, epoch)
    print("ready", flush=True)
    {rest}
"""


def _start_driver(run_dir, rest):
    code = _DRIVER.format(
        root=str(ROOT),
        tests=str(ROOT / "tests" / "support"),
        run_dir=str(run_dir),
        rest=rest,
    )
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def _await_rows(run_dir):
    """Until the log file has all three rows, or a minute is over: wandb's own process writes them in time."""
    deadline = time.monotonic() + 60
    while [len(run.epochs) for run in read_logs(run_dir).values()] != [3] and time.monotonic() < deadline:
        time.sleep(0.1)


@pytest.mark.slow
def test_an_impatient_interrupt_ends_at_once_though_the_server_hangs(run_dir, online):
    with WandbServer() as server:
        online(server)
        process = _start_driver(run_dir, "sys.stdin.readline(); callback.on_experiment_end([])")
        _await_rows(run_dir)
        server.fault = "silent"
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(1.5)  # until it waits for the server
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0  # a patient end takes 30 s
    assert [len(run.epochs) for run in read_logs(run_dir).values()] == [3]


@pytest.mark.slow
def test_a_driver_that_just_exits_is_bounded_and_loses_nothing(run_dir, online):
    with WandbServer() as server:
        online(server)
        process = _start_driver(run_dir, "sys.stdin.readline()")
        _await_rows(run_dir)
        process.stdin.close()
        assert process.wait(30) == 0
        assert [len(run.epochs) for run in server.runs.values()] == [3]


@pytest.mark.slow
def test_kill_9_leaves_the_rows_on_disk(run_dir):
    process = _start_driver(run_dir, "time.sleep(300)")
    _await_rows(run_dir)  # without an end, and without any word to the process
    assert process.poll() is None
    process.kill()
    process.wait(10)
    assert [len(run.epochs) for run in read_logs(run_dir).values()] == [3]


def test_a_damaged_checkpoint_costs_only_its_pictures(run_dir, leave_checkpoint, caplog):
    (leave_checkpoint(0) / "overlays.npz").write_bytes(b"PK")
    callback = new_callback(run_dir)
    callback.setup()
    trial = TrackedTrial(0)
    report_epoch(callback, trial, NUM_EPOCHS)
    callback.on_trial_complete(0, [], trial)
    callback.on_experiment_end([])
    (run,) = read_logs(run_dir).values()
    assert (len(run.epochs), run.summary["state"], run.exit_code) == (1, "COMPLETE", 0)
    assert warnings_of(caplog) == []


def test_a_trial_that_waits_at_a_rung_has_one_run_however_often_it_goes_on(run_dir):
    callback = new_callback(run_dir)
    callback.setup()
    first, other = TrackedTrial(0), TrackedTrial(1)
    for trial in (first, other):
        callback.on_trial_start(0, [], trial)
        report_epoch(callback, trial, 1)
        trial.last_result["waiting"] = True
        callback.on_trial_complete(0, [], trial)
    again = TrackedTrial(0)
    again.trial_id = "ray-another"  # for Ray, each stay between two rungs is a trial
    callback.on_trial_start(0, [], again)
    for epoch in (2, 3, 4, 5):
        report_epoch(callback, again, epoch)
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
