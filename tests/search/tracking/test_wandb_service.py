"""Which server and key are used, and what happens where they fail."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers.wandb_logs import read_logs
from servers.wandb_server import API_KEY, WandbServer
from wandb_trials import TrackedTrial, check_six, drive_six, new_callback, report_epoch, warnings_of


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["dead", "unauthorized", "silent", "error"])
def test_a_useless_server_means_offline_with_one_warning(run_dir, error_file, online, caplog, fault):
    with WandbServer("none" if fault == "dead" else fault) as server:
        online(server)
        if fault == "dead":
            server.kill()
        started = time.monotonic()
        expected = drive_six(new_callback(run_dir), [TrackedTrial(n) for n in range(6)], error_file)
        assert time.monotonic() - started < 20
        assert server.runs == {}
    check_six(read_logs(run_dir), expected)
    assert len(warnings_of(caplog)) == 1
    reason = {"dead": "cannot be reached", "unauthorized": "refuses the API key", "silent": "does not answer"}
    assert reason.get(fault, "answers HTTP 500") in warnings_of(caplog)[0]
    assert "can be sent later" in warnings_of(caplog)[0]


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
        expected = drive_six(callback, [TrackedTrial(number) for number in range(6)], error_file, between)
        assert time.monotonic() - started < 45
    check_six(read_logs(run_dir), expected)
    assert slowest < 0.2
    assert len(warnings_of(caplog)) == 1
    assert "wandb sync --yes --include-online" in caplog.text


@pytest.mark.slow
def test_sync_sends_what_a_dead_server_missed(run_dir, error_file, online):
    with WandbServer("error") as server:
        online(server)
        expected = drive_six(new_callback(run_dir), [TrackedTrial(n) for n in range(6)], error_file)
        server.fault = "none"
        command = [sys.executable, "-m", "wandb", "sync", "--yes"]
        subprocess.run(command, cwd=run_dir, check=True, capture_output=True, timeout=60)
        check_six({run.display_name: run for run in server.runs.values()}, expected)


@pytest.mark.parametrize(("variable", "logs"), [("offline", 1), ("disabled", 0)])
def test_auto_follows_wandb_mode(run_dir, online, monkeypatch, caplog, variable, logs):
    with WandbServer() as server:
        online(server)
        monkeypatch.setenv("WANDB_MODE", variable)
        callback = new_callback(run_dir)
        callback.setup()
        report_epoch(callback, TrackedTrial(0), 1)
        callback.on_experiment_end([])
        assert server.operations == []
    assert len(read_logs(run_dir)) == logs
    assert warnings_of(caplog) == []


def test_online_without_a_key_warns_and_never_asks(run_dir, caplog):
    callback = new_callback(run_dir, mode="online")
    callback.setup()
    report_epoch(callback, TrackedTrial(0), 1)
    callback.on_experiment_end([])
    assert len(read_logs(run_dir)) == 1
    assert len(warnings_of(caplog)) == 1
    assert "no W&B API key" in warnings_of(caplog)[0]


def test_a_key_in_netrc_counts(run_dir, tmp_path, monkeypatch):
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        Path(os.environ["NETRC"]).write_text(f"machine 127.0.0.1:{server.port}\n  login user\n  password {API_KEY}\n")
        callback = new_callback(run_dir)
        callback.setup()
        report_epoch(callback, TrackedTrial(0), 1)
        callback.on_experiment_end([])
        assert [len(run.epochs) for run in server.runs.values()] == [1]
