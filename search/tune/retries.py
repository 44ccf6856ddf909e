"""Trials that go on: after their worker died, or alone on a whole GPU after they ran out of a share's memory."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from search.tune.failures import next_strikes


class Unfinished(Protocol):
    """What goes on: its number, and the metric by epoch that it has come to. A trial of the study is one."""

    number: int
    intermediate_values: dict[int, float]


T = TypeVar("T", bound=Unfinished)


class Retries(Generic[T]):
    """Who goes on next, and what a trial's spec says of its earlier attempts.

    A whole GPU is free only once those that share it have ended, and Tune starts nothing new while a trial waits for
    its place. So those that need one are held back until nothing else can start.

    Args:
        unfinished: Trials that were running when an earlier session ended, in the order in which they go on.
        alone: Numbers of the trials that ran out of memory beside others.
        share: What a trial that runs alone gets, as keys of its spec; None where no GPU can be had whole, and then
            `alone` is of no account.
    """

    def __init__(
        self,
        unfinished: Sequence[T] = (),
        alone: Collection[int] = (),
        share: Mapping[str, Any] | None = None,
    ) -> None:
        self._share = dict(share or {})
        self._alone = set(alone) if share else set()
        self._notes: dict[int, dict[str, int]] = {}
        self._shared_queue: list[T] = []
        self._alone_queue: list[T] = []
        for trial in unfinished:
            self._enqueue(trial)

    def next_shared(self) -> T | None:
        """The next one that goes on where it was."""
        return self._shared_queue.pop(0) if self._shared_queue else None

    def next_alone(self) -> T | None:
        """The next one that goes on alone."""
        return self._alone_queue.pop(0) if self._alone_queue else None

    def begin(self, trial: T) -> None:
        """Notes how far a trial that goes on has come; a checkpoint of an epoch that never arrived is not for use."""
        self._notes.setdefault(trial.number, {"strikes": 0})["reached"] = max(trial.intermediate_values, default=0)

    def lost_worker(self, trial: T, epoch: int) -> None:
        """Queues a trial whose worker died after `epoch`."""
        strikes = next_strikes(self._notes.get(trial.number, {}), epoch)
        self._notes[trial.number] = {"strikes": strikes, "reached": epoch}
        self._enqueue(trial)

    def out_of_memory(self, trial: T) -> None:
        """Queues a trial that ran out of its share's memory, to go on alone."""
        self._alone.add(trial.number)
        self._enqueue(trial)

    def spec(self, number: int) -> dict[str, Any]:
        """What a trial's spec says beside its config."""
        return {**self._notes.get(number, {}), **(self._share if number in self._alone else {})}

    def _enqueue(self, trial: T) -> None:
        (self._alone_queue if trial.number in self._alone else self._shared_queue).append(trial)
