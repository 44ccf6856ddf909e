"""Starts a Ray on this machine or joins a running one; fails within a minute, with one message."""

import importlib.util
import logging
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import ray
from ray._private import services
from ray._private.accelerators import get_accelerator_manager_for_resource
from ray._private.utils import get_num_cpus

from search.errors import RayStartError, ResourceError
from search.machine.worker_imports import OrderedImports, worker_environment
from search.tune.cluster.address import Place, running_ray
from search.tune.cluster.output import raw_lines_held

log = logging.getLogger("segsearch")

PAUSES_S = (2.0, 5.0)
"""Before the second and the third attempt to start Ray here."""
LAST_START_S = 30.0
"""Seconds after which no further attempt begins: one that fails slowly has taken half a minute or more."""
JOIN_ATTEMPTS = 8
"""How often a head is asked that does not answer, about once a second."""
_PORT_VARIABLE = "RAY_GCS_SERVER_PORT"
_WAIT_VARIABLE = "RAY_gcs_server_port_wait_time_s"
SOCKET_PATH_BYTES = 107
_SOCKET_PATH = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.99"
"""What Ray puts behind its temporary folder for the longest of its socket paths."""
_SHORT_FOLDERS = (Path("/tmp/ray"), Path("/dev/shm/ray"))
_VERSIONS = re.compile(r"started with:\s+Ray: (\S+)\s+Python: (\S+)\s+.*started with:\s+Ray: (\S+)\s+Python: (\S+)")
_NO_NODE_HERE = (
    "no node of that cluster runs on this machine, and a search is a driver on a node; start the command on a node, or "
    "add this machine with `ray start --address=HOST:PORT`"
)


def require_ray(address: str | None) -> None:
    """Refuses an address at which no Ray answers, and a folder that a Ray of our own could not use; starts none.

    Args:
        address: `resources.address`.

    Raises:
        ResourceError: With the address or the folder, and what names it.
    """
    if not ray.is_initialized() and running_ray(address) is None:
        ray_folder()
        _require_free_port()


def join(place: Place) -> Any:
    """Connects to a Ray that answers.

    Raises:
        ResourceError: It refuses the connection.
    """
    if not services.find_node_ids():
        raise place.refusal(_NO_NODE_HERE)  # Ray would look for one for a minute
    try:
        with raw_lines_held(), _short_wait():
            return ray.init(
                address=place.address,
                job_config=OrderedImports(),
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
    except Exception as error:
        with raw_lines_held():
            ray.shutdown()
        raise place.refusal(_why_refused(error)) from error


@contextmanager
def visited(address: str | None) -> Iterator[bool]:
    """The running Ray of an address, which is joined and left again; false where one would be started here.

    Args:
        address: `resources.address`.

    Raises:
        ResourceError: No Ray answers there.
    """
    if ray.is_initialized():
        yield True
    elif (place := running_ray(address)) is None:
        yield False
    else:
        join(place)
        try:
            yield True
        finally:
            with raw_lines_held():
                ray.shutdown()


def start() -> Any:
    """Starts a Ray on this machine; where the machine is too crowded for it, tries again, at most twice.

    Raises:
        ResourceError: There is no suitable folder for its files.
        RayStartError: It did not start, with the last reason.
    """
    folder, begun = ray_folder(), monotonic()
    _require_free_port()
    for attempt, pause in enumerate((*PAUSES_S, None), start=1):
        try:
            with raw_lines_held(), worker_environment():
                return ray.init(
                    address="local",
                    job_config=OrderedImports(),
                    include_dashboard=importlib.util.find_spec("aiohttp_cors") is not None,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                    _temp_dir=str(folder),
                )
        except Exception as error:  # Ray raises RuntimeError, ConnectionError, TimeoutError and plain Exception
            with raw_lines_held():
                ray.shutdown()
            reason = _first_line(error)
            if isinstance(error, ValueError | PermissionError | FileNotFoundError):
                raise RayStartError(f"Ray cannot be started on this machine: {reason}") from error
            if pause is None or monotonic() - begun > LAST_START_S:
                raise RayStartError(_did_not_start(reason, attempt, folder)) from error
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


def ray_folder() -> Path:
    """The folder for the files of a Ray that is started here: it can be written, and its socket paths are short enough.

    Raises:
        ResourceError: There is none.
    """
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), None)
    chosen = Path(os.environ[variable] if variable else "/tmp").absolute() / "ray"
    fits = len(os.fsencode(chosen)) + len(_SOCKET_PATH) <= SOCKET_PATH_BYTES
    problem = _not_writable(chosen) if fits else None
    if fits and (problem is None or variable):
        if problem is None:
            return chosen
        raise ResourceError(
            f"{variable}={chosen.parent}: Ray cannot write its files there ({problem}); set RAY_TMPDIR to a folder "
            "that can be written"
        )
    others = [folder for folder in (*_SHORT_FOLDERS, Path(f"/tmp/ray-{os.getuid()}")) if folder != chosen]
    for folder in others:
        if _not_writable(folder) is None:
            reason = (
                f"it cannot write to {chosen} ({problem})"
                if fits
                else (f"socket paths below {variable}={chosen.parent} would be too long")
            )
            log.info("Ray's files go to %s: %s", folder, reason)
            return folder
    if fits:
        raise ResourceError(
            f"Ray cannot write its files to {chosen} ({problem}); set RAY_TMPDIR to a folder that can be written"
        )
    raise ResourceError(
        f"{variable}={chosen.parent}: too long for Ray, whose socket paths may have {SOCKET_PATH_BYTES} bytes; "
        f"set RAY_TMPDIR to a folder with a path of at most {SOCKET_PATH_BYTES - len(_SOCKET_PATH) - len('/ray')} bytes"
    )


@contextmanager
def _short_wait() -> Iterator[None]:
    """Makes Ray ask a head that does not answer for some seconds only; its default is 20 attempts."""
    before = os.environ.get(_WAIT_VARIABLE)
    os.environ.setdefault(_WAIT_VARIABLE, str(JOIN_ATTEMPTS))
    try:
        yield
    finally:
        if before is None:
            del os.environ[_WAIT_VARIABLE]


def _require_free_port() -> None:
    port = os.environ.get(_PORT_VARIABLE)
    if not port:
        return
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", int(port)))
    except (OSError, ValueError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ResourceError(
            f"{_PORT_VARIABLE}={port}: Ray cannot start on this port ({reason}); unset it, and Ray takes a free one"
        ) from error


def _not_writable(folder: Path) -> str | None:
    """Why a folder, which is made where it is missing, cannot be written; None where it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _did_not_start(reason: str, attempts: int, folder: Path) -> str:
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    crowd = f"the machine is crowded: a load of {load:.0f} on {cores} cores; " if load > cores else ""
    tried = f", tried {attempts} times" if attempts > 1 else ""
    return (
        f"Ray did not start on this machine{tried}: {reason}; {crowd}"
        f"try again when there is more room, or see Ray's logs in {folder / 'session_latest' / 'logs'}"
    )


def _why_refused(error: BaseException) -> str:
    """What Ray says of a connection that failed; the reason itself is in the error that caused the last one."""
    texts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(texts) < 10:
        texts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    said = "\n".join(texts)
    if (versions := _VERSIONS.search(said)) is not None:
        theirs, their_python, ours, our_python = versions.groups()
        return (
            f"it runs Ray {theirs} with Python {their_python}, this command has Ray {ours} with Python {our_python}; "
            "install the same versions on all nodes"
        )
    if "No node info found" in said:
        return _NO_NODE_HERE
    if "Failed to connect to GCS" in said:
        return "something answers there, but it is no head of a Ray"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text.partition(".  Last ")[0].rstrip(".")
