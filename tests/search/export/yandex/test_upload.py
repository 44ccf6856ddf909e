import contextlib
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import yadisk
from servers.yandex_disk import TOKEN, YandexDiskServer
from servers.yandex_faults import FOR_EVER, Fault

from search.errors import ExportError
from search.export.backoff import Backoff
from search.export.files import digest_of
from search.export.yandex.session import Timeouts
from search.export.yandex.staging import TEMPORARY_PREFIX
from search.export.yandex.upload import YandexDiskTarget

FOLDER = "/segsearch/attention"
NAMES = ["card.json", "model.safetensors"]
OLD = {name: f"the old {name}".encode() for name in NAMES}


def files_of(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in NAMES}


def held(disk: YandexDiskServer) -> dict[str, bytes]:
    return {path.removeprefix(f"{FOLDER}/"): content for path, content in disk.files.items()}


def put_old(disk: YandexDiskServer) -> None:
    for name, content in OLD.items():
        disk.add(f"{FOLDER}/{name}", content)


def upload(folder: Path, backoff: Backoff, **kwargs: object) -> None:
    YandexDiskTarget(FOLDER, backoff=backoff, **kwargs).upload(files_of(folder))  # type: ignore[arg-type]


def assert_arrived(disk: YandexDiskServer, folder: Path) -> None:
    assert held(disk) == {name: path.read_bytes() for name, path in files_of(folder).items()}


RECOVERABLE = {
    "503 once on everything": [Fault("any", status=503)],
    "500 three times on the upload": [Fault("put", status=500, times=3)],
    "503 four times on the link": [Fault("upload_link", status=503, times=4)],
    "502, which names no error": [Fault("put", status=502)],
    "an unknown status": [Fault("put", status=599)],
    "429 on the link": [Fault("upload_link", status=429, retry_after="7")],
    "429 on the upload": [Fault("put", status=429)],
    "429 on the move": [Fault("move", status=429, retry_after="3")],
    "429 on the metadata": [Fault("meta", status=429, times=3, skip=2)],
    "423 on the link": [Fault("upload_link", status=423, times=2)],
    "423 on the folder": [Fault("mkdir", status=423, times=2)],
    "423 on the move": [Fault("move", status=423, times=4)],
    "dropped before the upload": [Fault("put", "drop_before", times=2)],
    "dropped in the middle of the upload": [Fault("put", "drop_half")],
    "dropped after the upload": [Fault("put", "drop_after")],
    "500 after the upload was done": [Fault("put", "status_after", status=500)],
    "dropped before the move": [Fault("move", "drop_before")],
    "dropped after the move": [Fault("move", "drop_after", times=2)],
    "500 after the move was done": [Fault("move", "status_after", status=500)],
    "dropped on the folder": [Fault("mkdir", "drop_after")],
    "dropped on the metadata": [Fault("meta", "drop_before", times=3, skip=1)],
    "a truncated file confirmed": [Fault("put", "truncate")],
    "an altered file confirmed twice": [Fault("put", "alter", times=2)],
    "a lost file confirmed": [Fault("put", "lose")],
    "metadata lag behind": [Fault("meta", "lag", times=4, skip=1)],
    "hashes lag behind": [Fault("meta", "no_hash", times=4, skip=4)],
    "the moved file's metadata are the old ones": [Fault("meta", "stale", times=4, path="model.safetensors", skip=2)],
    "moves are operations": [Fault("move", "async", times=FOR_EVER)],
    "a move's operation fails once": [Fault("move", "async_failed")],
    "an operation's state is not answered": [Fault("move", "async"), Fault("operation", status=503, times=2)],
    "a page that is no JSON": [Fault("meta", "garbage")],
    "no right to ask for the space": [Fault("disk", status=403)],
    "the space is never answered": [Fault("disk", status=500, times=FOR_EVER)],
    "no copies": [Fault("copy", status=404, times=FOR_EVER)],
    "no room for copies": [Fault("copy", status=507, times=FOR_EVER)],
    "temporary files cannot be deleted": [Fault("delete", status=423, times=2), Fault("put", "alter")],
}


@pytest.mark.parametrize("old", [False, True], ids=["new folder", "over an old model"])
@pytest.mark.parametrize("faults", RECOVERABLE.values(), ids=RECOVERABLE.keys())
def test_recovers(
    faults: list[Fault],
    old: bool,
    disk: YandexDiskServer,
    seal: Callable[..., Path],
    backoff: Backoff,
    waits: list[float],
) -> None:
    best = seal()
    if old:
        put_old(disk)
    for fault in faults:
        fault.hits = 0
    disk.faults = faults
    upload(best, backoff)
    assert_arrived(disk, best)
    assert sum(waits) < 60
    unused = {"mkdir"} if old else {"copy"}
    assert all(fault.hits > fault.skip for fault in faults if fault.operation not in unused), "every fault struck"


FATAL = {
    "401": ([Fault("any", status=401, times=FOR_EVER)], r"YADISK_TOKEN was refused \(401\)"),
    "401 on the upload": ([Fault("put", status=401, times=FOR_EVER)], r"could not upload .*refused \(401\)"),
    "401 on the move": ([Fault("move", status=401, times=FOR_EVER)], r"refused \(401\)"),
    "403": ([Fault("any", status=403, times=FOR_EVER)], r"\(403\); it needs cloud_api:disk\.read"),
    "403 on the link": ([Fault("upload_link", status=403, times=FOR_EVER)], r"\(403\)"),
    "404 on the link": ([Fault("upload_link", status=404, times=FOR_EVER)], r"DiskNotFoundError"),
    "409 on the folder": ([Fault("mkdir", status=409, times=FOR_EVER)], r"DiskPathDoesntExistsError"),
    "413": ([Fault("put", status=413, times=FOR_EVER)], r"larger than this account may upload \(413\)"),
    "423 for ever": ([Fault("put", status=423, times=FOR_EVER)], r"stayed locked .*\(423\)"),
    "423 for ever on the first move": ([Fault("move", status=423, times=FOR_EVER)], r"stayed locked .*\(423\)"),
    "423 for ever on the card's move": (
        [Fault("move", status=423, times=FOR_EVER, path="card.json")],
        r"stayed locked .*\(423\)",
    ),
    "403 on the card's move": ([Fault("move", status=403, path="card.json")], r"\(403\)"),
    "500 for ever on the card's move": (
        [Fault("move", status=500, times=FOR_EVER, path="card.json")],
        r"not the file that was sent .*InternalServerError",
    ),
    "upload traffic used up": (
        [Fault("upload_link", status=423, error="DiskUploadTrafficLimitExceeded")],
        r"upload traffic for now is used up",
    ),
    # The last attempt names the cause; on a busy machine it has been a reset connection.
    "429 for ever": ([Fault("put", status=429, times=FOR_EVER)], r"too many requests .*\(429\)|no connection to http"),
    "429 for an hour": ([Fault("put", status=429, retry_after="3600")], r"asks to wait 3600 s \(429\)"),
    "503 for ever": ([Fault("put", status=503, times=FOR_EVER)], r"could not upload .*ServiceUnavailableError"),
    "507 on the link": ([Fault("upload_link", status=507, times=FOR_EVER)], r"no space is left .*\(507\)"),
    "507 on the upload": ([Fault("put", status=507, times=FOR_EVER)], r"no space is left .*\(507\)"),
    "dropped for ever": ([Fault("put", "drop_half", times=FOR_EVER)], r"no connection to http://127"),
    "always truncated": ([Fault("put", "truncate", times=FOR_EVER)], r"sent 3 times and never arrived whole: .* holds"),
    "always altered": ([Fault("put", "alter", times=FOR_EVER)], r"never arrived whole"),
    "always lost": ([Fault("put", "lose", times=FOR_EVER)], r"confirmed it but has no such file"),
    "moves always fail": ([Fault("move", "async_failed", times=FOR_EVER)], r"the operation ended as 'failed'"),
    "garbage for ever": ([Fault("any", "garbage", times=FOR_EVER)], r"could not look at"),
}


@pytest.mark.parametrize(("faults", "message"), FATAL.values(), ids=FATAL.keys())
def test_fatal_leaves_the_old_model(
    faults: list[Fault], message: str, disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff
) -> None:
    best = seal()
    put_old(disk)
    if "mkdir" in {fault.operation for fault in faults}:
        disk.files.clear()
        disk.folders = {"/"}
    before = held(disk)
    for fault in faults:
        fault.hits = 0
    disk.faults = faults
    with pytest.raises(ExportError, match=message) as caught:
        upload(best, backoff)
    assert held(disk) == before, "the old files are byte-identical and no temporary name is left"
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("first_lost", range(1, 40))
def test_network_gone_for_good_at_any_request(
    first_lost: int, disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff
) -> None:
    """Whenever the network goes, each file is the old one or the new one, whole, and a card never runs ahead."""
    best = seal()
    put_old(disk)
    disk.faults = [Fault("any", "drop_before", skip=first_lost, times=FOR_EVER)]
    with contextlib.suppress(ExportError):
        upload(best, backoff)
    new = {name: path.read_bytes() for name, path in files_of(best).items()}
    for name in NAMES:
        assert held(disk)[name] in (OLD[name], new[name])
    if held(disk)["card.json"] == new["card.json"]:
        assert held(disk)["model.safetensors"] == new["model.safetensors"]


def test_receipt_and_order(disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff) -> None:
    best = seal()
    seen: list[tuple[str, int, int]] = []
    receipt = YandexDiskTarget("disk:/segsearch//attention/", backoff=backoff).upload(
        files_of(best), progress=lambda *step: seen.append(step)
    )
    assert (receipt.target, receipt.location) == ("yandex_disk", FOLDER)
    assert receipt.files == {name: digest_of(best / name) for name in NAMES}
    assert receipt.url == "https://disk.yandex.com/client/disk/segsearch/attention"
    final = [path for path, content in disk.history if content is not None and TEMPORARY_PREFIX not in path]
    assert final == [f"{FOLDER}/model.safetensors", f"{FOLDER}/card.json"], "the card comes last"
    assert disk.count("put") == 2
    assert seen[-1] == ("card.json", (best / "card.json").stat().st_size, (best / "card.json").stat().st_size)
    assert ("model.safetensors", 300_000, 300_000) in seen


def test_large_file_reports_progress(disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff) -> None:
    best = seal(size=5_000_000)
    seen: list[int] = []
    YandexDiskTarget(FOLDER, backoff=backoff).upload(
        files_of(best), progress=lambda name, done, total: seen.append(done) if name.startswith("model") else None
    )
    assert len(seen) >= 4
    assert seen == sorted(seen)
    assert seen[-1] == 5_000_000


def test_temporary_names_are_neutral(disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff) -> None:
    """The service throttles by the name's extension, so there is none."""
    upload(seal(), backoff)
    for path in disk.upload_paths:
        folder, _, name = path.rpartition("/")
        assert folder == FOLDER
        assert "." not in name


def test_what_is_there_already_is_not_sent_again(
    disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff
) -> None:
    best = seal()
    upload(best, backoff)
    upload(best, backoff)
    assert disk.count("put") == 2
    (best / "card.json").write_text("{}", encoding="utf-8")
    upload(best, backoff)
    assert disk.count("put") == 3
    assert_arrived(disk, best)


def test_lost_answer_costs_no_second_upload(
    disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff
) -> None:
    disk.faults = [Fault("put", "drop_after", times=2)]
    upload(seal(), backoff)
    assert disk.count("put") == 2


@pytest.mark.parametrize("operation", ["put", "move", "upload_link"])
def test_retry_after_is_honoured(
    operation: str, disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff, waits: list[float]
) -> None:
    disk.faults = [Fault(operation, status=503, retry_after="42")]  # type: ignore[arg-type]
    upload(seal(), backoff)
    assert waits.count(42.0) == 1


def test_retry_after_as_a_date(
    disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff, waits: list[float]
) -> None:
    disk.faults = [Fault("put", status=429, retry_after="Thu, 01 Jan 2015 00:00:00 GMT")]
    upload(seal(), backoff)
    assert waits[0] == 1.0, "a date in the past asks for nothing beyond our own wait"


def test_waits_grow(disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff, waits: list[float]) -> None:
    disk.faults = [Fault("upload_link", status=429, times=4)]
    upload(seal(), backoff)
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]


def test_slow_answer_is_waited_for(disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff) -> None:
    disk.faults = [Fault("put", "slow", delay_s=0.6)]
    upload(seal(), backoff, timeouts=Timeouts(read_s=5.0))
    assert disk.count("put") == 2


def test_answer_that_comes_too_late(disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff) -> None:
    disk.faults = [Fault("put", "slow", delay_s=1.0)]
    best = seal()
    upload(best, backoff, timeouts=Timeouts(read_s=0.3, hash_bytes_per_s=1e12))
    assert disk.count("put") == 2, "the file was found although its answer was given up"
    assert_arrived(disk, best)


def test_no_token(
    disk: YandexDiskServer, seal: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, backoff: Backoff
) -> None:
    best = seal()
    monkeypatch.delenv("YADISK_TOKEN")
    with pytest.raises(ExportError, match=r"YADISK_TOKEN is not set; make an OAuth token .* export YADISK_TOKEN="):
        upload(best, backoff)
    with pytest.raises(ExportError, match="YADISK_TOKEN is not set"):
        YandexDiskTarget(FOLDER).check()
    assert not disk.requests


@pytest.mark.parametrize("token", ["half of\na token", "токен"])
def test_token_that_is_none(
    token: str, disk: YandexDiskServer, seal: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YADISK_TOKEN", token)
    with pytest.raises(ExportError, match="its value is not shown") as caught:
        upload(seal(), Backoff())
    assert token not in "".join(traceback.format_exception(caught.value))


def test_token_with_a_trailing_newline_works(
    disk: YandexDiskServer, seal: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, backoff: Backoff
) -> None:
    monkeypatch.setenv("YADISK_TOKEN", f" {TOKEN}\n")
    best = seal()
    upload(best, backoff)
    assert_arrived(disk, best)


def test_nothing_secret_in_the_log(
    disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    disk.faults = [Fault("any", "drop_before", skip=3), Fault("put", status=503), Fault("put", "alter", skip=1)]
    upload(seal(), backoff)
    assert "attempt 2 of 7" in caplog.text
    assert TOKEN not in caplog.text
    assert "upload-target" not in caplog.text, "an upload link works without the token"


def test_unreachable(seal: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, backoff: Backoff) -> None:
    monkeypatch.setattr(yadisk.settings, "BASE_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("YADISK_TOKEN", TOKEN)
    with pytest.raises(ExportError, match=r"no connection to http://127.0.0.1:9; check network and proxy"):
        upload(seal(), backoff)


def test_too_little_space_is_said_before_sending(
    disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff
) -> None:
    disk.total_space = 1000
    with pytest.raises(ExportError, match=r"1,000 bytes free and the model needs 300,\d+"):
        upload(seal(), backoff)
    assert disk.count("put") == 0


def test_too_large_a_file_is_said_before_sending(
    disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff
) -> None:
    disk.max_file_size = 1000
    with pytest.raises(ExportError, match=r"model.safetensors has 300,000 bytes; this account takes 1,000 at most"):
        upload(seal(), backoff)
    assert disk.count("put") == 0


def test_a_file_where_the_folder_should_be(disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff) -> None:
    disk.add(FOLDER, b"a file")
    with pytest.raises(ExportError, match=r"/segsearch/attention is a file"):
        upload(seal(), backoff)
    assert disk.files == {FOLDER: b"a file"}


def test_a_folder_where_a_file_should_be(disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff) -> None:
    disk.add(f"{FOLDER}/card.json/x", b"")
    with pytest.raises(ExportError, match=r"card.json is a folder where the model's file should go"):
        upload(seal(), backoff)


def test_other_files_of_the_folder_stay(disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff) -> None:
    disk.add(f"{FOLDER}/notes.txt", b"mine")
    upload(seal(), backoff)
    assert disk.files[f"{FOLDER}/notes.txt"] == b"mine"


@pytest.mark.parametrize("folder", ["/модели/лучшая модель", "/a b/c+d", "/100%/x#y", "/a&b=c/d:e"])
def test_any_name_of_a_folder(folder: str, disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff) -> None:
    YandexDiskTarget(folder, backoff=backoff).upload(files_of(seal()))
    assert sorted(disk.files) == [f"{folder}/{name}" for name in NAMES]


def test_empty_file(disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff) -> None:
    best = seal(size=0)
    upload(best, backoff)
    assert_arrived(disk, best)


@pytest.mark.parametrize("location", ["", "/", "disk:/", "/a/../b", "//"])
def test_bad_location(location: str) -> None:
    with pytest.raises(ExportError, match="a location is a folder below the disk's root"):
        YandexDiskTarget(location)


def test_interrupted(disk: YandexDiskServer, seal: Callable[..., Path], backoff: Backoff) -> None:
    """Ctrl-C in the middle of an upload leaves the old model and no temporary file."""
    put_old(disk)

    def interrupt(name: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        YandexDiskTarget(FOLDER, backoff=backoff).upload(files_of(seal(size=5_000_000)), progress=interrupt)
    assert held(disk) == OLD


def test_missing_local_file(disk: YandexDiskServer, tmp_path: Path, backoff: Backoff) -> None:
    with pytest.raises(ExportError, match=r"a file of the model cannot be read: .*card\.json"):
        YandexDiskTarget(FOLDER, backoff=backoff).upload({"card.json": tmp_path / "card.json"})
