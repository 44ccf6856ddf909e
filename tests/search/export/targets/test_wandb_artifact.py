import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.wandb_artifacts import WandbArtifactServer
from servers.wandb_server import API_KEY

from search.errors import ExportError
from search.export.files import digest_of
from search.export.target import TrackingContext
from search.export.targets.wandb_artifact import WandbArtifactTarget

NAMES = ["card.json", "model.safetensors"]


def files_of(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in NAMES}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbArtifactServer]:
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with WandbArtifactServer() as running:
        monkeypatch.setenv("WANDB_BASE_URL", running.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        yield running
    import wandb

    wandb.teardown()


def target(tmp_path: Path, **changes: Any) -> WandbArtifactTarget:
    context = TrackingContext(mode="auto", project="birds", entity="tester", group="night", run_dir=tmp_path / "run")
    return WandbArtifactTarget("best-model", context, **{"probe_s": 2.0, "patience_s": 30.0, **changes})


@pytest.mark.slow
def test_arrives_and_is_committed(server: WandbArtifactServer, seal: Callable[..., Path], tmp_path: Path) -> None:
    best = seal()
    seen: list[tuple[str, int, int]] = []
    receipt = target(tmp_path).upload(files_of(best), progress=lambda *step: seen.append(step))
    (artifact,) = server.artifacts.values()
    assert (artifact.state, artifact.type, artifact.collection) == ("COMMITTED", "model", "best-model")
    assert artifact.project == "birds"
    assert {name: artifact.files[name] for name in NAMES} == {name: (best / name).read_bytes() for name in NAMES}
    assert receipt.files == {name: digest_of(best / name) for name in NAMES}
    assert receipt.url == f"{server.url}/tester/birds/artifacts/model/best-model/v0"
    assert ("model.safetensors", 300_000, 300_000) in seen
    run = server.runs[artifact.run]
    assert (run.group, run.job_type, run.exit_code) == ("night", "export", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("put_403", r"did not take it: ValueError: .*uploads .* failed"),
        ("not_committed", "took the upload and left it PENDING"),
        ("silent_commit", "did not confirm it within 9 s"),
        ("other_digest", "holds an artifact with digest 00000000"),
    ],
)
def test_what_is_not_committed_is_no_success(
    fault: Any, message: str, server: WandbArtifactServer, seal: Callable[..., Path], tmp_path: Path
) -> None:
    server.artifact_fault = fault
    started = time.monotonic()
    with pytest.raises(ExportError, match=f"wandb_artifact:best-model: .*{message}") as caught:
        target(tmp_path, patience_s=8.0).upload(files_of(seal()))
    assert time.monotonic() - started < 25
    assert API_KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("silent", r"W&B at http://127.* does not answer within"),
        ("unauthorized", "refuses the API key"),
        ("error", "answers HTTP 500"),
    ],
)
def test_server_that_is_not_well(
    fault: Any, message: str, server: WandbArtifactServer, seal: Callable[..., Path], tmp_path: Path
) -> None:
    server.fault = fault
    with pytest.raises(ExportError, match=message):
        target(tmp_path, probe_s=0.5).upload(files_of(seal()))


def test_no_server(
    server: WandbArtifactServer, seal: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(ExportError, match="cannot be reached"):
        target(tmp_path).upload(files_of(seal()))


def test_no_key(server: WandbArtifactServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(ExportError, match=r"needs an API key for http://127.*WANDB_API_KEY .* or run `wandb login`"):
        target(tmp_path).check()
    assert not server.operations


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_offline(mode: str, server: WandbArtifactServer, seal: Callable[..., Path], tmp_path: Path) -> None:
    offline = WandbArtifactTarget("best-model", TrackingContext(mode=mode, run_dir=tmp_path))
    with pytest.raises(ExportError, match=f"needs W&B online and it is {mode} here; set tracking.wandb.mode"):
        offline.upload(files_of(seal()))
    with pytest.raises(ExportError, match="needs W&B online"):
        offline.check()
    assert not server.operations


def test_offline_by_the_environment(
    server: WandbArtifactServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(ExportError, match="unset WANDB_MODE"):
        target(tmp_path).check()
    assert os.environ["WANDB_MODE"] == "offline"


@pytest.mark.parametrize("name", ["", "a b", "team/best", "best:latest", "x" * 129])
def test_bad_name(name: str) -> None:
    with pytest.raises(ExportError, match="a name has 1 to 128 letters"):
        WandbArtifactTarget(name)
