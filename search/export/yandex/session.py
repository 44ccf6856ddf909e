"""One conversation with Yandex Disk: a synchronous `yadisk` client behind our own backoff and our own error messages.

`yadisk` itself retries without waiting, ignores `Retry-After` and gives up on 423 and 429, so its retries are off
and every request goes through `DiskSession.call`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import requests
import yadisk
from tenacity import RetryCallState, Retrying, retry_if_exception
from yadisk import exceptions as yd

from search.errors import ExportError
from search.export.backoff import Backoff
from search.export.yandex.errors import describe, explain, is_transient, retry_after_s

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


class DiskSession:
    """An authorised client, which `close` ends."""

    def __init__(self, token: str, backoff: Backoff | None = None, timeouts: Timeouts | None = None) -> None:
        self.backoff = backoff or Backoff()
        self.timeouts = timeouts or Timeouts()
        self.asked_s: float | None = None  # the last answer's Retry-After
        yadisk.settings.logger.setLevel(logging.WARNING)  # at INFO it prints upload links, which are keys of their own
        self.client = yadisk.Client(token=token, session="requests")
        self.client.session.requests_session.hooks["response"].append(self._note_retry_after)

    def close(self) -> None:
        """Closes its connections."""
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

    def _note_retry_after(self, response: requests.Response, *args: Any, **kwargs: Any) -> None:
        if response.status_code in (423, 429, 503):
            self.asked_s = retry_after_s(response.headers.get("Retry-After", ""))
