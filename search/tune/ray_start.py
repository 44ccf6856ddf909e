"""Joins the Ray that a config names or starts one here; fails soon, with one message that says what is wrong.

Ray itself waits up to a quarter of an hour for an address that is dead, and writes a line for each attempt.
"""

import importlib.util
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private.accelerators import get_accelerator_manager_for_resource
from ray._private.services import canonicalize_bootstrap_address
from ray._private.utils import get_num_cpus

from search.errors import RayStartError, ResourceError
from search.machine.worker_imports import OrderedImports, worker_environment

log = logging.getLogger("segsearch")

ADDRESS_VARIABLE = "RAY_ADDRESS"
CLIENT_PREFIX = "ray://"
ANSWER_TIMEOUT_S = 5.0
"""How long a host may take to accept a connection, and then to answer."""
PAUSES_S = (2.0, 5.0)
"""Before the second and the third attempt to start Ray here."""
SOCKET_PATH_BYTES = 107
_SOCKET_PATH = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.99"
"""What Ray puts behind its temporary folder for the longest of its socket paths."""
_SHORT_FOLDERS = (Path("/tmp/ray"), Path("/dev/shm/ray"))
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""What a gRPC client begins with: the preface and an empty frame of settings."""
_SETTINGS_FRAME = 4


@dataclass(frozen=True)
class Place:
    """Where a session's Ray is.

    Attributes:
        address: As Ray takes it.
        origin: The key or variable that names it, for messages.
    """

    address: str
    origin: str


def require_ray(address: str | None) -> None:
    """Refuses an address at which no Ray answers; one that is to be started here cannot be known to fail.

    Args:
        address: `resources.address`.

    Raises:
        ResourceError: With the address and what names it.
    """
    if not ray.is_initialized():
        running_ray(address)


def running_ray(address: str | None) -> Place | None:
    """The Ray to join, which answers; None, if one is to be started here.

    Args:
        address: `resources.address`: None joins one that is up on this machine, else starts one; `auto` joins one;
            `local` starts one; else a host and port.

    Raises:
        ResourceError: No Ray answers there.
    """
    place = _named(address)
    given = place.address if place else address
    if given and given.startswith(CLIENT_PREFIX):
        if importlib.util.find_spec("grpc") is None:
            raise ResourceError(f"{_refusal(given, place)}: {CLIENT_PREFIX} needs pip install 'ray[client]'")
        host, _, port = given.removeprefix(CLIENT_PREFIX).partition("/")[0].rpartition(":")
        bootstrap: str | None = f"{host or port}:{port if host else '10001'}"
    else:
        try:
            bootstrap = canonicalize_bootstrap_address(given)
        except (ConnectionError, ValueError, OSError) as error:
            reason = "no Ray runs on this machine" if given == "auto" else _first_line(error)
            raise ResourceError(f"{_refusal(given, place)}: {reason}. {_way_out(place)}") from error
    if bootstrap is None:
        return None
    problem = _no_answer(bootstrap)
    if problem is None:
        return place or Place(bootstrap, "found on this machine")
    if place is None:
        log.info("the Ray that was started on this machine is gone (%s: %s); starting another", bootstrap, problem)
        return None
    raise ResourceError(f"{_refusal(given, place)}: {problem}. {_way_out(place)}")


def join(place: Place) -> Any:
    """Connects to a Ray that answers.

    Raises:
        ResourceError: It refuses the connection.
    """
    try:
        with _raw_lines_held():
            return ray.init(
                address=place.address,
                job_config=OrderedImports(),
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
    except Exception as error:
        raise ResourceError(f"{_refusal(place.address, place)}: {_first_line(error)}. {_way_out(place)}") from error


def start() -> Any:
    """Starts a Ray on this machine; where the machine is too crowded for it, tries again twice.

    Raises:
        ResourceError: There is no suitable folder for its files.
        RayStartError: It did not start, with the last reason.
    """
    folder = ray_folder()
    options = {} if folder is None else {"_temp_dir": str(folder)}
    for pause in (*PAUSES_S, None):
        try:
            with _raw_lines_held(), worker_environment():
                return ray.init(
                    address="local",
                    job_config=OrderedImports(),
                    include_dashboard=importlib.util.find_spec("aiohttp_cors") is not None,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                    **options,
                )
        except Exception as error:  # Ray raises RuntimeError, ConnectionError, TimeoutError and plain Exception
            with _raw_lines_held():
                ray.shutdown()
            reason = _first_line(error)
            if isinstance(error, ValueError | PermissionError | FileNotFoundError):
                raise RayStartError(f"Ray cannot be started on this machine: {reason}") from error
            if pause is None:
                raise RayStartError(_did_not_start(reason)) from error
        log.warning("Ray did not start (%s); trying again in %.0f s", reason, pause)
        time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def own_resources() -> dict[str, float]:
    """The cores and GPUs that Ray would find on this machine, by its names; none is started."""
    gpus = get_accelerator_manager_for_resource("GPU")
    found = gpus.get_current_node_num_accelerators() if gpus else 0
    visible = gpus.get_current_process_visible_accelerator_ids() if gpus else None
    found = found if visible is None else min(found, len(visible))
    return {"CPU": float(get_num_cpus(override_docker_cpu_warning=True)), "GPU": float(found)}


def ray_folder() -> Path | None:
    """A folder for Ray's files whose socket paths are short enough; None where Ray's own choice is short enough.

    Raises:
        ResourceError: There is none.
    """
    variable = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    chosen = Path(os.environ.get(variable, "/tmp")) / "ray"
    if _fits_sockets(chosen):
        return None
    for folder in _SHORT_FOLDERS:
        parent = folder if folder.is_dir() else folder.parent
        if os.access(parent, os.W_OK | os.X_OK):
            log.info(
                "Ray's files go to %s: socket paths below %s=%s would be too long", folder, variable, chosen.parent
            )
            return folder
    raise ResourceError(
        f"{variable}={chosen.parent}: too long for Ray, whose socket paths may have {SOCKET_PATH_BYTES} bytes; "
        f"set RAY_TMPDIR to a folder with a path of at most {SOCKET_PATH_BYTES - len(_SOCKET_PATH) - len('/ray')} bytes"
    )


def _fits_sockets(folder: Path) -> bool:
    return len(os.fsencode(folder)) + len(_SOCKET_PATH) <= SOCKET_PATH_BYTES


def _named(address: str | None) -> Place | None:
    """The Ray that the config, or else the environment, names; None where neither names one."""
    variable = os.environ.get(ADDRESS_VARIABLE)
    if variable and address in (None, "auto"):  # as Ray decides between them
        return Place(variable, ADDRESS_VARIABLE) if variable != "local" else None
    return Place(address, "resources.address") if address not in (None, "local") else None


def _no_answer(bootstrap: str) -> str | None:
    """What is wrong at a host and port; None where gRPC is spoken, as Ray does."""
    host, _, port = bootstrap.rpartition(":")
    try:
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_TIMEOUT_S)
    except TimeoutError:
        return f"no connection within {ANSWER_TIMEOUT_S:g} s"
    except (OSError, ValueError, OverflowError) as error:
        return (getattr(error, "strerror", None) or str(error)).lower()
    with connection:
        if os.environ.get("RAY_USE_TLS", "0") not in ("0", ""):
            return None  # it answers to certificates that only Ray's client has
        try:
            connection.sendall(_HTTP2_GREETING)
            frame = _received(connection, 9)
        except TimeoutError:
            return f"something accepts connections there, but answered nothing in {ANSWER_TIMEOUT_S:g} s: it is no Ray"
        except OSError:
            frame = b""
    is_grpc = len(frame) == 9 and frame[3] == _SETTINGS_FRAME
    return None if is_grpc else "something answers there, but not as Ray does"


def _received(connection: socket.socket, size: int) -> bytes:
    """The first bytes that come, as many as asked for or until the other side closes."""
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    data = b""
    while len(data) < size:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        part = connection.recv(size - len(data))
        if not part:
            break
        data += part
    return data


def _refusal(address: str | None, place: Place | None) -> str:
    return f"Ray cannot be reached at {address} ({place.origin})" if place else "Ray cannot be reached"


def _way_out(place: Place | None) -> str:
    name = place.origin if place else "resources.address"
    return (
        f"Set {name} to the head node's HOST:PORT (6379, if `ray start --head` was given none), or start a Ray here "
        "with --set resources.address=local"
    )


def _did_not_start(reason: str) -> str:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    crowd = f"the machine is crowded: a load of {load:.0f} on {cores} cores; " if load > cores else ""
    logs = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"
    return (
        f"Ray did not start on this machine, tried {len(PAUSES_S) + 1} times: {reason}; {crowd}"
        f"try again when there is more room, or see Ray's logs in {logs / 'session_latest' / 'logs'}"
    )


@contextmanager
def _raw_lines_held() -> Iterator[None]:
    """Hides from the user what Ray's own code writes to the process's stderr; it is logged for debugging."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines():
                log.debug("ray: %s", line)


def _first_line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text.rstrip(".")
