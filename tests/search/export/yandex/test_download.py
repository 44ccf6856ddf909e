import json
from collections.abc import Callable
from pathlib import Path

import pytest
from servers.yandex_disk import YandexDiskServer
from servers.yandex_faults import FOR_EVER, Fault

from search.export.backoff import Backoff
from search.export.yandex.download import DownloadError, download
from segcore.errors import BundleError, ConfigError
from segcore.sealed.card import verify_bundle

FOLDER = "/segsearch/attention"
NAMES = ["card.json", "model.safetensors"]


@pytest.fixture
def best(seal: Callable[..., Path], disk: YandexDiskServer) -> Path:
    """A sealed model that is also on the disk."""
    folder = seal()
    for name in NAMES:
        disk.add(f"{FOLDER}/{name}", (folder / name).read_bytes())
    return folder


def assert_same(folder: Path, best: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    for name in NAMES:
        assert (folder / name).read_bytes() == (best / name).read_bytes()
    verify_bundle(folder)


@pytest.mark.parametrize("location", [f"yandex_disk:{FOLDER}", FOLDER, f"disk:{FOLDER}/"])
def test_fetches(location: str, best: Path, disk: YandexDiskServer, tmp_path: Path, backoff: Backoff) -> None:
    disk.add(f"{FOLDER}/holiday.mp4", b"not the model's")
    seen: list[tuple[str, int, int]] = []
    folder = download(location, tmp_path / "cache" / "m", progress=lambda *s: seen.append(s), backoff=backoff)
    assert_same(folder, best)
    assert ("model.safetensors", 300_000, 300_000) in seen


RECOVERABLE = {
    "503": [Fault("any", status=503)],
    "429": [Fault("download_link", status=429, retry_after="2"), Fault("get", status=429)],
    "dropped": [Fault("get", "drop_before")],
    "dropped in the middle": [Fault("get", "drop_half", times=2)],
    "altered on the way": [Fault("get", "alter", skip=1)],
}


@pytest.mark.parametrize("faults", RECOVERABLE.values(), ids=RECOVERABLE.keys())
def test_recovers(faults: list[Fault], best: Path, disk: YandexDiskServer, tmp_path: Path, backoff: Backoff) -> None:
    for fault in faults:
        fault.hits = 0
    disk.faults = faults
    assert_same(download(FOLDER, tmp_path / "m", backoff=backoff), best)
    assert all(fault.hits > fault.skip for fault in faults)


FATAL = {
    "401": (Fault("any", status=401, times=FOR_EVER), r"refused \(401\)"),
    "403": (Fault("get", status=403, times=FOR_EVER), r"could not download .* \(403\)"),
    "503": (Fault("get", status=503, times=FOR_EVER), r"could not download .*ServiceUnavailableError"),
    "altered": (Fault("get", "alter", times=FOR_EVER), r"300000 bytes arrived that are not those of"),
}


@pytest.mark.parametrize(("fault", "message"), FATAL.values(), ids=FATAL.keys())
def test_refuses(
    fault: Fault, message: str, best: Path, disk: YandexDiskServer, tmp_path: Path, backoff: Backoff
) -> None:
    fault.hits = 0
    fault.path = "" if fault.status == 401 else "model.safetensors"
    disk.faults = [fault]
    with pytest.raises(DownloadError, match=message) as caught:
        download(FOLDER, tmp_path / "m", backoff=backoff)
    assert caught.value.exit_code == 1
    assert not list(tmp_path.glob("m/*")), "nothing half there"


def test_a_cached_copy_is_not_fetched_again(
    best: Path, disk: YandexDiskServer, tmp_path: Path, backoff: Backoff, seal: Callable[..., Path]
) -> None:
    download(FOLDER, tmp_path / "m", backoff=backoff)
    assert disk.count("get") == 2
    download(FOLDER, tmp_path / "m", backoff=backoff)
    assert disk.count("get") == 2
    (tmp_path / "m" / "model.safetensors").write_bytes(b"damaged")
    assert_same(download(FOLDER, tmp_path / "m", backoff=backoff), best)
    assert disk.count("get") == 3
    newer = seal("newer", seed=1)
    for name in NAMES:
        disk.add(f"{FOLDER}/{name}", (newer / name).read_bytes())
    assert_same(download(FOLDER, tmp_path / "m", backoff=backoff), newer)


def test_nothing_there(disk: YandexDiskServer, tmp_path: Path, backoff: Backoff) -> None:
    with pytest.raises(BundleError, match=f"there is no folder {FOLDER} for this token"):
        download(FOLDER, tmp_path / "m", backoff=backoff)
    disk.add(f"{FOLDER}/notes.txt", b"")
    with pytest.raises(BundleError, match=r"holds no sealed model: there is no card\.json"):
        download(FOLDER, tmp_path / "m", backoff=backoff)
    assert not (tmp_path / "m").exists()


def test_incomplete(best: Path, disk: YandexDiskServer, tmp_path: Path, backoff: Backoff) -> None:
    del disk.files[f"{FOLDER}/model.safetensors"]
    with pytest.raises(BundleError, match=r"its card names model\.safetensors, which is not there"):
        download(FOLDER, tmp_path / "m", backoff=backoff)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "..", "a/b", "a\\b", "card.json", ""])
def test_card_cannot_write_elsewhere(name: str, disk: YandexDiskServer, tmp_path: Path, backoff: Backoff) -> None:
    disk.add(f"{FOLDER}/card.json", json.dumps({"format": 1, "files": {name: {}}}).encode())
    with pytest.raises(BundleError, match=r"names a file .* that no sealed model has"):
        download(FOLDER, tmp_path / "m", backoff=backoff)


@pytest.mark.parametrize("card", [b"\xff\xfe", b"[]", b"{}", b'{"files": 3}'])
def test_no_card(card: bytes, disk: YandexDiskServer, tmp_path: Path, backoff: Backoff) -> None:
    disk.add(f"{FOLDER}/card.json", card)
    with pytest.raises(BundleError, match="is not the card of a sealed model"):
        download(FOLDER, tmp_path / "m", backoff=backoff)


def test_no_token(disk: YandexDiskServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YADISK_TOKEN")
    with pytest.raises(ConfigError, match="YADISK_TOKEN is not set"):
        download(FOLDER, tmp_path / "m")


def test_folder_that_cannot_be_written(best: Path, tmp_path: Path, backoff: Backoff) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match="cannot be written to"):
        download(FOLDER, tmp_path / "file" / "m", backoff=backoff)
