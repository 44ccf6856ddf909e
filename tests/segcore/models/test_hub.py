"""Weights that are not on this machine, and a hub that is dead, silent, broken or has none: told once and soon."""

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
from typing import ClassVar

import pytest
from huggingface_hub import constants

from segcore.errors import ConfigError
from segcore.models import hub
from segcore.models.hub import HubError, hub_file

NAME, REPOSITORY = "resnet18", "timm/resnet18.a1_in1k"
WORKS = "What works without the hub: model.encoder_weights: none; or the path of a .safetensors file"


class FaultyHub(http.server.BaseHTTPRequestHandler):
    """Answers every request in the one way that it is told."""

    fault = "404"
    asked: ClassVar[list[str]] = []
    """Requests for the file; the client asks the hub other things too."""
    over = threading.Event()

    def do_HEAD(self) -> None:
        if self.path.endswith("model.safetensors"):
            self.asked.append(self.command)
        if self.fault == "hangs":
            self.over.wait(30)
        elif self.fault == "resets":
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
        else:
            self.send_response(int(self.fault))
            self.send_header("Content-Length", "0")
            self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()

    def log_message(self, *args: object) -> None:
        pass


def point_to(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FaultyHub]]:
    """A hub on this machine that answers as `fault` says."""

    class Handler(FaultyHub):
        asked: ClassVar[list[str]] = []
        over = threading.Event()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    point_to(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path / "cache")
    yield Handler
    Handler.over.set()
    server.shutdown()
    server.server_close()


def dead_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("404", "it has no such file for us (HTTP 404)"),
        ("401", "it has no such file for us (HTTP 401)"),
        ("503", "it answered HTTP 503"),
        ("resets", ""),
        ("hangs", "timed out"),
    ],
)
def test_a_hub_at_fault_is_asked_once_and_told_once(
    faulty: type[FaultyHub], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fault: str, reason: str
) -> None:
    import huggingface_hub.file_download  # noqa: F401  not in the time that is measured

    monkeypatch.setattr(faulty, "fault", fault)
    monkeypatch.setattr(hub, "PROBE_TIMEOUT_S", 0.5)
    started = time.monotonic()
    with pytest.raises(HubError) as caught:
        hub_file(NAME, REPOSITORY)
    assert time.monotonic() - started < 8
    message = str(caught.value)
    assert message.startswith("model.encoder_weights: no pretrained weights of timm:resnet18: they are not in ")
    assert f"tried {constants.ENDPOINT}/timm/resnet18.a1_in1k/resolve/main/model.safetensors: " in message
    assert reason in message
    assert WORKS in message
    assert isinstance(caught.value, ConfigError)
    assert caught.value.exit_code == 2
    assert faulty.asked == ["HEAD"]
    assert capfd.readouterr().err == ""


def test_a_dead_hub_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    point_to(monkeypatch, f"http://127.0.0.1:{dead_port()}", tmp_path)
    with pytest.raises(
        HubError, match=r"(?s)tried http://127\.0\.0\.1.*Connection refused.*What works without the hub"
    ):
        hub_file(NAME, REPOSITORY)
    assert caplog.records == []
    assert logging.getLogger("huggingface_hub").getEffectiveLevel() < logging.CRITICAL, "its level is as it was"


def test_a_name_server_that_is_silent_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client's own time limits do not cover."""
    over = threading.Event()
    point_to(monkeypatch, "http://nowhere.invalid", tmp_path)
    monkeypatch.setattr(hub, "_probe", lambda _: over.wait(30))
    monkeypatch.setattr(hub, "DEADLINE_S", 0.2)
    with pytest.raises(HubError, match="no answer within 0 s"):
        hub_file(NAME, REPOSITORY)
    over.set()


def test_no_hub_is_asked_when_it_is_switched_off(faulty: type[FaultyHub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        hub_file(NAME, REPOSITORY)
    assert faulty.asked == []


def test_what_is_in_the_cache_needs_no_hub(faulty: type[FaultyHub]) -> None:
    repo = Path(constants.HF_HUB_CACHE) / "models--timm--resnet18.a1_in1k"
    commit = "0" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    weights = repo / "snapshots" / commit / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    assert hub_file(NAME, REPOSITORY) == str(weights)
    assert faulty.asked == []


def test_a_model_without_weights_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(monkeypatch, "http://127.0.0.1:1", tmp_path)
    with pytest.raises(HubError, match="timm knows of none on the hub"):
        hub_file("botnet50ts_256", None)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "run", "train"])
def test_the_command_says_it_before_it_decodes_anything(tmp_path: Path, command: str) -> None:
    (tmp_path / "c.yaml").write_text(
        "data: {root: synthetic, image_size: 32, synthetic: {num_images: 24}}\n"
        "model: {encoder: timm:resnet18, encoder_weights: imagenet}\n"
        "space: {optimizer.lr: {loguniform: [1e-3, 1e-2]}}\n"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{dead_port()}",
        "HF_HOME": str(tmp_path / "hf"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from search.cli import main; main()", command, "c.yaml"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert lines[0].startswith("error: model.encoder_weights: no pretrained weights of timm:resnet18")
    assert not (tmp_path / "results").exists()
    assert list((tmp_path / "cache").rglob("*.arrow")) == []
