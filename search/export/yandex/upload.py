"""A sealed model on its way to Yandex Disk, each byte accounted for before anything is replaced.

Every file first goes to a temporary name in the same folder, and the service's own size and sha256 of it are compared
with ours: a 201 alone says nothing, it came for truncated, altered and lost files. Only when all files are proven
are they moved into place, the card last, so that no reader meets a new card beside old weights. The temporary names
have no extension, because the service throttles uploads whose name looks like data, an archive or a video.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from search.errors import ExportError
from search.export.backoff import Backoff
from search.export.files import FileDigest, Progress, card_last, digest_of
from search.export.target import Receipt
from search.export.yandex.disk import Disk
from search.export.yandex.errors import is_transient
from search.export.yandex.location import clean_path, page_url
from search.export.yandex.session import Timeouts
from search.export.yandex.staging import Staging
from search.export.yandex.token import read_token


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

    def ask(self, timeout_s: float) -> str | None:
        """Asks the service for the folder once, which shows whether it takes the token.

        Args:
            timeout_s: Longest wait for a connection, and again for an answer, in seconds.

        Returns:
            Why nothing is known, if so.

        Raises:
            ExportError: The token is refused, or may not look at the folder.
        """
        once, bounds = Backoff(attempts=1), Timeouts(connect_s=timeout_s, read_s=timeout_s)
        try:
            with Disk(read_token(), once, bounds) as disk:
                disk.look(self.location)
        except ExportError as error:
            if error.__cause__ is not None and is_transient(error.__cause__):
                return str(error)
            raise
        return None

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
        with Disk(read_token(), self._backoff, self._timeouts) as disk:
            disk.ensure_folder(self.location)
            with Staging(disk, self.location) as staging:
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

    def _is_there(self, disk: Disk, name: str, digest: FileDigest, *, wait: bool = False) -> bool:
        path = f"{self.location}/{name}"
        found = disk.await_file(path, digest) if wait else disk.look(path)
        if found is not None and found.type == "dir":
            raise ExportError(f"Yandex Disk: {path} is a folder where the model's file should go; move it away")
        return found is not None and found.matches(digest)
