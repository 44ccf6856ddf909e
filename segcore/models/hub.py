"""Pretrained weights of timm's hub: from the local cache, or downloaded once; a dead network fails within seconds."""

import threading
from collections.abc import Callable

from segcore.errors import ConfigError
from segcore.silence import silent_library

WEIGHTS = "model.safetensors"
"""The only file that is downloaded for a model, never a pickle."""
PROBE_TIMEOUT_S = 5.0
"""Timeout of one request that asks the hub whether it has the file."""
DEADLINE_S = 12.0
"""Total time for that, including a silent name server or redirects."""
_CLIENT_LOGGERS = ("huggingface_hub", "httpx", "httpx2")


class HubError(ConfigError):
    """The config asks for weights that are neither on this machine nor available from the hub."""


def hub_file(name: str, repository: str | None) -> str:
    """The path of a timm model's pretrained weights; later calls need no network.

    Args:
        name: The model's name in messages.
        repository: `OWNER/NAME` on the hub, with `@REVISION` where it is not the newest; None where there is none.

    Raises:
        HubError: They are not in the cache and cannot be downloaded; says what was tried and the alternatives.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache

    repo, _, revision = (repository or "").partition("@")
    if not repo:
        raise HubError(no_weights_message(name, "timm knows of none on the hub"))
    cached = try_to_load_from_cache(repo, WEIGHTS, revision=revision or None)
    if isinstance(cached, str):
        return cached
    url = hf_hub_url(repo, WEIGHTS, revision=revision or None)
    with silent_library(*_CLIENT_LOGGERS):
        try:
            _within(DEADLINE_S, lambda: _probe(url))
            return hf_hub_download(repo, WEIGHTS, revision=revision or None)
        except Exception as error:  # the hub's client raises OSError, ValueError and several HTTP types
            raise HubError(no_weights_message(name, f"tried {url}: {_reason(error)}")) from error


def no_weights_message(name: str, reason: str) -> str:
    """The message that a model's weights are not available, and what works instead."""
    from huggingface_hub import constants

    return (
        f"model.encoder_weights: no pretrained weights of timm:{name}: they are not in {constants.HF_HUB_CACHE}, and "
        f"not to be had from timm's hub: {reason.rstrip('.')}\n"
        "  What works without the hub: model.encoder_weights: none; or the path of a .safetensors file with timm's "
        "names; or HF_HOME set to a folder whose cache has them. HF_ENDPOINT names another hub."
    )


def _probe(url: str) -> None:
    """Ask once whether the hub has the file; the client's own download would ask six times."""
    from huggingface_hub import get_hf_file_metadata, get_token

    get_hf_file_metadata(url, token=get_token(), timeout=PROBE_TIMEOUT_S)


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Run a call that may hang in its own thread, which is abandoned after `seconds`.

    Raises:
        TimeoutError: The call has not ended in time; else whatever it raises.
    """
    failed: list[Exception] = []

    def work() -> None:
        try:
            call()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="segsearch-hub", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    if failed:
        raise failed[0]


def _reason(error: Exception) -> str:
    if type(error).__name__ == "OfflineModeIsEnabled":
        return "HF_HUB_OFFLINE is set"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403, 404):
        return f"it has no such file for us (HTTP {status})"
    if status is not None:
        return f"it answered HTTP {status}"
    first_line = str(error).strip().partition("\n")[0]
    return first_line or type(error).__name__
