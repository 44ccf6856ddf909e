"""Ray for the length of a command: joined or started, watched while it works, and left or ended."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import ray

from search.tune.cluster.address import running_ray
from search.tune.cluster.output import raw_lines_to
from search.tune.cluster.start import join, start
from search.tune.cluster.watch import watched_ray

log = logging.getLogger("segsearch")


class RaySession:
    """A Ray that this process is connected to; a context manager that leaves it, and ends it if it was started here.

    Attributes:
        described: Which Ray it is, for the log.
    """

    def __init__(self, described: str, dashboard_url: str | None = None, *, is_left: bool = True) -> None:
        self.described = described
        self._dashboard_url = dashboard_url
        self._is_left = is_left

    @classmethod
    def open(cls, address: str | None) -> Self:
        """The cluster at `address`, one of our own, or the one that this process is connected to already.

        Args:
            address: `resources.address`; see `running_ray`.

        Raises:
            ResourceError: No Ray answers at the address.
            RayStartError: None could be started here.
        """
        os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
        os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # our own line says it, without a traceback
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
        os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if ray.is_initialized():
            return cls("the Ray that this process is connected to", is_left=False)
        place = running_ray(address)
        if place is None:
            return cls("a Ray of our own on this machine", start().dashboard_url)
        context = join(place)
        nodes = sum(node["Alive"] for node in ray.nodes())
        return cls(f"joined the Ray at {place}, of {nodes} node{'s' if nodes > 1 else ''}", context.dashboard_url)

    @contextmanager
    def watched(self, log_file: Path, resume: str, record: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Says which Ray it is, keeps Ray's own lines in a log, and ends the work should Ray be gone.

        Args:
            log_file: What Ray's own code writes to the terminal is appended to it.
            resume: The command that resumes the work.
            record: Called before the process ends because Ray is gone, to note that the work was interrupted.
        """
        log.info("Ray: %s", self.described)
        if self._dashboard_url:
            log.info("Ray dashboard: http://%s", self._dashboard_url)
        with raw_lines_to(log_file), watched_ray(resume, record):
            yield

    def close(self) -> None:
        """Leaves it now, which frees what its workers hold; a second call does nothing."""
        if self._is_left:
            self._is_left = False
            ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
