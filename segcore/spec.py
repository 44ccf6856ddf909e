"""What a trial gets and what it reports, as typed records; dicts are used only where Ray passes them.

A spec reaches a worker as the trial's config in Ray, and reports come back as Ray's results, mixed with Ray's own keys.
Only `to_ray` and `from_ray` know the keys.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

from segcore.config import TrainConfig

_NUMBER, _WAITING = "number", "waiting"

RaySpec: TypeAlias = dict[str, Any]
"""A trial's config in Ray, as `TrialSpec.to_ray` made it."""
RayResult: TypeAlias = dict[str, Any]
"""A result in Ray: what `TrialReport.to_ray` made, mixed with Ray's own keys."""


class RayTrial(Protocol):
    """Ray's record of a trial, as far as it is read here: the dicts made from a spec and from a report."""

    config: RaySpec
    last_result: RayResult | None


def number_of(trial: RayTrial) -> int:
    """The trial number in the spec of a Ray trial, without reading the rest of the spec."""
    return int(trial.config[_NUMBER])


@dataclass(frozen=True)
class TrialSpec:
    """What one attempt of a trial trains with, and where.

    Attributes:
        number: The trial's number in the search.
        train: Everything that the model depends on.
        cache: Path of the decoded samples.
        metric: The report key that decides which epoch is the best.
        folder: The attempt's own folder, for its checkpoints.
        num_cpus: Cores of the trial.
        gpu_fraction: The trial's share of a GPU, in [0, 1]; 0 for none.
        attempt: The attempt's number in this session, from 0.
        checkpoints: The trial's earlier checkpoints, newest first; training resumes from the first readable one.
        save_at: Epochs that are always saved, whatever their metric.
        reached: The last epoch whose report arrived, where the trial has run before. A checkpoint of a later epoch is
            skipped, so that its report is made again.
        strikes: How often in a row its worker has died without a new epoch.
        fork_from: Another trial's checkpoint, to continue from when the trial has none of its own.
        measure_latency: Whether to measure the model's latency, after the first epoch trained in this attempt.
        may_retry_alone: Whether it is retried on a whole GPU when its share of the memory is too small.
        label: A name for people, where it is not a trial of a search.
        avoid: Ray's ids of nodes that it must not run on, because it failed there through a fault of theirs.
        other_nodes: How many nodes the cluster has beside the one that it runs on.
    """

    number: int
    train: TrainConfig
    cache: Path
    metric: str
    folder: Path
    num_cpus: float = 1.0
    gpu_fraction: float = 0.0
    attempt: int = 0
    checkpoints: tuple[Path, ...] = ()
    save_at: tuple[int, ...] = ()
    reached: int | None = None
    strikes: int = 0
    fork_from: Path | None = None
    measure_latency: bool = False
    may_retry_alone: bool = False
    label: str | None = None
    avoid: tuple[str, ...] = ()
    other_nodes: int = 0

    def to_ray(self) -> RaySpec:
        """The spec as a trial's config in Ray: plain values, which Ray copies, sends and stores."""
        return {
            **vars(self),
            "train": self.train.model_dump(mode="json"),
            "cache": str(self.cache),
            "folder": str(self.folder),
            "checkpoints": [str(path) for path in self.checkpoints],
            "save_at": list(self.save_at),
            "avoid": list(self.avoid),
            "fork_from": None if self.fork_from is None else str(self.fork_from),
        }

    @classmethod
    def from_ray(cls, spec: Mapping[str, Any]) -> "TrialSpec":
        """Read a trial's config in Ray.

        Raises:
            KeyError, ValueError: It was not made by `to_ray`.
        """
        start = spec.get("fork_from")
        return cls(
            number=int(spec[_NUMBER]),
            train=TrainConfig.model_validate(spec["train"]),
            cache=Path(spec["cache"]),
            metric=spec["metric"],
            folder=Path(spec["folder"]),
            num_cpus=spec["num_cpus"],
            gpu_fraction=spec["gpu_fraction"],
            attempt=int(spec.get("attempt", 0)),
            checkpoints=tuple(Path(folder) for folder in spec.get("checkpoints", ())),
            save_at=tuple(spec.get("save_at", ())),
            reached=spec.get("reached"),
            strikes=int(spec.get("strikes", 0)),
            fork_from=None if start is None else Path(start),
            measure_latency=bool(spec.get("measure_latency", False)),
            may_retry_alone=bool(spec.get("may_retry_alone", False)),
            label=spec.get("label"),
            avoid=tuple(spec.get("avoid", ())),
            other_nodes=int(spec.get("other_nodes", 0)),
        )


class _ReportedMetrics(Mapping[str, float]):
    """The metrics among a result's keys; whoever asks for one of them does not wait until all are picked out."""

    __slots__ = ("_found", "_result")

    def __init__(self, result: Mapping[str, Any]) -> None:
        self._result = result
        self._found: dict[str, float] | None = None

    def _metrics(self) -> dict[str, float]:
        if self._found is None:
            self._found = {
                key: value
                for key, value in self._result.items()
                if ("/" in key or key == "lr") and isinstance(value, int | float) and not key.startswith("config/")
            }
        return self._found

    def __getitem__(self, key: str) -> float:
        if self._found is None and "/" in key and not key.startswith("config/"):
            value = self._result[key]
            if isinstance(value, int | float):
                return value
        return self._metrics()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics())

    def __len__(self) -> int:
        return len(self._metrics())

    def __repr__(self) -> str:
        return repr(self._metrics())


class TrialReport(NamedTuple):
    """What a trial reports after each epoch.

    Attributes:
        number: The trial's number in the search.
        epoch: The epoch, from 1.
        metrics: Numbers by key, as in `segcore.training.loop.EpochResult`, and the costs of `training.cost`.
        best_epoch: The best epoch so far; None where a trainable does not report it.
        finished: Whether it is the last epoch, which distinguishes a complete trial from a stopped one.
        checkpoint_bytes: Bytes of the trial's newest checkpoint.
        note: Something the user should know about this epoch.
        applied: In the first report of an attempt: what was read back from the run before its first step.
        machine: In the first report of an attempt: where it trains.
        waiting: The trial left its worker to wait at a rung; set by the driver, after the report.
    """

    number: int
    epoch: int
    metrics: Mapping[str, float]
    best_epoch: int | None = None
    finished: bool = False
    checkpoint_bytes: int = 0
    note: str | None = None
    applied: Mapping[str, Any] | None = None
    machine: Mapping[str, Any] | None = None
    waiting: bool = False

    def to_ray(self) -> RayResult:
        """The report as a flat result for Ray."""
        return {
            **self.metrics,
            _NUMBER: self.number,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "finished": self.finished,
            "checkpoint_bytes": self.checkpoint_bytes,
            **({} if self.note is None else {"note": self.note}),
            **({} if self.applied is None else {"applied": json.dumps(self.applied)}),
            **({} if self.machine is None else {"machine": json.dumps(self.machine)}),
        }

    @classmethod
    def from_ray(cls, result: Mapping[str, Any] | None) -> "TrialReport | None":
        """Read a result of Ray without Ray's own keys; None where it is not the report of an epoch."""
        if not result or "epoch" not in result:
            return None
        applied, machine = result.get("applied"), result.get("machine")
        return cls(
            number=int(result[_NUMBER]),
            epoch=int(result["epoch"]),
            metrics=_ReportedMetrics(result),
            best_epoch=result.get("best_epoch"),
            finished=bool(result.get("finished", False)),
            checkpoint_bytes=int(result.get("checkpoint_bytes", 0)),
            note=result.get("note"),
            applied=None if applied is None else json.loads(applied),
            machine=None if machine is None else json.loads(machine),
            waiting=bool(result.get(_WAITING, False)),
        )

    @classmethod
    def last_of(cls, trial: RayTrial) -> "TrialReport | None":
        """The last report of a Ray trial, if it made one."""
        return cls.from_ray(trial.last_result)


def mark_waiting(trial: RayTrial) -> None:
    """Mark a trial's last report, so that later readers know that the trial waits at a rung."""
    if trial.last_result:
        trial.last_result[_WAITING] = True
