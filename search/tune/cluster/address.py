"""Which Ray a command uses: one of its own, or one that runs already, which is asked for a sign of life.

Ray itself waits up to a quarter of an hour for an address that is dead, and writes a line for each attempt.
"""

import logging
import os
import re
import socket
import time
from dataclasses import dataclass

from ray._private import services

from search.errors import ResourceError

log = logging.getLogger("segsearch")

ADDRESS_VARIABLE = "RAY_ADDRESS"
ANSWER_TIMEOUT_S = 5.0
"""How long a host may take to accept a connection, and then to answer."""
_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[\w.\-]+):(\d{1,5})", re.ASCII)
_HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""What a gRPC client begins with: the preface and an empty frame of settings."""
_SETTINGS_FRAME = 4
_WAY_OUT = (
    "Set {} to the head node's HOST:PORT (6379, if `ray start --head` was given none), or start a Ray here with "
    "--set resources.address=local"
)


@dataclass(frozen=True)
class Place:
    """Where a running Ray is.

    Attributes:
        address: As Ray takes it.
        origin: The key or variable that names it, for messages.
        bootstrap: Host and port.
    """

    address: str
    origin: str
    bootstrap: str

    def __str__(self) -> str:
        """Where it is, and what names it: `10.0.0.1:6379 (resources.address)`."""
        return f"{self.bootstrap} ({self.origin}=auto)" if self.address == "auto" else f"{self.address} ({self.origin})"

    def refusal(self, problem: str) -> ResourceError:
        """What to raise when it is of no use, with what can be done about it."""
        return ResourceError(f"Ray cannot be reached at {self}: {problem}. {_WAY_OUT.format(self.origin)}")


def running_ray(address: str | None) -> Place | None:
    """The Ray to join, which answers; None where one of our own is to be started.

    A `RAY_ADDRESS` in the environment counts where the config names no address: `ray job submit` and clusters set it.

    Args:
        address: `resources.address`: None is a Ray of our own, unless `RAY_ADDRESS` is set; `local` is one of our own
            in any case; `auto` is the one that runs on this machine, or that of `RAY_ADDRESS`; else host and port.

    Raises:
        ResourceError: No Ray answers there.
    """
    variable = os.environ.get(ADDRESS_VARIABLE)
    given, origin = address, "resources.address"
    if variable and (address is None or (address == "auto" and variable != "local")):
        given, origin = variable, ADDRESS_VARIABLE
    if given is None or given == "local":
        return None
    bootstrap = _found_here(origin) if given == "auto" else _written_out(given, origin)
    place = Place(given, origin, bootstrap)
    if (problem := _no_answer(bootstrap)) is not None:
        raise place.refusal(problem)
    return place


def _written_out(given: str, origin: str) -> str:
    """Host and port of an address that is neither `auto` nor `local`."""
    if given.startswith("ray://"):
        host = given.removeprefix("ray://").partition(":")[0] or "HOST"
        raise ResourceError(
            f"{origin} is {given}: Ray Client (ray://) is not supported, a search is a driver on one of the nodes. "
            f"Start the command on a node, and set {origin} to {host}:6379 (the head's port, not the client's 10001), "
            "or to auto"
        )
    matched = _HOST_AND_PORT.fullmatch(given)
    if matched is None or not 0 < int(matched[1]) < 65536:
        raise ResourceError(
            f"{origin} is {given!r}, which is no address of a Ray; valid: HOST:PORT, such as 10.0.0.1:6379; auto, to "
            "join the one that runs on this machine; local, to start one here"
        )
    try:
        return str(services.canonicalize_bootstrap_address(given))
    except (ConnectionError, ValueError, OSError) as error:
        raise Place(given, origin, given).refusal(str(error)) from error


def _found_here(origin: str) -> str:
    """Host and port of the Ray that `auto` means."""
    started, running = services.find_bootstrap_address(None), sorted(services.find_gcs_addresses())
    if started is None and len(running) > 1:
        raise ResourceError(
            f"{origin} is auto, but {len(running)} Rays run on this machine: {', '.join(running)}. Set {origin} to one "
            "of them, or let the command start its own with --set resources.address=local"
        )
    if started is None and not running:
        raise ResourceError(
            f"{origin} is auto, but no Ray runs on this machine. Start one with `ray start --head`, or let the command "
            "start its own with --set resources.address=local"
        )
    return str(running[0] if len(running) == 1 else started)


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
