"""Fetches a sealed model from Yandex Disk, so that `yandex_disk:/folder` works wherever a model's folder does."""

import json
import os
from pathlib import Path
from typing import Any

from yadisk import exceptions as yd

from search.errors import ExportError
from search.export.backoff import Backoff
from search.export.files import Progress, digest_of
from search.export.yandex.disk import Disk, RemoteFile
from search.export.yandex.location import clean_path
from search.export.yandex.reporting import HashingSink
from search.export.yandex.session import Timeouts
from search.export.yandex.token import read_token
from segcore.errors import BundleError, ConfigError, SegsearchError
from segcore.sealed.card import CARD_FILE


class DownloadError(SegsearchError):
    """A sealed model is on Yandex Disk but could not be fetched whole."""


def download(
    location: str,
    folder: Path,
    *,
    progress: Progress | None = None,
    backoff: Backoff | None = None,
    timeouts: Timeouts | None = None,
) -> Path:
    """Copies the files of a sealed model from the disk into a folder, the card last.

    Each file is written beside its place, compared with the disk's size and sha256, and then moved there. A file that
    is there already with the same content is not fetched again, so the folder may serve as a cache.

    Args:
        location: Folder on the disk, with or without the leading `yandex_disk:`.
        folder: Where to; made when missing.
        progress: Called as `(file name, bytes done, bytes in total)`.
        backoff: Waits between attempts.
        timeouts: Bounds on one request.

    Returns:
        `folder`.

    Raises:
        ConfigError: No token, or no folder's path.
        BundleError: What is there is not a complete sealed model.
        DownloadError: The service refused, or what arrives is not what it says it holds.
    """
    try:
        path, token = clean_path(location.removeprefix("yandex_disk:")), read_token()
    except ExportError as error:
        raise ConfigError(str(error)) from error
    with Disk(token, backoff, timeouts) as disk:
        try:
            _fetch_model(disk, path, folder, progress)
        except ExportError as error:
            raise DownloadError(str(error)) from error
        except OSError as error:
            raise DownloadError(f"the model on Yandex Disk cannot be written to {folder}: {error}") from error
    return folder


def _fetch_model(disk: Disk, path: str, folder: Path, progress: Progress | None) -> None:
    here = disk.look(path)
    if here is None:
        raise BundleError(f"Yandex Disk: there is no folder {path} for this token")
    card = disk.look(f"{path}/{CARD_FILE}") if here.type != "file" else None
    if card is None or card.type == "dir":
        raise BundleError(f"Yandex Disk: {path} holds no sealed model: there is no {CARD_FILE} in it")
    folder.mkdir(parents=True, exist_ok=True)
    fetched = _fetch(disk, card, folder, progress)
    try:
        for name in _names_on(fetched, path):
            remote = disk.look(f"{path}/{name}")
            if remote is None or remote.type == "dir":
                raise BundleError(f"Yandex Disk: {path} is incomplete: its card names {name}, which is not there")
            os.replace(_fetch(disk, remote, folder, progress), folder / name)
    except BaseException:
        fetched.unlink(missing_ok=True)
        raise
    os.replace(fetched, folder / CARD_FILE)


def _names_on(card_file: Path, path: str) -> list[str]:
    """Names of the other files, from the card; bare names, so that no card can write outside the folder."""
    try:
        card = json.loads(card_file.read_text(encoding="utf-8"))
        names = list(card["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"Yandex Disk: {path}/{CARD_FILE} is not the card of a sealed model: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or name != Path(name).name or name in ("", ".", "..", CARD_FILE) or "\\" in name:
            raise BundleError(f"Yandex Disk: {path}/{CARD_FILE} names a file {name!r} that no sealed model has")
    return names


def _fetch(disk: Disk, remote: RemoteFile, folder: Path, progress: Progress | None) -> Path:
    """Downloads to a temporary name in `folder` and verifies; the result, which may lie in place already, is moved."""
    name = remote.path.rpartition("/")[2]
    partial, present = folder / f".{name}.{os.getpid()}.part", folder / name
    if present.is_file() and remote.matches(digest_of(present)):
        return present

    size = remote.size or 0

    def attempt(**_: Any) -> None:
        with partial.open("wb") as file:
            sink = HashingSink(file.write, name, remote.size or 0, progress)
            disk.session.client.download(
                remote.path, sink, n_retries=0, timeout=disk.session.timeouts.transfer(remote.size or 0)
            )
        if sink.digest() != (remote.sha256, remote.size):
            raise yd.RetriableYaDiskError(None, f"{sink.size} bytes arrived that are not those of {remote.path}")

    try:
        disk.session.call(f"download {remote.path}", attempt)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if progress is not None:
        progress(name, size, size)
    return partial
