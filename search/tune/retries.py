"""Trials that continue: after their worker died, or alone on a whole GPU after they ran out of a share's memory."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from search.tune.failures import next_strikes
from segcore.spec import TrialSpec


class Unfinished(Protocol):
    """What continues: its number, and the metric by epoch that it has come to. A trial of the study is one."""

    number: int
    intermediate_values: dict[int, float]


T = TypeVar("T", bound=Unfinished)


@dataclass(frozen=True)
class WholeGpu:
    """What a trial gets that runs alone on a GPU, with its number of cores."""

    num_cpus: float

    def given_to(self, spec: TrialSpec) -> TrialSpec:
        """The spec of such a trial, which has no larger share to try."""
        return replace(spec, num_cpus=self.num_cpus, gpu_fraction=1.0, may_retry_alone=False)


FAULTS = 2
"""So many trials must have failed on a node through faults of its own before the others avoid it too."""


@dataclass(frozen=True)
class _Earlier:
    """What a spec says of a trial's earlier attempts."""

    reached: int = 0
    strikes: int = 0
    avoid: tuple[str, ...] = ()


class Retries(Generic[T]):
    """Which trial continues next, and what a trial's spec says of its earlier attempts.

    A whole GPU is free only once the trials that share it have ended, and Tune starts nothing new while a trial waits
    for resources. So trials that need a whole GPU are held back until nothing else can start.

    Args:
        unfinished: Trials that were running when an earlier session ended, in the order in which they continue.
        alone: Numbers of the trials that ran out of memory beside others.
        whole_gpu: What a trial that runs alone gets; None where no whole GPU can be had: then no trial runs alone.
    """

    def __init__(
        self, unfinished: Sequence[T] = (), alone: Collection[int] = (), whole_gpu: WholeGpu | None = None
    ) -> None:
        self._whole_gpu = whole_gpu
        self._alone = set(alone) if whole_gpu else set()
        self._earlier: dict[int, _Earlier] = {}
        self._faults: dict[str, set[int]] = {}
        self._shared_queue: list[T] = []
        self._alone_queue: list[T] = []
        for trial in unfinished:
            self._enqueue(trial)

    def next_shared(self) -> T | None:
        """The next one that continues where it was."""
        return self._shared_queue.pop(0) if self._shared_queue else None

    def next_alone(self) -> T | None:
        """The next one that continues alone."""
        return self._alone_queue.pop(0) if self._alone_queue else None

    def begin(self, trial: T) -> None:
        """Notes how far a continuing trial has come; a checkpoint whose report never arrived is not used."""
        earlier = self._earlier.get(trial.number, _Earlier())
        self._earlier[trial.number] = replace(earlier, reached=max(trial.intermediate_values, default=0))

    def lost_worker(self, trial: T, epoch: int) -> None:
        """Queues a trial whose worker died after `epoch`."""
        earlier = self._earlier.get(trial.number, _Earlier())
        strikes = next_strikes(earlier.reached, earlier.strikes, epoch)
        self._earlier[trial.number] = replace(earlier, reached=epoch, strikes=strikes)
        self._enqueue(trial)

    def moved(self, trial: T, epoch: int, node: str) -> None:
        """Queues a trial that failed through a fault of a node, to continue on another one.

        Args:
            trial: The trial.
            epoch: How far it has come.
            node: Ray's id of the node.
        """
        earlier = self._earlier.get(trial.number, _Earlier())
        self._faults.setdefault(node, set()).add(trial.number)
        self._earlier[trial.number] = replace(earlier, reached=epoch, avoid=(*earlier.avoid, node))
        self._enqueue(trial)

    def out_of_memory(self, trial: T) -> None:
        """Queues a trial that ran out of its share's memory, to continue alone."""
        self._alone.add(trial.number)
        self._enqueue(trial)

    def told(self, spec: TrialSpec) -> TrialSpec:
        """A trial's spec, completed with its earlier attempts."""
        if (earlier := self._earlier.get(spec.number)) is not None:
            spec = replace(spec, reached=earlier.reached, strikes=earlier.strikes, avoid=earlier.avoid)
        if self._faults:
            bad = [node for node, trials in self._faults.items() if len(trials) >= FAULTS and node not in spec.avoid]
            spec = replace(spec, avoid=(*spec.avoid, *bad)[: spec.other_nodes])
        return self._whole_gpu.given_to(spec) if self._whole_gpu and spec.number in self._alone else spec

    def _enqueue(self, trial: T) -> None:
        (self._alone_queue if trial.number in self._alone else self._shared_queue).append(trial)
