"""What a failure of Yandex Disk means: whether to try again, whether it may hide a success, what to tell the user."""

import email.utils
import re
import time

import requests
import yadisk
from yadisk import exceptions as yd

from search.export.yandex.token import TOKEN_HELP, TOKEN_VARIABLE
from search.secrets import redact

_TRANSIENT = (
    yd.RequestError,
    yd.RetriableYaDiskError,
    yd.LockedError,
    yd.TooManyRequestsError,
    yd.InvalidResponseError,
    requests.RequestException,
)
_HOPELESS = (yd.UploadTrafficLimitExceededError, yd.ResourceDownloadLimitExceededError)


LOST_ANSWER = (yd.RequestError, yd.RetriableYaDiskError, yd.InvalidResponseError, requests.RequestException)
"""After these the request may have been carried out all the same."""


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    return isinstance(error, _TRANSIENT) and not isinstance(error, _HOPELESS)


def may_have_been_done(error: BaseException) -> bool:
    """Whether only the answer may be lost, so that one must look before asking again."""
    return isinstance(error, LOST_ANSWER)


def describe(error: BaseException | None) -> str:
    """A failure in a few words, without addresses: upload links are keys of their own."""
    if error is None:
        return "no answer"
    text = re.sub(r"https?://\S+|url: \S+|/upload-target/\S+", "...", str(error))
    return redact(f"{type(error).__name__}: {text}", (TOKEN_VARIABLE,))[:300]


def explain(error: Exception, what: str, asked_s: float | None) -> str:
    """The message for a user: what failed, why, and what to do.

    Args:
        error: The failure.
        what: What was being done, as in `could not WHAT`.
        asked_s: The wait in seconds that the service asked for, if any.
    """
    where = f"Yandex Disk: could not {what}: "
    if isinstance(error, yd.UnauthorizedError):
        return f"{where}the token in {TOKEN_VARIABLE} was refused (401); it may have expired: {TOKEN_HELP}"
    if isinstance(error, yd.ForbiddenError):
        return (
            f"{where}the token may not do this (403); it needs cloud_api:disk.read and cloud_api:disk.write "
            f"(with cloud_api:disk.app_folder alone, use a location such as app:/model). {_said(error)}"
        )
    if isinstance(error, yd.PayloadTooLargeError):
        return f"{where}the file is larger than this account may upload (413). {_said(error)}"
    if isinstance(error, yd.InsufficientStorageError):
        return f"{where}no space is left on the disk (507); free some and try again"
    if isinstance(error, yd.UploadTrafficLimitExceededError):
        return f"{where}the account's upload traffic for now is used up (423); try again later. {_said(error)}"
    if isinstance(error, yd.LockedError):
        return f"{where}the resource stayed locked by another operation (423); try again in a few minutes"
    if isinstance(error, yd.TooManyRequestsError):
        asked = f", which asks to wait {asked_s:.0f} s" if asked_s else ""
        return f"{where}too many requests for the service{asked} (429); try again later"
    if isinstance(error, yd.RequestTimeoutError):
        return f"{where}no answer in time; check the connection and try again"
    if isinstance(error, yd.RequestError | requests.RequestException):
        return f"{where}no connection to {yadisk.settings.BASE_API_URL}; check network and proxy, then try again"
    return f"{where}{_said(error)}"


def _said(error: Exception) -> str:
    return f"The service said: {describe(error)}"


def retry_after_s(value: str) -> float | None:
    """Seconds from a `Retry-After` header, given as seconds or as a date."""
    if re.fullmatch(r"\d+(\.\d+)?", value.strip()):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
