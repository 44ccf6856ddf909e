"""A Ray that is dead, silent, or no Ray at all: told once, within seconds."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._private import services

from search.errors import ResourceError
from search.tune.cluster import address
from search.tune.cluster.address import Place, running_ray
from search.tune.cluster.start import require_ray

pytestmark = pytest.mark.usefixtures("no_ray")
WAY_OUT = "or start a Ray here with --set resources.address=local"


@pytest.fixture
def dead() -> str:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A port that accepts connections and says nothing."""
    monkeypatch.setattr(address, "ANSWER_TIMEOUT_S", 0.3)
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
    for configured in (None, "auto"):
        message = refusal(configured)
        assert message.startswith(f"Ray cannot be reached at {dead} (RAY_ADDRESS): connection refused. Set RAY_ADDRESS")
    assert running_ray("local") is None, "the config goes before the environment"


def test_a_port_that_is_silent(silent: str) -> None:
    assert "something accepts connections there, but answered nothing in 0.3 s: it is no Ray" in refusal(silent)


def test_a_port_of_something_else(web: str) -> None:
    assert "something answers there, but not as Ray does" in refusal(web)


def test_a_port_that_speaks_grpc_is_taken_for_ray(grpc_like: str) -> None:
    assert running_ray(grpc_like) == Place(grpc_like, "resources.address", bootstrap_of(grpc_like))


def bootstrap_of(address: str) -> str:
    """As Ray writes out an address of this machine."""
    return str(services.canonicalize_bootstrap_address(address))


def test_a_host_that_drops_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    def blackhole(address: tuple[str, int], timeout: float) -> None:
        assert (address, timeout) == (("10.255.255.1", 6379), 5.0)
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", blackhole)
    assert "at 10.255.255.1:6379 (resources.address): no connection within 5 s. " in refusal("10.255.255.1:6379")


@pytest.mark.parametrize(
    "address",
    [
        "nonsense",
        "127.0.0.1:port",
        "127.0.0.1:99999",
        "10.0.0.1:0",
        "10.0.0.1",
        "http://10.0.0.1:8265",
        ":6379",
        " ",
    ],
)
def test_an_address_that_is_none(address: str) -> None:
    assert refusal(address) == (
        f"resources.address is {address!r}, which is no address of a Ray; valid: HOST:PORT, such as 10.0.0.1:6379; "
        "auto, to join the one that runs on this machine; local, to start one here"
    )


def test_a_host_that_is_unknown() -> None:
    assert "Ray cannot be reached at no-such-host.invalid:6379" in refusal("no-such-host.invalid:6379")


def test_ray_client_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    told = refusal("ray://head.example:10001")
    assert told.startswith("resources.address is ray://head.example:10001: Ray Client (ray://) is not supported")
    assert "set resources.address to head.example:6379 (the head's port, not the client's 10001), or to auto" in told
    monkeypatch.setenv("RAY_ADDRESS", "ray://10.0.0.1:10001")
    assert refusal(None).startswith("RAY_ADDRESS is ray://10.0.0.1:10001: Ray Client")


def test_none_runs_here_to_be_joined() -> None:
    assert refusal("auto").startswith("resources.address is auto, but no Ray runs on this machine. Start one with ")


def test_of_several_that_run_here_none_is_taken_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: {"10.0.0.1:2", "10.0.0.1:1"})
    assert refusal("auto").startswith(
        "resources.address is auto, but 2 Rays run on this machine: 10.0.0.1:1, 10.0.0.1:2. Set resources.address to "
    )


def test_without_an_address_a_ray_of_our_own_is_started_whatever_runs_here(
    tmp_path: Path, grpc_like: str, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray start` leaves its address in a file, which a crash leaves behind."""
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(grpc_like)
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: {grpc_like})
    assert running_ray(None) is None
    assert running_ray("auto") == Place("auto", "resources.address", grpc_like)
    (tmp_path / "ray" / "ray_current_cluster").write_text(dead)
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    assert running_ray(None) is None
    assert refusal("auto").startswith(f"Ray cannot be reached at {dead} (resources.address=auto): connection refused")


def test_the_variable_counts_where_the_config_names_no_address(grpc_like: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", grpc_like)
    assert running_ray(None) == Place(grpc_like, "RAY_ADDRESS", bootstrap_of(grpc_like))
    for variable in ("", "local"):
        monkeypatch.setenv("RAY_ADDRESS", variable)
        assert running_ray(None) is None
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert refusal(None).startswith("RAY_ADDRESS is auto, but no Ray runs on this machine")


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
    assert not list((tmp_path / "cache").rglob("*.arrow"))
