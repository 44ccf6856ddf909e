"""Sending a model: every target is tried, and what became of each is kept."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from servers.yandex_disk import TOKEN, YandexDiskServer
from servers.yandex_faults import FOR_EVER, Fault

from search.config.tree import SearchConfig
from search.export.backoff import Backoff
from search.export.sending import export_all, sealed_files
from search.export.target import TargetSpec, TrackingContext
from search.export.yandex import session
from search.runs.folder import create_run, working_on
from segcore.errors import BundleError


def test_sealed_files(seal: Callable[..., Path]) -> None:
    best = seal()
    (best / "scratch.tmp").write_bytes(b"")
    assert list(sealed_files(best)) == ["model.safetensors", "card.json"], "those of the card, the card last"
    (best / "model.safetensors").write_bytes(b"altered")
    with pytest.raises(BundleError, match="altered or is damaged"):
        sealed_files(best)


def test_goes_on_after_a_failure_and_keeps_the_record(
    seal: Callable[..., Path], tmp_path: Path, disk: YandexDiskServer
) -> None:
    best, record = seal(), tmp_path / "export.json"
    disk.faults = [Fault("any", status=401, times=FOR_EVER)]
    specs = [
        TargetSpec("yandex_disk", "/segsearch/a"),
        TargetSpec("local", str(tmp_path / "out")),
        TargetSpec("wandb_artifact", "best"),
    ]
    outcomes = export_all(best, specs, record, context=TrackingContext(mode="disabled"))
    assert [outcome.status for outcome in outcomes] == ["failed", "done", "failed"]
    assert [str(outcome.spec) for outcome in outcomes] == [f"{spec.kind}:{spec.location}" for spec in specs]
    assert "refused (401)" in (outcomes[0].error or "")
    written = json.loads(record.read_text(encoding="utf-8"))["targets"]
    assert [entry["status"] for entry in written] == ["failed", "done", "failed"]
    assert written[1]["files"]["card.json"]["size"] == (best / "card.json").stat().st_size
    assert set(written[0]) == {"target", "location", "status", "files", "url", "error", "time", "seconds"}

    disk.faults = []
    again = export_all(best, specs[:1], record)
    assert again[0].error is None
    after = {entry["target"]: entry for entry in json.loads(record.read_text(encoding="utf-8"))["targets"]}
    assert {target: entry["status"] for target, entry in after.items()} == {
        "yandex_disk": "done",
        "local": "done",
        "wandb_artifact": "failed",
    }
    assert after["yandex_disk"]["url"] == "https://disk.yandex.com/client/disk/segsearch/a"


def test_no_token_in_the_record(
    seal: Callable[..., Path], tmp_path: Path, disk: YandexDiskServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when the service itself repeats it."""
    record = tmp_path / "export.json"
    disk.faults = [Fault("any", status=400, error=f"Bad{TOKEN}", times=FOR_EVER)]
    outcomes = export_all(seal(), [TargetSpec("yandex_disk", "/a")], record)
    assert "***" in (outcomes[0].error or "")
    assert TOKEN not in record.read_text(encoding="utf-8")


def test_a_bug_in_a_target_is_an_outcome(
    seal: Callable[..., Path], tmp_path: Path, disk: YandexDiskServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str) -> str:
        raise RuntimeError(f"broken with {TOKEN}")

    monkeypatch.setattr("search.export.yandex.upload.page_url", broken)
    monkeypatch.setattr(session, "Backoff", lambda: Backoff(sleep=lambda s: None))
    outcomes = export_all(
        seal(), [TargetSpec("yandex_disk", "/a"), TargetSpec("local", str(tmp_path / "o"))], tmp_path / "export.json"
    )
    assert [outcome.error for outcome in outcomes] == ["RuntimeError: broken with ***", None]


def test_what_an_exporter_says_is_kept_in_the_runs_log(
    seal: Callable[..., Path],
    tmp_path: Path,
    disk: YandexDiskServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A warning and an info of the exporter, in a run that works as the command line sets it up."""
    monkeypatch.setattr(session, "Backoff", lambda: Backoff(sleep=lambda s: None))
    caplog.set_level(logging.INFO, "segsearch")
    disk.faults = [Fault("meta", status=503), Fault("put", "drop_after")]
    paths = create_run(SearchConfig(name="r", results=str(tmp_path / "results")), "search")
    with working_on(paths):
        (outcome,) = export_all(seal(), [TargetSpec("yandex_disk", "/a")], paths.export)
    assert outcome.status == "done"
    lines = paths.log.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if " WARNING Yandex Disk: look at /a" in line and "attempt 2 of 7" in line]
    assert [line for line in lines if " INFO Yandex Disk: " in line and "arrived although its answer was lost" in line]


def test_interruption_keeps_the_record_of_what_was_done(seal: Callable[..., Path], tmp_path: Path) -> None:
    def interrupt(name: str, done: int, total: int) -> None:
        if (tmp_path / "a").exists():
            raise KeyboardInterrupt

    record = tmp_path / "export.json"
    with pytest.raises(KeyboardInterrupt):
        export_all(
            seal(),
            [TargetSpec("local", str(tmp_path / "a")), TargetSpec("local", str(tmp_path / "b"))],
            record,
            progress=interrupt,
        )
    assert [entry["location"] for entry in json.loads(record.read_text(encoding="utf-8"))["targets"]] == [
        str(tmp_path / "a")
    ]
    assert not (tmp_path / "b").exists()


def test_altered_model_is_not_sent(seal: Callable[..., Path], tmp_path: Path, disk: YandexDiskServer) -> None:
    best = seal()
    (best / "model.safetensors").write_bytes(b"altered")
    with pytest.raises(BundleError, match="altered or is damaged"):
        export_all(best, [TargetSpec("yandex_disk", "/a")], tmp_path / "export.json")
    assert not disk.requests
