"""Target `yandex_disk: /folder`: a sealed model on Yandex Disk, each byte accounted for before anything is replaced.

Every file first goes to a temporary name in the same folder, and the service's own size and sha256 of it are compared
with ours: a 201 alone says nothing, it was seen for truncated, altered and lost files. Only when all files are proven
are they moved into place, the card last, so that no reader meets a new card beside old weights. The temporary names
have no extension, because the service throttles uploads whose name looks like data, an archive or a video.
"""

import io
import logging
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import requests
from yadisk import exceptions as yd

from search.errors import ExportError
from search.export.backoff import Backoff
from search.export.target import (
    FileDigest,
    Progress,
    Receipt,
    card_last,
    digest_of,
    megabytes,
)
from search.export.yandex_client import (
    DiskSession,
    Timeouts,
    clean_path,
    page_url,
    read_token,
)
from search.export.yandex_download import download
from search.export.yandex_errors import is_transient, may_have_been_done

__all__ = ["YandexDiskTarget", "download"]

log = logging.getLogger("segsearch")

TEMPORARY_PREFIX = "segsearch-upload-"
_SENDS = 3
_REPORT_BYTES = 1 << 20


class YandexDiskTarget:
    """A folder on Yandex Disk; the account is the one of the token in `YADISK_TOKEN`."""

    kind = "yandex_disk"

    def __init__(self, location: str, *, backoff: Backoff | None = None, timeouts: Timeouts | None = None) -> None:
        self.location = clean_path(location)
        self._backoff = backoff
        self._timeouts = timeouts

    def check(self) -> None:
        """Needs a token; see `Target.check`."""
        read_token()

    def upload(self, files: Mapping[str, Path], *, progress: Progress | None = None) -> Receipt:
        """Uploads, verifies, then moves into place; see `Target.upload`.

        A file that is there already with the same content is left alone, so that a retry sends only what is missing.

        Raises:
            ExportError: No token, refused, or not what was sent after several attempts; the old files are intact
                unless the message says otherwise.
        """
        started = time.monotonic()
        try:
            digests = {name: digest_of(files[name]) for name in card_last(files)}
            return self._upload(files, digests, progress, started)
        except OSError as error:
            raise ExportError(f"a file of the model cannot be read: {error}") from error

    def _upload(
        self, files: Mapping[str, Path], digests: dict[str, FileDigest], progress: Progress | None, started: float
    ) -> Receipt:
        with DiskSession(read_token(), self._backoff, self._timeouts) as disk:
            disk.ensure_folder(self.location)
            with _Staging(disk, self.location) as staging:
                pending = [name for name, digest in digests.items() if not self._is_there(disk, name, digest)]
                disk.check_room({name: digests[name]["size"] for name in pending})
                for name in pending:
                    staging.send(name, files[name], digests[name], progress)
                staging.put_in_place(pending, digests)
                for name, digest in digests.items():
                    if not self._is_there(disk, name, digest, wait=True):
                        raise ExportError(
                            f"Yandex Disk: {self.location}/{name} was verified and is now another file; is another "
                            "export writing to the same folder? Export again when it is done"
                        )
        return Receipt(self.kind, self.location, digests, page_url(self.location), time.monotonic() - started)

    def _is_there(self, disk: DiskSession, name: str, digest: FileDigest, *, wait: bool = False) -> bool:
        path = f"{self.location}/{name}"
        found = disk.await_file(path, digest) if wait else disk.look(path)
        if found is not None and found.type == "dir":
            raise ExportError(f"Yandex Disk: {path} is a folder where the model's file should go; move it away")
        return found is not None and found.matches(digest)


class _Staging:
    """The temporary names of one upload; leaving it removes those that are left, whatever happened."""

    def __init__(self, disk: DiskSession, folder: str) -> None:
        self.disk = disk
        self.folder = folder
        self.sent: dict[str, str] = {}
        self._leftovers: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for path in sorted(self._leftovers):
            try:
                self.disk.remove(path)
            except ExportError as failure:
                log.warning("a temporary file of this export may be left on Yandex Disk, %s: %s", path, failure)

    def send(self, name: str, path: Path, digest: FileDigest, progress: Progress | None) -> None:
        """Uploads one file to a temporary name and proves it there."""
        problem = ""
        for _ in range(_SENDS):
            temporary = self._new_name()
            if problem:
                log.warning("Yandex Disk: sending %s again: %s", name, problem)
            self._put(name, path, temporary, digest, progress)
            found = self.disk.await_file(temporary, digest, is_new=True)
            if found is not None and found.matches(digest):
                self.sent[name] = temporary
                return
            problem = "the service confirmed it but has no such file"
            if found is not None:
                problem = (
                    f"the service confirmed it but holds {found.size} bytes with sha256 "
                    f"{(found.sha256 or 'unknown')[:12]}, not {digest['size']} bytes with {digest['sha256'][:12]}"
                )
            self.disk.remove(temporary)
        raise ExportError(f"Yandex Disk: {name} was sent {_SENDS} times and never arrived whole: {problem}")

    def put_in_place(self, names: list[str], digests: Mapping[str, FileDigest]) -> None:
        """Moves the proven files over the old ones, the card last; puts the old ones back when that fails half-way."""
        backups = self._back_up(names) if len(names) > 1 else {}
        moved: list[str] = []
        try:
            for name in names:
                moved.append(name)
                self.disk.move(self.sent[name], f"{self.folder}/{name}", digests[name])
                self._leftovers.discard(self.sent[name])
        except BaseException as error:
            lost = [name for name in reversed(moved) if name in backups and not self._restore(name, backups[name])]
            if lost and isinstance(error, ExportError):
                raise ExportError(
                    f"{error}. {', '.join(lost)} in {self.folder} had been replaced already and could not be put "
                    "back: the model there is not usable until it is exported again"
                ) from error
            raise

    def _put(self, name: str, path: Path, temporary: str, digest: FileDigest, progress: Progress | None) -> None:
        """One confirmed upload. After a failure that may hide a success it looks before it sends again."""

        def is_there(error: BaseException) -> bool:
            if not may_have_been_done(error):
                return False
            asked_s = self.disk.asked_s
            found = self.disk.await_file(temporary, digest, looks=3)
            self.disk.asked_s = asked_s
            return found is not None and found.matches(digest)

        def attempt() -> None:
            try:
                with _Reporting(path, name, digest["size"], progress) as stream:
                    self.disk.client.upload(
                        stream,
                        temporary,
                        overwrite=True,
                        n_retries=0,
                        timeout=self.disk.timeouts.transfer(digest["size"]),
                        spoof_user_agent=False,
                    )
            except yd.ParentNotFoundError:
                self.disk.ensure_folder(self.folder)  # removed meanwhile, or its own creation is lagging
                raise yd.RetriableYaDiskError(None, f"the folder {self.folder} was not there yet") from None
            except (yd.YaDiskError, requests.RequestException) as error:
                if is_transient(error) and is_there(error):
                    log.info("Yandex Disk: %s arrived although its answer was lost", name)
                    return
                raise

        self.disk.call(f"upload {name} ({megabytes(digest['size'])})", lambda **_: attempt())
        if progress is not None:
            progress(name, digest["size"], digest["size"])

    def _back_up(self, names: list[str]) -> dict[str, str | None]:
        """Copies, on the disk's side, of the files about to be replaced; None for one that could not be copied."""
        backups: dict[str, str | None] = {}
        for name in names:
            old = f"{self.folder}/{name}"
            if self.disk.look(old) is None:
                continue
            backup = self._new_name()
            try:
                link = self.disk.call(
                    f"keep a copy of {old}", self.disk.client.copy, old, backup, wait=False, attempts=2
                )
                failure = self.disk.operation_failure(link)
            except ExportError as error:
                failure = str(error)
            if failure is not None:
                log.warning("no copy of the old %s is kept while it is being replaced: %s", old, failure)
            backups[name] = backup if failure is None else None
        return backups

    def _restore(self, name: str, backup: str | None) -> bool:
        """Puts an old file back, unless its replacement never left its temporary name."""
        try:
            if self.disk.look(self.sent[name]) is not None:
                return True
            kept = self.disk.look(backup) if backup is not None else None
            if backup is None or kept is None or kept.size is None or kept.sha256 is None:
                return False
            self._leftovers.discard(backup)  # should the move fail, it is the only copy of the old file
            self.disk.move(backup, f"{self.folder}/{name}", {"sha256": kept.sha256, "size": kept.size})
        except ExportError as error:
            log.warning("could not put the old %s back: %s", name, error)
            return False
        return True

    def _new_name(self) -> str:
        path = f"{self.folder}/{TEMPORARY_PREFIX}{secrets.token_hex(6)}"
        self._leftovers.add(path)
        return path


class _Reporting(io.RawIOBase):
    """A file open for reading that tells a callback how much of it was read."""

    def __init__(self, path: Path, name: str, size: int, progress: Progress | None) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._name, self._size, self._progress = name, size, progress
        self._reported = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        position = self._file.tell()
        if self._progress is not None and (position < self._reported or position - self._reported >= _REPORT_BYTES):
            self._reported = position
            self._progress(self._name, position, self._size)
        return chunk

    def close(self) -> None:
        self._file.close()
        super().close()
