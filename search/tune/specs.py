"""What a trial gets to know, and what it asks Ray for."""

from dataclasses import dataclass
from pathlib import Path

from ray import tune
from ray.tune.experiment import Trial

from search.runs.paths import RunPaths, trial_dirname
from search.tune.cluster.nodes import alive_nodes
from search.tune.cluster.resources import TrialResources
from search.tune.retries import WholeGpu
from segcore.config import TrainConfig
from segcore.spec import RaySpec, TrialSpec

NODE_LABEL = "ray.io/node-id"
"""What Ray labels each node with."""


def resources_of(ray_spec: RaySpec) -> tune.PlacementGroupFactory:
    """What Ray reserves for a trial: the CPUs and the share of a GPU that its spec names, not on nodes to avoid."""
    spec = TrialSpec.from_ray(ray_spec)
    bundle = {"CPU": spec.num_cpus, "GPU": spec.gpu_fraction}
    bundles = [{name: float(amount) for name, amount in bundle.items() if amount}]
    if not spec.avoid or not {node.id for node in alive_nodes()} - set(spec.avoid):
        return tune.PlacementGroupFactory(bundles)
    elsewhere = {NODE_LABEL: f"!in({','.join(spec.avoid)})"}
    return tune.PlacementGroupFactory(bundles, bundle_label_selector=[elsewhere])


def attempt_dirname(trial: Trial) -> str:
    """The name of a trial's folder within its session."""
    spec = TrialSpec.from_ray(trial.config)
    return trial_dirname(spec.number, spec.attempt)


@dataclass(frozen=True)
class SpecMaker:
    """Makes a trial's spec for `train_trial`; an object, because Ray pickles the searcher that holds it.

    Attributes:
        paths: Where the trials are.
        session: Name of the session that they are trained in.
        cache_path: The decoded samples.
        metric: Key of the reports that decides which epoch is the best.
        resources: What each trial gets.
        save_at: Epochs that are saved whatever their value.
        measure_latency: Whether the models' latency is measured.
        retry_out_of_memory: Whether a trial whose share's memory is too little may get a whole GPU.
        other_nodes: How many nodes the cluster has beside one that a trial runs on.
    """

    paths: RunPaths
    session: str
    cache_path: Path
    metric: str
    resources: TrialResources
    save_at: tuple[int, ...] = ()
    measure_latency: bool = False
    retry_out_of_memory: bool = False
    other_nodes: int = 0

    @property
    def alone(self) -> WholeGpu | None:
        """What a trial gets that runs alone on a GPU; None where that is no more than its share."""
        cpus = self.resources.whole_gpu_cpus
        return WholeGpu(cpus) if cpus and 0 < self.resources.gpus < 1 else None

    def __call__(self, number: int, train: TrainConfig) -> TrialSpec:
        """The spec of trial `number`, with the checkpoints that it may continue from."""
        attempt = self.paths.begin_attempt(self.session, number)
        start = self.paths.fork_start(number)
        return TrialSpec(
            number=number,
            train=train,
            cache=self.cache_path,
            metric=self.metric,
            folder=self.paths.attempt(self.session, number, attempt).resolve(),
            num_cpus=self.resources.cpus,
            gpu_fraction=self.resources.gpus,
            attempt=attempt,
            checkpoints=tuple(self.paths.trial_checkpoints(number)),
            save_at=self.save_at,
            fork_from=start if start.is_dir() else None,
            measure_latency=self.measure_latency,
            other_nodes=self.other_nodes,
            may_retry_alone=self.retry_out_of_memory and self.alone is not None,
        )
