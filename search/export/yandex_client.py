"""One conversation with Yandex Disk: a synchronous `yadisk` client behind our own backoff and our own error messages.

`yadisk` itself retries without waiting, ignores `Retry-After` and gives up on 423 and 429, so its retries are off
and every request goes through `DiskSession.call`. The token is read from `YADISK_TOKEN` alone and never printed.
"""

import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import requests
import yadisk
from tenacity import RetryCallState, Retrying, retry_if_exception
from yadisk import exceptions as yd

from search.errors import ExportError
from search.export.backoff import Backoff
from search.export.target import FileDigest
from search.export.yandex_errors import (
    LOST_ANSWER,
    TOKEN_HELP,
    TOKEN_VARIABLE,
    describe,
    explain,
    is_transient,
    retry_after_s,
)

log = logging.getLogger("segsearch")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Timeouts:
    """Bounds on one request, in seconds.

    Attributes:
        connect_s: Connecting, and each write of an upload.
        read_s: Waiting for an answer.
        hash_bytes_per_s: After the last byte of an upload the service hashes the file before it answers, so the wait
            grows by size over this rate.
    """

    connect_s: float = 30.0
    read_s: float = 60.0
    hash_bytes_per_s: float = 2e6

    def transfer(self, size: int) -> tuple[float, float]:
        """`(connect, read)` timeout for a file of `size` bytes."""
        return self.connect_s, self.read_s + size / self.hash_bytes_per_s


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


def read_token() -> str:
    """The OAuth token of the environment.

    Raises:
        ExportError: It is not set, or cannot be a token.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise ExportError(f"Yandex Disk needs a token and {TOKEN_VARIABLE} is not set; {TOKEN_HELP}")
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ExportError(
            f"{TOKEN_VARIABLE} holds spaces, line breaks or letters that no token has (its value is not shown); "
            f"{TOKEN_HELP}"
        )
    return token


def clean_path(location: str) -> str:
    """A folder on the disk in its one spelling: `/a/b`, or `app:/a` for a token that sees its own folder only.

    Raises:
        ExportError: The location is empty, the disk's root, or climbs with `..`.
    """
    text = location.strip().removeprefix("disk:")
    scheme, rest = ("app:", text.removeprefix("app:")) if text.startswith("app:") else ("", text)
    parts = [part for part in rest.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\x00" in rest or "\\" in rest:
        raise ExportError(
            f"yandex_disk: a location is a folder below the disk's root, such as /segsearch/attention, "
            f"found {location!r}"
        )
    return f"{scheme}/" + "/".join(parts)


class DiskSession:
    """An authorised client; a context manager that closes its connections."""

    def __init__(self, token: str, backoff: Backoff | None = None, timeouts: Timeouts | None = None) -> None:
        self.backoff = backoff or Backoff()
        self.timeouts = timeouts or Timeouts()
        self.asked_s: float | None = None  # the last answer's Retry-After
        yadisk.settings.logger.setLevel(logging.WARNING)  # at INFO it prints upload links, which are keys of their own
        self.client = yadisk.Client(token=token, session="requests")
        self.client.session.requests_session.hooks["response"].append(self._note_retry_after)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.client.close()

    def call(
        self,
        what: str,
        request: Callable[..., Result],
        *args: Any,
        expected: tuple[type[Exception], ...] = (),
        attempts: int | None = None,
        **kwargs: Any,
    ) -> Result:
        """Sends one request, again after a wait while its failure may pass.

        Args:
            what: What is being done, for messages, as in `could not WHAT`.
            request: A method of `self.client`.
            *args: Its positional arguments.
            expected: Exceptions that are an answer to the caller; they come out as they are and at once.
            attempts: Requests in all; the backoff's by default.
            **kwargs: Its keyword arguments.

        Raises:
            ExportError: It was refused, or still failed after the last attempt.
        """
        kwargs = {"n_retries": 0, "timeout": (self.timeouts.connect_s, self.timeouts.read_s), **kwargs}
        most = attempts or self.backoff.attempts

        def attempt() -> Result:
            self.asked_s = None
            return request(*args, **kwargs)

        def is_over(state: RetryCallState) -> bool:
            return state.attempt_number >= most or (self.asked_s or 0.0) > self.backoff.longest_asked_s

        def wait(state: RetryCallState) -> float:
            return self.backoff.wait_s(state.attempt_number, self.asked_s)

        def announce(state: RetryCallState) -> None:
            cause = describe(state.outcome.exception()) if state.outcome else "no answer"
            pause = state.next_action.sleep if state.next_action else 0.0
            log.warning(
                "Yandex Disk: %s: %s; attempt %d of %d in %.1f s", what, cause, state.attempt_number + 1, most, pause
            )

        retrying = Retrying(
            retry=retry_if_exception(lambda error: is_transient(error) and not isinstance(error, expected)),
            stop=is_over,
            wait=wait,
            sleep=self.backoff.sleep,
            before_sleep=announce,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except expected:
            raise
        except (yd.YaDiskError, requests.RequestException) as error:
            raise ExportError(explain(error, what, self.asked_s)) from error

    def look(self, path: str) -> RemoteFile | None:
        """Metadata of a path; None where there is nothing."""
        try:
            found = self.call(
                f"look at {path}",
                self.client.get_meta,
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
            is_new: The path never held anything else, so metadata that keep naming other content are no lag.

        Returns:
            The last metadata seen; they may not match. None if there was nothing to the end.
        """
        found = self.look(path)
        differing = 0
        for delay in self.backoff.poll_delays_s[: None if looks is None else max(looks - 1, 0)]:
            if found is not None and found.matches(digest):
                return found
            if found is not None and found.size is not None and found.sha256 is not None:
                differing += 1
                if is_new and differing > 2:
                    return found
            self.backoff.sleep(delay)
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

        Raises:
            ExportError: The destination does not hold the file after the last attempt.
        """
        may_be_done = (*LOST_ANSWER, yd.PathNotFoundError)
        for attempt in range(1, self.backoff.attempts + 1):
            accepted, asked_s = False, None
            try:
                link = self.call(
                    f"move {source} to {destination}",
                    self.client.move,
                    source,
                    destination,
                    overwrite=True,
                    wait=False,
                    expected=may_be_done,
                )
            except may_be_done as error:
                answer, asked_s = describe(error), self.asked_s
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
            self.backoff.sleep(self.backoff.wait_s(attempt, asked_s))
        raise ExportError(
            f"Yandex Disk: {source} was to be moved to {destination}, but what is there is not the file that was "
            f"sent (last answer: {answer})"
        )

    def remove(self, path: str) -> None:
        """Deletes a file of ours for good; one that is not there is fine."""
        try:
            self.call(
                f"delete {path}",
                self.client.remove,
                path,
                permanently=True,
                wait=False,
                attempts=min(3, self.backoff.attempts),
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
            info = self.call("ask for the free space", self.client.get_disk_info, attempts=2)
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
        for poll in range(self.backoff.operation_polls):
            try:
                status = self.call(
                    "ask for the state of a move",
                    self.client.get_operation_status,
                    link.href,
                    expected=(yd.OperationNotFoundError,),
                )
            except yd.OperationNotFoundError:
                return None
            if status != "in-progress":
                return None if status == "success" else f"the operation ended as {status!r}"
            self.backoff.sleep(min(0.3 * 1.3**poll, 5.0))
        return "the operation did not end"

    def _holds(self, path: str, digest: FileDigest, looks: int | None = None) -> bool:
        found = self.await_file(path, digest, looks=looks)
        return found is not None and found.matches(digest)

    def _make_folder(self, path: str) -> None:
        try:
            self.call(f"make the folder {path}", self.client.mkdir, path, expected=(yd.PathExistsError,))
        except yd.PathExistsError:
            return

    def _note_retry_after(self, response: requests.Response, *args: Any, **kwargs: Any) -> None:
        if response.status_code in (423, 429, 503):
            self.asked_s = retry_after_s(response.headers.get("Retry-After", ""))


def page_url(path: str) -> str | None:
    """The folder's page for a signed-in person; unknown for an app's own folder."""
    return None if path.startswith("app:") else f"https://disk.yandex.com/client/disk{quote(path)}"
