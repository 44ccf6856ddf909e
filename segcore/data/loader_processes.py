"""Loader processes that never hang: what they need of shared memory, and an end with a cause where one dies or stalls.

Batches travel through `/dev/shm`, where each is laid out at once. The queues of torch lay it out in a thread
whose errors reach nobody: in a container with little shared memory, both sides then wait for ever.
"""

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data._utils import signal_handling

from segcore.errors import LoaderError, SharedMemoryError

T = TypeVar("T")

BATCHES_AHEAD = 2
"""Batches that each process prepares before they are asked for."""
SHARED_MEMORY = Path("/dev/shm")
LOOK_EVERY_S = 5.0
"""How long a batch is waited for before a look at the processes."""
STALLED_LOOKS = 9
"""After so many looks at which no process does anything, they are stalled."""
DISK_LOOKS = 120
"""The same while one of them waits for a disk, which may be slow: ten minutes."""
BUSY_TICKS = 10
"""Less than this of a processor's time between two looks, in hundredths of a second, is waiting, not working."""
_LAST_WORDS_S = 0.2
_END: Any = object()
_IN_USE = 2
"""Batches that the consumer holds beside those that are prepared: the one in use and the next."""
_NO_ROOM = ("unable to allocate shared memory", "unable to write to file </torch", "unable to mmap")


def processes_that_fit(
    wanted: int, batch_bytes: int, num_batches: int, folder: Path | None = None
) -> tuple[int, str | None]:
    """How many processes the shared memory has room for, and what to tell where they are fewer than wanted.

    Args:
        wanted: Processes.
        batch_bytes: What a batch takes there.
        num_batches: Batches of a whole pass; never more of them are there at once.
        folder: Where shared memory is mounted; default: `SHARED_MEMORY`.
    """
    folder = folder or SHARED_MEMORY
    try:
        found = os.statvfs(folder)
    except OSError:
        return wanted, None
    free = found.f_bavail * found.f_frsize
    fit = max(0, (free // max(batch_bytes, 1) - _IN_USE) // BATCHES_AHEAD)
    if fit >= wanted or num_batches * batch_bytes <= free:
        return wanted, None
    need = (wanted * BATCHES_AHEAD + _IN_USE) * batch_bytes
    instead = f"{fit} are used" if fit else "none are used: batches are made in the training process"
    return fit, (
        f"train.num_workers: {wanted} loader processes need {_megabytes(need)} of shared memory, {folder} has "
        f"{_megabytes(free)} free, so {instead}; a container gets more with --shm-size={_megabytes(2 * need, 'm')}"
    )


def new_shared(shape: Sequence[int]) -> Tensor:
    """An uninitialised uint8 tensor, in shared memory where this is a loader process.

    Raises:
        RuntimeError: There is no room for it.
    """
    if get_worker_info() is None:
        return torch.empty(tuple(shape), dtype=torch.uint8)
    size = torch.Size(shape)
    storage = torch.UntypedStorage._new_shared(size.numel())  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, size, torch.empty(size, device="meta").stride())


def shared(tensor: Tensor) -> Tensor:
    """The tensor, moved into shared memory where this is a loader process."""
    return tensor if get_worker_info() is None else tensor.share_memory_()  # type: ignore[no-untyped-call]


class LoaderProcesses(Generic[T]):
    """Processes that make a data set's items, in the order of the keys.

    Args:
        dataset: Makes an item from a key.
        keys: The keys of the next pass, whenever it is iterated.
        num: Processes, at least 1.
        pin_memory: Copy each item into page-locked memory, by its own `pin_memory`.
    """

    def __init__(self, dataset: Dataset[T], keys: Any, *, num: int, pin_memory: bool) -> None:
        self._loader: DataLoader[T] = DataLoader(
            dataset,
            batch_size=None,
            sampler=keys,
            num_workers=num,
            pin_memory=pin_memory,
            prefetch_factor=BATCHES_AHEAD,
            persistent_workers=True,
        )
        self._watch: Watch | None = None

    def items(self) -> Iterator[T]:
        """One pass over the keys.

        Raises:
            SharedMemoryError: There is no more room for an item.
            LoaderError: A process died, or none of them does anything any more.
        """
        try:
            with self._waiting():
                iterator = iter(self._loader)
                if self._watch is None:
                    self._watch = _watch(iterator)
            while True:
                with self._waiting():
                    item = next(iterator, _END)
                if item is _END:
                    return
                yield item
        except (RuntimeError, OSError, EOFError) as error:
            known = self._stall() or _known(error, self._loader._iterator)
            if known is None:
                raise
            self._kill()
            raise known from error

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Has the processes watched while this one waits for them."""
        if self._watch is not None:
            self._watch.is_waited_for = True
        try:
            yield
        finally:
            if self._watch is not None:
                self._watch.is_waited_for = False

    def _stall(self) -> LoaderError | None:
        return None if self._watch is None else self._watch.stall

    def close(self) -> None:
        """End the processes."""
        self._end_watch()
        if self._loader._iterator is not None:
            self._loader._iterator._shutdown_workers()  # type: ignore[attr-defined]
            self._loader._iterator = None

    def _end_watch(self) -> None:
        if self._watch is not None:
            self._watch.end()
            self._watch = None

    def _kill(self) -> None:
        """Ends the processes without a word to them: what they share with this one may be locked by a dead one."""
        self._end_watch()
        iterator: Any = self._loader._iterator
        if iterator is None:
            return
        iterator._shutdown = True
        if hasattr(iterator, "_pin_memory_thread_done_event"):
            iterator._pin_memory_thread_done_event.set()
        for worker in iterator._workers:
            worker.kill()
        for worker in iterator._workers:
            worker.join(1.0)
        self._loader._iterator = None


@dataclass(frozen=True)
class Activity:
    """What processes have done so far.

    Attributes:
        ticks: Processor time in hundredths of a second.
        faults: Pages that were read from a disk.
        states: One letter each, as in `/proc/PID/stat`.
    """

    ticks: int
    faults: int
    states: str

    @classmethod
    def of(cls, pids: Iterable[int]) -> "Activity":
        """What the processes have done by now; those that are gone count for nothing."""
        ticks, faults, states = 0, 0, ""
        for pid in pids:
            try:
                text = Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                continue
            fields = text.rpartition(")")[2].split()
            states += fields[0]
            faults += int(fields[9])
            ticks += int(fields[11]) + int(fields[12])
        return cls(ticks, faults, states)

    def has_worked_since(self, before: "Activity") -> bool:
        """Whether they computed, read from a disk, or are about to compute, since an earlier look."""
        return self.ticks - before.ticks >= BUSY_TICKS or self.faults > before.faults or "R" in self.states


class Watch:
    """Kills processes that did nothing for too long while a batch was waited for.

    A thread looks, because the one that waits may wait within a call that has no time limit; it gets an error when the
    processes are gone. Looks are counted, not seconds, so that a machine that slept is not taken for a stall.

    Args:
        pids: The processes.

    Attributes:
        is_waited_for: Whether a batch is waited for now.
        stall: Why the processes were killed, once they were.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self.is_waited_for = False
        self.stall: LoaderError | None = None
        self._pids = pids
        self._before = Activity.of(pids)
        self._idle = 0
        self._ended = threading.Event()

    def start(self) -> "Watch":
        """Begins to look."""
        threading.Thread(target=self._run, name="segsearch-loader-watch", daemon=True).start()
        return self

    def end(self) -> None:
        """Looks no more."""
        self._ended.set()

    def look(self) -> LoaderError | None:
        """Looks once; the error, if they have done nothing for too long."""
        now, before = Activity.of(self._pids), self._before
        self._before = now
        if not self.is_waited_for or now.has_worked_since(before):
            self._idle = 0
            return None
        self._idle += 1
        on_disk = "D" in now.states
        if self._idle < (DISK_LOOKS if on_disk else STALLED_LOOKS):
            return None
        what = "wait for a disk that does not answer" if on_disk else "stand still"
        seconds = LOOK_EVERY_S * self._idle
        return LoaderError(
            f"the loader processes {what}: no batch, and nothing done by any of them, for {seconds:.0f} s; "
            "train.num_workers=0 does without them"
        )

    def _run(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            self.stall = self.look()
            if self.stall is not None:
                for pid in self._pids:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                return


def _watch(iterator: Any) -> Watch:
    """Watches new processes.

    torch would also raise in the middle of whatever the main thread does when a process dies; here it does not, so
    that the error is one of the loader.
    """
    signal_handling._remove_worker_pids(id(iterator))  # type: ignore[attr-defined]
    iterator._worker_pids_set = False
    iterator._try_get_data = partial(iterator._try_get_data, timeout=LOOK_EVERY_S)
    return Watch([worker.pid for worker in iterator._workers]).start()


def _known(error: BaseException, iterator: Any) -> LoaderError | None:
    """Our own error for what torch says of its processes; None for an error of the data."""
    text = str(error)
    if any(words in text for words in _NO_ROOM):
        return SharedMemoryError(
            f"train.num_workers: {SHARED_MEMORY} has no room for the next batch; a container gets more with "
            "--shm-size, and train.num_workers=0 does without it"
        )
    if "Too many open files" in text:
        return LoaderError("train.num_workers: too many open files; raise the limit (ulimit -n), or lower it")
    if iterator is None:  # no process could be started
        reason = getattr(error, "strerror", None) or text
        return LoaderError(f"train.num_workers: loader processes cannot be started ({reason}); lower it")
    for worker in iterator._workers:
        worker.join(_LAST_WORDS_S / len(iterator._workers))  # one that is dying may still count as alive
    dead = [worker for worker in iterator._workers if worker.exitcode is not None]
    if not dead:
        return None
    return LoaderError(
        f"a loader process died ({', '.join(map(_end, dead))}), as where memory or {SHARED_MEMORY} is full: lower "
        "train.num_workers, or give a container more memory or --shm-size"
    )


def _end(worker: Any) -> str:
    code = int(worker.exitcode)
    if code >= 0:
        return f"process {worker.pid}: exit code {code}"
    try:
        return f"process {worker.pid}: {signal.Signals(-code).name}"
    except ValueError:
        return f"process {worker.pid}: signal {-code}"


def _megabytes(num_bytes: int, unit: str = " MB") -> str:
    return f"{-(-num_bytes // 2**20) if unit == 'm' else round(num_bytes / 1e6)}{unit}"
