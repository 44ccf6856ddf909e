"""The files of Yandex Disk: looking at them, moving and removing them; what is seen there counts, not an answer."""

import logging
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import yadisk
from yadisk import exceptions as yd

from search.errors import ExportError
from search.export.backoff import Backoff
from search.export.files import FileDigest
from search.export.yandex.errors import LOST_ANSWER, describe
from search.export.yandex.session import DiskSession, Timeouts

log = logging.getLogger("segsearch")


@dataclass(frozen=True)
class RemoteFile:
    """What the service says about one path; a field is None where it does not say, as a hash it still works out."""

    path: str
    type: str | None
    size: int | None
    sha256: str | None

    def matches(self, digest: FileDigest) -> bool:
        """Whether it is a file of exactly this content."""
        return self.type != "dir" and self.size == digest["size"] and self.sha256 == digest["sha256"]


class Disk:
    """The disk of a token; a context manager that closes its connections."""

    def __init__(self, token: str, backoff: Backoff | None = None, timeouts: Timeouts | None = None) -> None:
        self.session = DiskSession(token, backoff, timeouts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.session.close()

    def look(self, path: str) -> RemoteFile | None:
        """Metadata of a path; None where there is nothing."""
        try:
            found = self.session.call(
                f"look at {path}",
                self.session.client.get_meta,
                path,
                fields=["type", "size", "sha256", "path"],
                limit=0,
                expected=(yd.PathNotFoundError,),
            )
        except yd.PathNotFoundError:
            return None
        return RemoteFile(path, found.type, found.size, found.sha256)

    def await_file(
        self, path: str, digest: FileDigest, *, looks: int | None = None, is_new: bool = False
    ) -> RemoteFile | None:
        """Waits until the metadata of a path show the expected content; they may lag behind an upload.

        Args:
            path: Where the file should be.
            digest: What it should hold.
            looks: How often to look at most; by default as often as the backoff's `poll_delays_s`.
            is_new: The path never held anything else, so metadata that keep naming other content are not a delay.

        Returns:
            The last metadata seen; they may not match. None if there was nothing to the end.
        """
        found = self.look(path)
        differing = 0
        for delay in self.session.backoff.poll_delays_s[: None if looks is None else max(looks - 1, 0)]:
            if found is not None and found.matches(digest):
                return found
            if found is not None and found.size is not None and found.sha256 is not None:
                differing += 1
                if is_new and differing > 2:
                    return found
            self.session.backoff.sleep(delay)
            found = self.look(path)
        return found

    def ensure_folder(self, path: str) -> None:
        """Makes a folder and its parents where they are missing.

        Raises:
            ExportError: A file is in the way, or the service refuses.
        """
        scheme, _, rest = path.partition("/")
        found = self.look(path)
        if found is None:
            parts = rest.split("/")
            for depth in range(1, len(parts) + 1):
                self._make_folder(f"{scheme}/" + "/".join(parts[:depth]))
            found = self.look(path)
        if found is not None and found.type == "file":
            raise ExportError(f"Yandex Disk: {path} is a file, so no model can be put into it; choose another folder")

    def move(self, source: str, destination: str, digest: FileDigest) -> None:
        """Moves a file over whatever is there and waits until the destination shows its content.

        An answer may get lost after the move was done, so the destination is what counts, not the answer.

        Args:
            source: Path of the file.
            destination: Its new path.
            digest: What it must hold.

        Raises:
            ExportError: The destination does not hold the file after the last attempt.
        """
        may_be_done = (*LOST_ANSWER, yd.PathNotFoundError)
        for attempt in range(1, self.session.backoff.attempts + 1):
            accepted, asked_s = False, None
            try:
                link = self.session.call(
                    f"move {source} to {destination}",
                    self.session.client.move,
                    source,
                    destination,
                    overwrite=True,
                    wait=False,
                    expected=may_be_done,
                )
            except may_be_done as error:
                answer, asked_s = describe(error), self.session.asked_s
                log.warning("Yandex Disk: moving %s: %s; looking whether it was moved", source, answer)
            else:
                failure = self.operation_failure(link)
                accepted, answer = failure is None, failure or "it reported success"
            if self._holds(destination, digest, looks=None if accepted else 2):
                return
            if self.look(source) is None:
                if self._holds(destination, digest):
                    return
                break
            self.session.backoff.sleep(self.session.backoff.wait_s(attempt, asked_s))
        raise ExportError(
            f"Yandex Disk: {source} was to be moved to {destination}, but what is there is not the file that was "
            f"sent (last answer: {answer})"
        )

    def remove(self, path: str) -> None:
        """Deletes a file of ours for good; one that is not there is fine."""
        try:
            self.session.call(
                f"delete {path}",
                self.session.client.remove,
                path,
                permanently=True,
                wait=False,
                attempts=min(3, self.session.backoff.attempts),
                expected=(yd.NotFoundError,),
            )
        except yd.NotFoundError:
            return

    def check_room(self, sizes: dict[str, int]) -> None:
        """Refuses at once what cannot fit, where the token may ask for the quota.

        Raises:
            ExportError: The files need more space than is free, or one is larger than the account's limit.
        """
        try:
            info = self.session.call("ask for the free space", self.session.client.get_disk_info, attempts=2)
        except ExportError as error:  # a token may do without the right to ask
            log.info("the free space is not known beforehand: %s", error)
            return
        if info.total_space is not None and info.used_space is not None:
            free, needed = info.total_space - info.used_space, sum(sizes.values())
            if needed > free:
                raise ExportError(
                    f"Yandex Disk has {max(free, 0):,} bytes free and the model needs {needed:,}; "
                    "free some space (empty the trash) and try again"
                )
        for name, size in sizes.items():
            if info.max_file_size and size > info.max_file_size:
                raise ExportError(
                    f"Yandex Disk: {name} has {size:,} bytes; this account takes {info.max_file_size:,} at most"
                )

    def operation_failure(self, link: Any) -> str | None:
        """Waits for the operation that a 202 names; None once it is done or where there was none.

        Args:
            link: What `move` or `copy` returned: an operation's link after a 202, else the resource's.
        """
        if not isinstance(link, yadisk.objects.SyncOperationLinkObject):
            return None
        for poll in range(self.session.backoff.operation_polls):
            try:
                status = self.session.call(
                    "ask for the state of a move",
                    self.session.client.get_operation_status,
                    link.href,
                    expected=(yd.OperationNotFoundError,),
                )
            except yd.OperationNotFoundError:
                return None
            if status != "in-progress":
                return None if status == "success" else f"the operation ended as {status!r}"
            self.session.backoff.sleep(min(0.3 * 1.3**poll, 5.0))
        return "the operation did not end"

    def _holds(self, path: str, digest: FileDigest, looks: int | None = None) -> bool:
        found = self.await_file(path, digest, looks=looks)
        return found is not None and found.matches(digest)

    def _make_folder(self, path: str) -> None:
        try:
            self.session.call(
                f"make the folder {path}", self.session.client.mkdir, path, expected=(yd.PathExistsError,)
            )
        except yd.PathExistsError:
            return
