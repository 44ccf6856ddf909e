"""Questions to a Weights & Biases server, with a time limit: does it answer, did the rows arrive.

`wandb`'s own calls retry for long and report success for rows that never reached the server, so both questions
are asked with one small GraphQL request each.
"""

import base64
import json
import netrc
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

CLOUD_HOST = "api.wandb.ai"
"""Under this name `wandb login` has stored keys of the public service in `.netrc`."""

KEY_REFUSED = "refuses the API key"
PUBLIC_SERVICE = "https://api.wandb.ai"

_VIEWER = "query Viewer { viewer { id entity } }"
_ROWS = """query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) { bucket(name: $name, missingOk: true) { id historyLineCount } }
}"""


@dataclass(frozen=True)
class Service:
    """A server and the key for it; `api_key` is None where an identity token file is used instead."""

    base_url: str
    api_key: str | None = field(default=None, repr=False)

    def problem(self, timeout_s: float) -> str | None:
        """Why runs cannot be sent there, in a few words; None when they can.

        Args:
            timeout_s: Longest wait in seconds, name resolution included.
        """
        answer = within(timeout_s, lambda: self._ask(_VIEWER, {}, timeout_s))
        if answer is None:
            return _too_late(timeout_s)
        if isinstance(answer, str):
            return answer
        if self.api_key is not None and answer.get("viewer", "absent") is None:
            return KEY_REFUSED
        return None

    def count_rows(self, entity: str, project: str, run_id: str, timeout_s: float) -> int | None:
        """Rows of a run's history that the server has; None when it does not answer.

        Args:
            entity: User or team.
            project: The W&B project.
            run_id: The run's id in the project.
            timeout_s: Longest wait in seconds.
        """
        variables = {"project": project, "entity": entity, "name": run_id}
        answer = within(timeout_s, lambda: self._ask(_ROWS, variables, timeout_s))
        if not isinstance(answer, dict) or self.api_key is None:
            return None
        try:
            return int(answer["model"]["bucket"]["historyLineCount"])
        except (KeyError, TypeError, ValueError):
            return None

    def _ask(self, query: str, variables: Mapping[str, str], timeout_s: float) -> dict[str, Any] | str:
        """The answer's `data`, or what is wrong."""
        request = urllib.request.Request(
            f"{self.base_url.rstrip('/')}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "segsearch"},
        )
        if self.api_key is not None:
            credentials = base64.b64encode(f"api:{self.api_key}".encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {credentials}")
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:
                data = json.loads(response.read(1 << 20)).get("data")
                return data if isinstance(data, dict) else {}
        except urllib.error.HTTPError as error:
            if self.api_key is None:  # an identity token is not ours to send; any answer shows that it is there
                return {}
            return KEY_REFUSED if error.code in (401, 403) else f"answers HTTP {error.code}"
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                return {}  # it is there; wandb brings certificates of its own
            if isinstance(error.reason, TimeoutError):
                return _too_late(timeout_s)
            return f"cannot be reached ({error.reason})"
        except TimeoutError:
            return _too_late(timeout_s)
        except (OSError, ValueError) as error:
            return f"does not answer ({error})"


def find_service(base_url: str, settings_key: str | None = None) -> Service | None:
    """The server that `wandb` would use, when there are credentials for it: environment, `.netrc`, then settings.

    Args:
        base_url: The server's address.
        settings_key: A key from wandb's settings files, if any.
    """
    key = os.environ.get("WANDB_API_KEY") or _netrc_key(base_url) or settings_key
    if key:
        return Service(base_url, key)
    return Service(base_url) if os.environ.get("WANDB_IDENTITY_TOKEN_FILE") else None


def may_have_key() -> bool:
    """Whether `wandb`, which takes a second to load, has to be asked for a key: environment, `.netrc`, settings."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    base_url = os.environ.get("WANDB_BASE_URL") or PUBLIC_SERVICE
    if _netrc_key(base_url):
        return True
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    return any((place / "settings").is_file() for place in (folder, Path(os.environ.get("WANDB_DIR") or ".") / "wandb"))


def server_and_key() -> tuple[str, str | None]:
    """The server that `wandb` would use, and the key in its settings files, if any."""
    import wandb

    settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
    return settings.base_url, settings.api_key


def within(timeout_s: float, work: Callable[[], T]) -> T | None:
    """The result of `work`, or None when it raised or took longer; it is then left behind in a daemon thread."""
    results: list[T] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception:
            return

    thread = threading.Thread(target=run, name="segsearch-wandb-ask", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return results[0] if results else None


def _netrc_key(base_url: str) -> str | None:
    host = urlsplit(base_url).netloc
    paths = [Path(os.environ["NETRC"])] if os.environ.get("NETRC") else [Path("~/.netrc"), Path("~/_netrc")]
    for path in paths:
        try:
            entries = netrc.netrc(path.expanduser())
        except (OSError, netrc.NetrcParseError, RuntimeError):
            continue
        for name in (host, *_cloud_names(host)):
            found = entries.authenticators(name)
            if found and found[2]:
                return found[2]
        return None
    return None


def _cloud_names(host: str) -> list[str]:
    """Newer clients reach the public service under another name; their keys stay under the old one."""
    return [CLOUD_HOST] if host.endswith((".wandb.ai", "forge.coreweave.com")) and host != CLOUD_HOST else []


def _too_late(timeout_s: float) -> str:
    return f"does not answer within {timeout_s:g} s"
