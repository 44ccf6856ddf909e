"""Loader processes end with a cause instead of hanging, and do without shared memory where it has no room."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from places import ROOT
from torch.utils.data import Dataset

from segcore.data import loader, loader_processes
from segcore.data.loader import BatchDataset, Loader
from segcore.data.loader_processes import Activity, LoaderProcesses, Watch, processes_that_fit
from segcore.errors import LoaderError

MB = 2**20


@pytest.fixture
def free_mb(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What `/dev/shm` says that it has free."""
    free = [64]
    monkeypatch.setattr(
        loader_processes.os, "statvfs", lambda path: SimpleNamespace(f_bavail=free[0] * 256, f_frsize=4096)
    )
    return free


def test_processes_have_room_for_what_they_prepare_and_for_what_is_in_use(free_mb: list[int]) -> None:
    assert processes_that_fit(2, 10 * MB, 100) == (2, None)  # 2 x 2 + 2 batches of 10 MB


def test_fewer_processes_where_there_is_less_room(free_mb: list[int]) -> None:
    found, note = processes_that_fit(4, 10 * MB, 100)
    assert found == 2
    assert note == (
        "train.num_workers: 4 loader processes need 105 MB of shared memory, /dev/shm has 67 MB free, so 2 are used; "
        "a container gets more with --shm-size=200m"
    )


def test_no_process_where_there_is_room_for_none(free_mb: list[int]) -> None:
    found, note = processes_that_fit(2, 48 * MB, 100)
    assert found == 0
    assert note is not None
    assert "so none are used: batches are made in the training process" in note


def test_a_pass_that_fits_as_a_whole_is_no_reason_to_worry(free_mb: list[int]) -> None:
    assert processes_that_fit(8, 20 * MB, 3) == (8, None)


def test_without_shared_memory_to_look_at_nothing_is_changed(tmp_path: Path) -> None:
    assert processes_that_fit(3, 10 * MB, 100, tmp_path / "none") == (3, None)


class Items(Dataset[torch.Tensor]):
    """Ten items; one that is named waits, or dies."""

    def __init__(self, *, stop_at: int | None = None, die_at: int | None = None) -> None:
        self.stop_at, self.die_at = stop_at, die_at

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.stop_at:
            os.kill(os.getpid(), signal.SIGSTOP)
        if index == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor([index])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_processes, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(loader_processes, "STALLED_LOOKS", 3)


@pytest.mark.usefixtures("impatient")
def test_a_killed_process_ends_the_pass_with_its_signal() -> None:
    processes = LoaderProcesses(Items(die_at=5), range(10), num=2, pin_memory=False)
    items = processes.items()
    with pytest.raises(
        LoaderError, match=r"a loader process died \(process \d+: SIGKILL\).*train\.num_workers.*shm-size"
    ):
        list(items)
    assert processes._loader._iterator is None


@pytest.mark.usefixtures("impatient")
def test_processes_that_stand_still_are_ended_and_named() -> None:
    """A stopped process cannot even be terminated."""
    processes = LoaderProcesses(Items(stop_at=3), range(10), num=1, pin_memory=False)
    with pytest.raises(LoaderError, match=r"stand still: no batch, and nothing done by any of them"):
        list(processes.items())
    assert processes._loader._iterator is None


@pytest.mark.usefixtures("impatient")
def test_an_error_of_the_data_stays_what_it_is() -> None:
    class Broken(Items):
        def __getitem__(self, index: int) -> torch.Tensor:
            raise ValueError("not an image")

    processes = LoaderProcesses(Broken(), range(2), num=1, pin_memory=False)
    with pytest.raises(ValueError, match="not an image"):
        list(processes.items())
    processes.close()


def watch(monkeypatch: pytest.MonkeyPatch, *seen: Activity) -> Watch:
    """A watch that sees one after the other, and the last one for ever."""
    left = list(seen)
    monkeypatch.setattr(Activity, "of", classmethod(lambda cls, pids: left.pop(0) if len(left) > 1 else left[0]))
    found = Watch([1])
    found.is_waited_for = True
    return found


def looks_until_an_error(watch: Watch) -> int:
    return next(count for count in range(1, 1000) if watch.look() is not None)


def test_what_waits_for_a_disk_is_given_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looks_until_an_error(watch(monkeypatch, Activity(5, 7, "DS"))) == 120
    assert looks_until_an_error(watch(monkeypatch, Activity(5, 7, "SS"))) == 9


@pytest.mark.parametrize("then", [Activity(15, 7, "S"), Activity(5, 8, "S"), Activity(5, 7, "R")])
def test_what_computes_reads_or_is_about_to_is_no_stall(monkeypatch: pytest.MonkeyPatch, then: Activity) -> None:
    seen = [Activity(5, 7, "S")] * 8 + [then] + [Activity(then.ticks, then.faults, "S")]
    assert looks_until_an_error(watch(monkeypatch, *seen)) == 8 + 9


def test_a_batch_that_came_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = watch(monkeypatch, Activity(5, 7, "S"))
    for _ in range(8):
        waiting.look()
    waiting.is_waited_for = False
    waiting.look()
    waiting.is_waited_for = True
    assert looks_until_an_error(waiting) == 9


def test_activity_is_read_of_a_living_process() -> None:
    mine = Activity.of([os.getpid(), 2**22 + 1])
    assert mine.ticks > 0
    assert len(mine.states) == 1


class Cache:
    """Eight grey samples."""

    hw = (64, 64)

    def image(self, index: int) -> object:
        return torch.full((64, 64, 3), index, dtype=torch.uint8).numpy()

    def mask(self, index: int) -> object:
        return torch.zeros((64, 64), dtype=torch.uint8).numpy()


def batches(num_workers: int) -> Loader:
    return Loader(
        BatchDataset(Cache(), None, seed=0), range(8), batch_size=2, shuffle=True, drop_last=False,
        num_workers=num_workers, pin_memory=False,
    )  # type: ignore[arg-type]  # fmt: skip


def test_a_pass_goes_on_in_the_training_process_when_the_memory_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.getpid()

    def new(shape: tuple[int, ...]) -> torch.Tensor:
        new.calls += 1  # type: ignore[attr-defined]
        if os.getpid() != here and new.calls > 2:  # type: ignore[attr-defined]
            raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left (28)")
        return torch.empty(shape, dtype=torch.uint8)

    new.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(loader, "new_shared", new)
    there, alone = batches(2), batches(0)
    assert [batch.indices.tolist() for batch in there] == [batch.indices.tolist() for batch in alone]
    note = there.take_note()
    assert note is not None
    assert note.startswith("train.num_workers: /dev/shm has no room for the next batch")
    assert there.take_note() is None
    assert len(list(there)) == 4
    there.close()


SMALL = """
import sys
import numpy as np
from segcore.data import loader_processes
from segcore.data.loader import BatchDataset, Loader

class Cache:
    hw = (1024, 1024)
    def image(self, index): return np.full((1024, 1024, 3), index, np.uint8)
    def mask(self, index): return np.zeros((1024, 1024), np.uint8)

if sys.argv[1] == "unforeseen":
    loader_processes.SHARED_MEMORY = loader_processes.Path("/none")
found = Loader(BatchDataset(Cache(), None, seed=0), range(12), batch_size=2, shuffle=False, drop_last=False,
               num_workers=2, pin_memory=False)
print([batch.indices.tolist() for batch in found], found.take_note())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("case", "told"), [("foreseen", "so none are used"), ("unforeseen", "no room for the next")])
def test_a_small_shared_memory_for_real(tmp_path: Path, case: str, told: str) -> None:
    """What a container has: a small file system on /dev/shm, here in a mount namespace of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare for a /dev/shm of its own")
    (tmp_path / "small.py").write_text(SMALL)
    mount = 'mount -t tmpfs -o size=12m tmpfs /dev/shm || exit 77; exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, str(tmp_path / "small.py"), case],
        capture_output=True, text=True, timeout=100, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]] ")
    assert told in done.stdout
