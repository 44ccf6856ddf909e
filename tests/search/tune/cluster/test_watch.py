"""What we change of Ray's insides is there, and is changed as we need it; each message names what breaks without it."""

import inspect
import os
import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from places import ROOT
from ray._private import worker
from ray.air.execution._internal.actor_manager import RayActorManager

from search.tune.cluster import watch
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


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the watch does to the process, in order; its patience is short."""
    did: list[str] = []
    monkeypatch.setattr(watch, "POLL_S", 0.01)
    monkeypatch.setattr(watch, "GRACE_S", 0.05)
    monkeypatch.setattr(os, "kill", lambda pid, number: did.append(f"signal {number}"))
    monkeypatch.setattr(os, "_exit", lambda code: did.append(f"exit {code}"))
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}])
    return did


def wait_for(did: list[str], count: int) -> None:
    deadline = time.monotonic() + 5
    while len(did) < count and time.monotonic() < deadline:
        time.sleep(0.005)


def test_a_dead_part_interrupts_and_then_ends_the_process(
    watched: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "dead_parts", lambda: ["GCS"])
    with watch.watched_ray("segsearch resume x", lambda: watched.append("recorded")):
        wait_for(watched, 3)
    assert watched == ["signal 2", "recorded", "exit 130"]
    assert caplog.messages == [
        "Ray is gone: its GCS died; the search stops here",
        "interrupted, because Ray is gone; nothing is lost. Continue with: segsearch resume x",
    ]


def test_a_cluster_that_is_silent_counts_as_gone(
    watched: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "dead_parts", list)
    monkeypatch.setattr(watch, "LOST_AFTER_S", 0.1)
    monkeypatch.setattr(watch, "GRACE_S", 5.0)
    with watch.watched_ray("again", lambda: watched.append("recorded")):
        time.sleep(0.2)
        assert watched == [], "it answers"
        monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": False}])
        wait_for(watched, 1)
    assert watched == ["signal 2"], "the search ended by itself"
    assert caplog.messages == ["Ray is gone: no node of it has answered for 0 s; the search stops here"]


def test_the_watch_speaks_before_ray_ends_the_process() -> None:
    assert watch.LOST_AFTER_S + watch.GRACE_S + 4 * watch.POLL_S < 60


def test_only_a_ray_that_was_started_here_has_parts_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_global_node", None)
    assert watch.dead_parts() == []
    dead = [("dashboard", object()), ("raylet", object())]
    for head, expected in ((True, ["raylet"]), (False, [])):
        monkeypatch.setattr(worker, "_global_node", SimpleNamespace(head=head, dead_processes=lambda: dead))
        assert watch.dead_parts() == expected
