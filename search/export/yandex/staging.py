"""Files under temporary names on Yandex Disk: sent, proven, moved into place, and removed if left."""

import logging
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import requests
from yadisk import exceptions as yd

from search.errors import ExportError
from search.export.files import FileDigest, Progress, megabytes
from search.export.yandex.disk import Disk
from search.export.yandex.errors import is_transient, may_have_been_done
from search.export.yandex.reporting import ReportingFile

log = logging.getLogger("segsearch")

TEMPORARY_PREFIX = "segsearch-upload-"
_SENDS = 3


class Staging:
    """The temporary names of one upload; leaving it removes those that are left, whatever happened."""

    def __init__(self, disk: Disk, folder: str) -> None:
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
        """Uploads one file to a temporary name and proves it there.

        Args:
            name: The file's final name.
            path: The file to send.
            digest: What it must hold.
            progress: Called as `(file name, bytes done, bytes in total)`.
        """
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
            asked_s = self.disk.session.asked_s
            found = self.disk.await_file(temporary, digest, looks=3)
            self.disk.session.asked_s = asked_s
            return found is not None and found.matches(digest)

        def attempt() -> None:
            try:
                with ReportingFile(path, name, digest["size"], progress) as stream:
                    self.disk.session.client.upload(
                        stream,
                        temporary,
                        overwrite=True,
                        n_retries=0,
                        timeout=self.disk.session.timeouts.transfer(digest["size"]),
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

        self.disk.session.call(f"upload {name} ({megabytes(digest['size'])})", lambda **_: attempt())
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
                link = self.disk.session.call(
                    f"keep a copy of {old}", self.disk.session.client.copy, old, backup, wait=False, attempts=2
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
