"""What we change of Ray's insides is there, and is changed as we need it; each message names what breaks without it."""

import inspect
from typing import Any

import pytest
import ray
from places import ROOT
from ray.air.execution._internal.actor_manager import RayActorManager

from search.tune.cluster.watch import memory_kills_end_one_trial


def test_what_we_change_is_there() -> None:
    method = getattr(RayActorManager, "_actor_task_failed", None)
    told = (
        f"ray {ray.__version__}: RayActorManager._actor_task_failed(tracked_actor_task, exception) has changed; "
        "without it, one worker that the memory monitor kills ends the whole search"
    )
    assert method is not None, told
    assert list(inspect.signature(method).parameters) == ["self", "tracked_actor_task", "exception"], told


def test_it_is_as_it_was_afterwards() -> None:
    before = RayActorManager._actor_task_failed
    with memory_kills_end_one_trial():
        assert RayActorManager._actor_task_failed is not before
    assert RayActorManager._actor_task_failed is before


def test_nobody_else_uses_rays_insides() -> None:
    """So that a change of Ray is a change of one file."""
    files = [path for part in ("search", "segcore") for path in (ROOT / part).rglob("*.py")]
    assert files
    found = [path.name for path in files if "_internal." in path.read_text(encoding="utf-8")]
    assert found == ["watch.py"]


def test_tune_survives_a_worker_that_the_memory_monitor_killed() -> None:
    """Ray's own handling of that error ends the whole search; ours hands on a dead actor."""
    seen: list[Exception] = []

    class Tracked:
        _on_error = staticmethod(lambda actor, exception: seen.append(exception))
        actor_id = "a"

    class Task:
        _tracked_actor = Tracked()
        _on_error = None

    class Manager:
        _failed_actor_ids: set[str] = set()  # noqa: RUF012

        def _cleanup_actor(self, tracked_actor: Any) -> None:
            pass

    manager: Any = Manager()
    task: Any = Task()
    killed = ray.exceptions.OutOfMemoryError("1 worker(s) were killed due to the node running low on memory.")
    with pytest.raises(RuntimeError, match="Caught unexpected exception"):
        RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=killed)
    with memory_kills_end_one_trial():
        RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=killed)
    assert [type(exception) for exception in seen] == [ray.exceptions.RayActorError]
    assert "running low on memory" in str(seen[0])
