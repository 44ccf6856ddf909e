"""A Ray that is dead, silent, no Ray at all, or that does not start: told once, within seconds."""

import http.server
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from search.errors import RayStartError, ResourceError
from search.tune import ray_start
from search.tune.ray_start import Place, join, ray_folder, require_ray, running_ray, start

WAY_OUT = "or start a Ray here with --set resources.address=local"


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine where no Ray runs, whatever runs beside the tests."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", set)


@pytest.fixture
def dead() -> str:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A port that accepts connections and says nothing."""
    monkeypatch.setattr(ray_start, "ANSWER_TIMEOUT_S", 0.3)
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def web() -> Iterator[str]:
    """A web server, such as Ray's own dashboard."""
    with http.server.ThreadingHTTPServer(("", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def grpc_like() -> Iterator[str]:
    """Answers the first bytes of a gRPC client as a gRPC server does: with a frame of settings."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(24).startswith(b"PRI * HTTP/2.0")
                connection.sendall(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00" + bytes(6))

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def refusal(address: str | None) -> str:
    started = time.monotonic()
    with pytest.raises(ResourceError) as caught:
        require_ray(address)
    assert time.monotonic() - started < 10
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_dead_address(dead: str) -> None:
    message = refusal(dead)
    assert message.startswith(f"Ray cannot be reached at {dead} (resources.address): connection refused. Set resources")
    assert message.endswith(WAY_OUT)


def test_a_dead_address_of_the_environment(dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", dead)
    for address in (None, "auto"):
        message = refusal(address)
        assert message.startswith(f"Ray cannot be reached at {dead} (RAY_ADDRESS): connection refused. Set RAY_ADDRESS")
    assert running_ray("local") is None, "the config goes before the environment"


def test_a_port_that_is_silent(silent: str) -> None:
    assert "something accepts connections there, but answered nothing in 0.3 s: it is no Ray" in refusal(silent)


def test_a_port_of_something_else(web: str) -> None:
    assert "something answers there, but not as Ray does" in refusal(web)


def test_a_port_that_speaks_grpc_is_taken_for_ray(grpc_like: str) -> None:
    assert running_ray(grpc_like) == Place(grpc_like, "resources.address")


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:notaport", "127.0.0.1:99999"])
def test_an_address_that_is_none(address: str) -> None:
    assert refusal(address).startswith(f"Ray cannot be reached at {address} (resources.address): ")


def test_a_host_that_is_unknown() -> None:
    assert "Ray cannot be reached at no-such-host.invalid:6379" in refusal("no-such-host.invalid:6379")


def test_a_client_without_its_library(dead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "ray:// needs pip install 'ray[client]'" in refusal(f"ray://{dead}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert "connection refused" in refusal(f"ray://{dead}")


def test_none_runs_here_to_be_joined() -> None:
    assert refusal("auto").startswith(
        "Ray cannot be reached at auto (resources.address): no Ray runs on this machine. "
    )
    assert running_ray(None) is None


def test_one_that_was_started_here_and_died_is_not_waited_for(
    dead: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`ray start` leaves its address in a file, which a crash leaves behind."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(dead)
    with caplog.at_level(logging.INFO, "segsearch"):
        assert running_ray(None) is None
    assert "is gone" in caplog.text
    assert "starting another" in caplog.text
    assert "connection refused" in refusal("auto")


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
    monkeypatch.setattr(ray_start, "PAUSES_S", (0.0, 0.0))
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


def test_after_three_failures_it_is_said_once(crowded: CrowdedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (64.0, 1.0, 1.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    crowded.failures = [GCS, GCS, GCS, GCS]
    with pytest.raises(RayStartError) as caught:
        start()
    assert len(crowded.calls) == 3
    assert caught.value.exit_code == 1
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


def test_a_ray_that_answers_but_refuses(crowded: CrowdedRay) -> None:
    crowded.failures = [ConnectionError("Version mismatch\nmore")]
    with pytest.raises(ResourceError, match=r"at 10\.0\.0\.1:6379 \(RAY_ADDRESS\): Version mismatch\. Set RAY_ADDRESS"):
        join(Place("10.0.0.1:6379", "RAY_ADDRESS"))


def test_a_long_folder_for_temporary_files_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crowded: CrowdedRay, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/short")
    assert ray_folder() is None
    long = tmp_path / ("x" * 60)
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", str(long))
    with caplog.at_level(logging.INFO, "segsearch"):
        start()
    assert crowded.calls[0]["_temp_dir"] in ("/tmp/ray", "/dev/shm/ray")
    assert f"TMPDIR={long}" in caplog.text
    monkeypatch.setattr(ray_start, "_SHORT_FOLDERS", (Path("/nowhere/at/all/ray"),))
    with pytest.raises(ResourceError, match=r"TMPDIR=.*: too long for Ray, whose socket paths may have 107 bytes"):
        start()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["run", "check"])
def test_the_command_says_it_before_it_decodes_anything(tmp_path: Path, dead: str, command: str) -> None:
    (tmp_path / "c.yaml").write_text(
        "data: {root: synthetic, image_size: 32, synthetic: {num_images: 24}}\n"
        "space: {optimizer.lr: {loguniform: [1e-3, 1e-2]}}\n"
    )
    environment = {**os.environ, "RAY_ADDRESS": dead, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", "from search.cli import main; main()", command, "c.yaml"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: Ray cannot be reached at {dead} (RAY_ADDRESS): connection refused.")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_real_ray_starts_below_a_long_folder_and_is_found_by_others(tmp_path: Path) -> None:
    """One process starts it and stays; this one sees that it answers, and a stranger's port beside it does not."""
    long = tmp_path / ("a long name " * 6)
    long.mkdir()
    code = (
        "import ray\nfrom search.tune.ray_start import running_ray, start\n"
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
