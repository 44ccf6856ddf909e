"""Two things that Ray does not do itself: report that it is gone, and lose only one trial to a killed worker."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private import worker
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

log = logging.getLogger("segsearch")

POLL_S = 1.0
LOST_AFTER_S = 35.0
"""Seconds without a live node or an answer after which Ray counts as gone.

After 60 s without an answer, Ray itself ends the process, in words of its own; `GRACE_S` has to fit in between.
"""
GRACE_S = 12.0
"""Seconds that the search may take to end by itself when Ray is gone."""
EXIT_INTERRUPTED = 130
_VITAL = {"gcs_server": "GCS", "raylet": "raylet"}
"""Processes without which a Ray that was started here is gone, and what Ray's documentation calls them."""


@contextmanager
def watched_ray(resume: str, record: Callable[[], None]) -> Iterator[None]:
    """Ends the search when Ray is gone; without it, Tune would wait forever for resources that do not exist.

    The search is interrupted as by Ctrl-C. Where that does not help, because Ray itself waits for an answer, the
    process ends with exit code 130; the journal has everything that was reported.

    Args:
        resume: The command that resumes the run.
        record: Called before the process ends that way, to note in the run's folder that it was interrupted.
    """
    stopped = threading.Event()
    seen = [time.monotonic()]

    def poll() -> None:
        while not stopped.wait(POLL_S):
            if _has_nodes():
                seen[0] = time.monotonic()

    def guard() -> None:
        while not stopped.wait(POLL_S):
            if dead := dead_parts():
                reason = f"its {' and '.join(dead)} died"
                break
            if time.monotonic() - seen[0] > LOST_AFTER_S:
                reason = f"no node of it has answered for {LOST_AFTER_S:.0f} s"
                break
        else:
            return
        log.error("Ray is gone: %s; the search stops here", reason)
        os.kill(os.getpid(), signal.SIGINT)
        if not stopped.wait(GRACE_S):
            _end_process(f"interrupted, because Ray is gone; nothing is lost. Continue with: {resume}", record)

    for work in (poll, guard):
        threading.Thread(target=work, name=f"segsearch-ray-{work.__name__}", daemon=True).start()
    try:
        yield
    finally:
        stopped.set()


def dead_parts() -> list[str]:
    """The vital processes of the Ray that this process has started which are no longer there; of another Ray, none."""
    node = worker._global_node
    if node is None or not node.head:
        return []
    return [_VITAL[kind] for kind, _ in node.dead_processes() if kind in _VITAL]


def _has_nodes() -> bool:
    try:
        return any(node["Alive"] for node in ray.nodes())
    except Exception:  # no usable answer, whatever the error
        return False


def _end_process(message: str, record: Callable[[], None]) -> None:
    try:
        record()
    except Exception as error:  # the message and the journal matter more
        log.warning("run.json could not be written: %s", error)
    log.error(message)
    for handler in (*log.handlers, *logging.getLogger().handlers):
        handler.flush()
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h\n")  # the live table hides the cursor
    sys.stderr.flush()
    os._exit(EXIT_INTERRUPTED)


@contextmanager
def memory_kills_end_one_trial() -> Iterator[None]:
    """Makes Tune take a worker that Ray's memory monitor killed for a worker that died.

    Tune knows two kinds of errors of a worker, and raises at any other: the whole search would end with
    `RuntimeError: Caught unexpected exception`.
    """
    original: Callable[[Any, Any, Exception], None] = RayActorManager._actor_task_failed

    def actor_task_failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        original(self, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = actor_task_failed
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original
