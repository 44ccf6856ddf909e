"""A Ray that does not start, or does not take us in: told once, within a minute."""

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import services

from search.errors import RayStartError, ResourceError
from search.tune.cluster import start as starting
from search.tune.cluster.address import Place
from search.tune.cluster.start import join, ray_folder, require_ray, start

pytestmark = pytest.mark.usefixtures("no_ray")
VERSIONS = """Version mismatch: The cluster was started with:
    Ray: 2.9.3
    Python: 3.10.12
This process on node 10.0.0.7 was started with:
    Ray: 2.60.0
    Python: 3.11.9
"""


class CrowdedRay:
    """`ray.init` as it fails on a crowded machine, a number of times, with raw lines on the process's stderr."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **options: Any) -> str:
        self.calls.append(options)
        os.write(2, b"[rpc_client.h:153] Failed to connect to GCS\n")
        if self.failures:
            raise self.failures.pop(0)
        return "context"


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> CrowdedRay:
    fake = CrowdedRay([])
    monkeypatch.setattr(ray, "init", fake)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(starting, "PAUSES_S", (0.0, 0.0))
    return fake


GCS = RuntimeError("Failed to connect to GCS within 60 seconds.\nSee the logs")
NODE = Exception("The current node timed out during startup.\nThis could happen because ...")


def test_a_start_that_fails_is_tried_again_twice(
    crowded: CrowdedRay, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    crowded.failures = [GCS, NODE]
    assert start() == "context"
    assert len(crowded.calls) == 3
    assert [
        record.getMessage().partition(";")[0] for record in caplog.records if record.levelno >= logging.WARNING
    ] == [
        "Ray did not start (Failed to connect to GCS within 60 seconds)",
        "Ray did not start (The current node timed out during startup)",
    ]
    assert "rpc_client" not in capfd.readouterr().err


def test_a_start_that_fails_slowly_is_not_tried_for_minutes(
    crowded: CrowdedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 29.0, 62.0])
    monkeypatch.setattr(starting, "monotonic", lambda: next(times))
    crowded.failures = [NODE, NODE, NODE]
    with pytest.raises(RayStartError, match="Ray did not start on this machine, tried 2 times: The current node timed"):
        start()


def test_after_three_failures_it_is_said_once(crowded: CrowdedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (64.0, 1.0, 1.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    crowded.failures = [GCS, GCS, GCS, GCS]
    with pytest.raises(RayStartError) as caught:
        start()
    assert len(crowded.calls) == 3
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert message.startswith("Ray did not start on this machine, tried 3 times: Failed to connect to GCS within 60 s")
    assert "the machine is crowded: a load of 64 on 2 cores" in message
    assert "\n" not in message


def test_what_another_attempt_cannot_mend_is_not_tried_again(crowded: CrowdedRay) -> None:
    crowded.failures = [PermissionError(13, "Permission denied")]
    with pytest.raises(RayStartError, match=r"Ray cannot be started on this machine: .*Permission denied"):
        start()
    assert len(crowded.calls) == 1


def test_ctrl_c_is_no_failure_to_start(crowded: CrowdedRay) -> None:
    crowded.failures = [KeyboardInterrupt()]  # type: ignore[list-item]
    with pytest.raises(KeyboardInterrupt):
        start()
    assert len(crowded.calls) == 1


HEAD = Place("10.0.0.1:6379", "RAY_ADDRESS", "10.0.0.1:6379")


@pytest.fixture
def node_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "find_node_ids", lambda: {"ab"})


@pytest.mark.usefixtures("node_here")
def test_a_ray_of_another_version(crowded: CrowdedRay) -> None:
    crowded.failures = [ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")]
    crowded.failures[0].__cause__ = RuntimeError(VERSIONS)
    with pytest.raises(ResourceError) as caught:
        join(HEAD)
    assert str(caught.value).startswith(
        "Ray cannot be reached at 10.0.0.1:6379 (RAY_ADDRESS): it runs Ray 2.9.3 with Python 3.10.12, this command has "
        "Ray 2.60.0 with Python 3.11.9; install the same versions on all nodes. Set RAY_ADDRESS"
    )


@pytest.mark.usefixtures("node_here")
def test_a_ray_that_answers_but_refuses(crowded: CrowdedRay) -> None:
    crowded.failures = [ConnectionError("No token.\nmore")]
    with pytest.raises(ResourceError, match=r"at 10\.0\.0\.1:6379 \(RAY_ADDRESS\): No token\. Set RAY_ADDRESS"):
        join(HEAD)


@pytest.mark.usefixtures("node_here")
def test_what_speaks_grpc_and_is_no_ray(crowded: CrowdedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_gcs_server_port_wait_time_s", raising=False)
    crowded.failures = [ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")]
    crowded.failures[0].__cause__ = RuntimeError("Failed to connect to GCS. Last connection error: Traceback")
    with pytest.raises(ResourceError, match=r"something answers there, but it is no head of a Ray\. Set"):
        join(HEAD)
    assert "RAY_gcs_server_port_wait_time_s" not in os.environ


def test_a_cluster_without_a_node_on_this_machine(crowded: CrowdedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "find_node_ids", set)
    with pytest.raises(ResourceError, match="no node of that cluster runs on this machine, and a search is a driver"):
        join(HEAD)
    assert crowded.calls == []


def test_a_long_folder_for_temporary_files_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crowded: CrowdedRay, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "s"))
    monkeypatch.setattr(starting, "SOCKET_PATH_BYTES", 300)
    assert ray_folder() == tmp_path / "s" / "ray"
    monkeypatch.setattr(starting, "SOCKET_PATH_BYTES", 107)
    long = tmp_path / ("x" * 60)
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", str(long))
    with caplog.at_level(logging.INFO, "segsearch"):
        start()
    assert crowded.calls[0]["_temp_dir"] in ("/tmp/ray", "/dev/shm/ray")
    assert f"TMPDIR={long}" in caplog.text
    assert not long.exists()
    monkeypatch.setattr(starting, "_not_writable", lambda folder: "read-only file system")
    with pytest.raises(ResourceError, match=r"TMPDIR=.*: too long for Ray, whose socket paths may have 107 bytes"):
        start()


@pytest.mark.parametrize(
    ("folder", "reason"), [("/proc/1", "no such file or directory"), ("/dev/null", "not a directory")]
)
def test_a_folder_for_temporary_files_that_cannot_be_written(
    folder: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with pytest.raises(ResourceError) as caught:
        require_ray(None)
    assert str(caught.value) == (
        f"RAY_TMPDIR={folder}: Ray cannot write its files there ({reason}); set RAY_TMPDIR to a folder that can "
        "be written"
    )


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch, crowded: CrowdedRay) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("RAY_GCS_SERVER_PORT", str(port))
        for attempt in (lambda: require_ray(None), start):
            with pytest.raises(ResourceError) as caught:
                attempt()
            assert str(caught.value) == (
                f"RAY_GCS_SERVER_PORT={port}: Ray cannot start on this port (address already in use); unset it, and "
                "Ray takes a free one"
            )
    assert crowded.calls == []
    assert start() == "context", "it is free now"


def test_another_users_folder_is_gone_round(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(starting, "_not_writable", lambda folder: "denied" if str(folder) == "/tmp/ray" else None)
    with caplog.at_level(logging.INFO, "segsearch"):
        assert ray_folder() != Path("/tmp/ray")
    assert "it cannot write to /tmp/ray (denied)" in caplog.text
    monkeypatch.setattr(starting, "_not_writable", lambda folder: "denied")
    with pytest.raises(ResourceError, match=r"Ray cannot write its files to /tmp/ray \(denied\)"):
        require_ray(None)


@pytest.mark.slow
def test_a_real_ray_starts_below_a_long_folder_and_is_found_by_others(tmp_path: Path) -> None:
    """One process starts it and stays; this one sees that it answers, and a stranger's port beside it does not."""
    long = tmp_path / ("a long name " * 6)
    long.mkdir()
    code = (
        "import ray\nfrom search.tune.cluster.address import running_ray\nfrom search.tune.cluster.start import start\n"
        "context = start()\n"
        "print(running_ray(context.address_info['gcs_address']) is not None, context.address_info['session_dir'])\n"
        "ray.shutdown()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_TMPDIR")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment, "TMPDIR": str(long)}, capture_output=True, text=True,
        check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answered, folder = done.stdout.split()
    assert answered == "True"
    assert len(folder) < 60
    assert "Traceback" not in done.stderr
