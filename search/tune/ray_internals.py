"""Everything that we change in Ray's insides, and nothing else; a test names what breaks without it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError


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
