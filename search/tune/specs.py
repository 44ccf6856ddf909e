"""What a trial is told, and what it asks Ray for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from search.runs.paths import RunPaths
from search.tune.cluster import TrialResources
from segcore.config import TrainConfig


def resources_of(spec: dict[str, Any]) -> tune.PlacementGroupFactory:
    """What Ray reserves for a trial: the CPUs and the share of a GPU that its spec names."""
    bundle = {"CPU": spec["num_cpus"], "GPU": spec["gpu_fraction"]}
    return tune.PlacementGroupFactory([{name: float(amount) for name, amount in bundle.items() if amount}])


@dataclass(frozen=True)
class SpecMaker:
    """Makes a trial's spec for `train_trial`; an object, because Ray pickles the searcher that holds it."""

    paths: RunPaths
    session: str
    cache_path: Path
    metric: str
    resources: TrialResources
    save_at: tuple[int, ...] = ()
    measure_latency: bool = False
    retry_out_of_memory: bool = False

    @property
    def alone(self) -> dict[str, Any] | None:
        """What the spec of a trial says that gets a whole GPU for itself; None where that is no more than its share."""
        cpus = self.resources.whole_gpu_cpus
        if not cpus or not 0 < self.resources.gpus < 1:
            return None
        return {"num_cpus": cpus, "gpu_fraction": 1.0, "may_retry_alone": False}

    def __call__(self, number: int, train: TrainConfig) -> dict[str, Any]:
        """The spec of trial `number`, with the checkpoints that it may go on from."""
        attempt = self.paths.begin_attempt(self.session, number)
        return {
            "number": number,
            "attempt": attempt,
            "folder": str(self.paths.attempt(self.session, number, attempt).resolve()),
            "train": train.model_dump(mode="json"),
            "cache": str(self.cache_path),
            "metric": self.metric,
            "num_cpus": self.resources.cpus,
            "gpu_fraction": self.resources.gpus,
            "may_retry_alone": self.retry_out_of_memory and self.alone is not None,
            "checkpoints": [str(path) for path in self.paths.trial_checkpoints(number)],
            "save_at": list(self.save_at),
            "measure_latency": self.measure_latency,
            "fork_from": str(start) if (start := self.paths.fork_start(number)).is_dir() else None,
        }
