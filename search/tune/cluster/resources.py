"""What a trial gets of a node, and how many run side by side."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray

from search.config.tree import SearchConfig
from search.errors import ResourceError
from search.tune.cluster.start import own_resources, visited


@dataclass(frozen=True)
class TrialResources:
    """What one trial gets, and how many run side by side.

    Attributes:
        cpus: Cores of a trial.
        gpus: Its share of a GPU.
        max_concurrent: How many trials run side by side.
        whole_gpu_cpus: Cores that a trial has when it gets a whole GPU; 0 where no node has one.
    """

    cpus: float
    gpus: float
    max_concurrent: int
    whole_gpu_cpus: float = 0.0

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus} a trial, {self.max_concurrent} side by side"


def plan_resources(config: SearchConfig, gpus: float) -> TrialResources:
    """What each trial gets on the nodes that Ray has now.

    `cpus_per_trial: auto` shares a node's CPUs evenly among its trials, one each without a GPU, because two trials of
    one thread get more done than one of two.

    Args:
        config: The run's config.
        gpus: A trial's share of a GPU; `search.tune.packing.share.gpu_share` chooses it.

    Raises:
        ResourceError: No node could ever run such a trial; Ray itself would wait forever.
    """
    return plan_on(_alive_nodes(), config, gpus)


def known_nodes(address: str | None) -> list[Mapping[str, float]]:
    """What each node has, by Ray's names of it, of the Ray that a search at this address would run on.

    One that would be started here has what Ray finds on this machine; a cluster is joined and left again.

    Args:
        address: `resources.address`.

    Raises:
        ResourceError: No Ray answers there.
    """
    with visited(address) as is_up:
        return _alive_nodes() if is_up else [own_resources()]


def _alive_nodes() -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def plan_on(nodes: Sequence[Mapping[str, float]], config: SearchConfig, gpus: float) -> TrialResources:
    """`plan_resources` on given nodes.

    Args:
        nodes: What each has, by Ray's names.
        config: The run's config.
        gpus: A trial's share of a GPU.

    Raises:
        ResourceError: None of them could ever run such a trial.
    """
    cpus = config.resources.cpus_per_trial
    if cpus == "auto":
        cpus = 1.0
        if gpus:
            per_slot = (node.get("CPU", 1) / (node["GPU"] / gpus) for node in nodes if node.get("GPU", 0) >= gpus)
            cpus = float(max(1, math.floor(min(per_slot, default=1.0) + 1e-3)))  # a share is rounded down
    fitting = [min(_fits(node.get("CPU", 0), cpus), _fits(node.get("GPU", 0), gpus)) for node in nodes]
    slots = sum(fitting)
    if slots < 1:
        have = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes) or "no nodes"
        keys = [f"resources.{name}_per_trial" for name, amount in (("cpus", cpus), ("gpus", gpus)) if amount]
        raise ResourceError(
            f"no node can run a trial that asks for {cpus:g} CPU and {gpus:g} GPU; the nodes have: {have}. "
            f"Lower {' or '.join(keys)}, or set them to auto"
        )
    wanted = config.search.max_concurrent
    most = slots if wanted == "auto" else min(int(wanted), slots)
    beside_whole = max((node.get("CPU", 0) for node in nodes if node.get("GPU", 0) >= 1), default=0)
    concurrent = int(min(most, config.search.num_samples))
    return TrialResources(float(cpus), float(gpus), concurrent, float(min(cpus, beside_whole)))


def _fits(have: float, need: float) -> int:
    return math.floor(have / need + 1e-9) if need else 2**31
