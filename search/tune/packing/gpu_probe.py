"""Measures how much GPU memory a space's largest configuration takes, in a Ray task with a GPU to itself."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.tune.packing.mps import mps_directory
from segcore.config import TrainConfig

PROBE_TIMEOUT_S = 300.0
MOST_MODELS = 64
"""How many models get an estimate of their activations; a space may hold more than there is time for."""
NUM_MEASURED = 2
"""How many of the largest ones, by the estimate, are trained for a few steps."""


@dataclass(frozen=True)
class GpuNode:
    """A node with GPUs."""

    node_id: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found.

    Attributes:
        largest: Index of the largest configuration among the candidates.
        estimate_bytes: What it was estimated to take.
        peak_bytes: What it was measured to take; None where that was not possible.
        overhead_bytes: What its process holds beside that, beyond a bare CUDA context.
        free_bytes: Free memory of the smallest GPU; None where there is no GPU to ask.
        total_bytes: That GPU's memory.
        fits: False if it ran out of memory with the whole GPU for itself.
        num_models: Different models among the candidates.
        num_estimated: Those that were estimated.
        mps: Pipe directory of a running NVIDIA MPS.
    """

    largest: int
    estimate_bytes: int
    peak_bytes: int | None = None
    overhead_bytes: int = 0
    free_bytes: int | None = None
    total_bytes: int | None = None
    fits: bool = True
    num_models: int = 0
    num_estimated: int = 0
    mps: str | None = None


def gpu_nodes() -> list[GpuNode]:
    """The nodes of Ray that have GPUs now."""
    alive = [(node["NodeID"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return [GpuNode(name, has.get("CPU", 0.0), has["GPU"]) for name, has in alive if has.get("GPU", 0) > 0]


def probe_memory(candidates: Sequence[TrainConfig], nodes: Sequence[GpuNode]) -> ProbeResult:
    """Finds the largest candidate by an estimate, and trains it for a few steps on the node whose GPU has least memory.

    Raises:
        ray.exceptions.RayError: The probe broke, or had no GPU in `PROBE_TIMEOUT_S` seconds.
    """
    memory = [_ask(_gpu_memory, node, node.gpus) for node in nodes] if sum(node.gpus for node in nodes) > 1 else []
    found = [seen for seen in _get(memory) if seen is not None]
    node = nodes[0]
    if found and len(found) == len(nodes):
        node = min(zip(nodes, found, strict=True), key=lambda pair: pair[1][0])[0]
    dumped = [config.model_dump_json() for config in candidates]
    result: ProbeResult = _get([_ask(_probe, node, min(1.0, node.gpus), dumped)])[0]
    if found and result.free_bytes is not None:
        free, total = min(found)
        return replace(result, free_bytes=min(free, result.free_bytes), total_bytes=total)
    return result


def _ask(function: Any, node: GpuNode, gpus: float, *arguments: Any) -> Any:
    place = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    task = ray.remote(function).options(num_cpus=0, num_gpus=gpus, scheduling_strategy=place, max_retries=0)
    return task.remote(*arguments)


def _get(tasks: list[Any]) -> list[Any]:
    try:
        return list(ray.get(tasks, timeout=PROBE_TIMEOUT_S))
    finally:
        for task in tasks:
            ray.cancel(task, force=True)


def _gpu_memory() -> tuple[int, int] | None:
    """Free and total bytes of the GPU with the least memory that this task sees."""
    import torch

    if not torch.cuda.is_available():
        return None
    return min(torch.cuda.mem_get_info(index) for index in range(torch.cuda.device_count()))


def _probe(dumped: list[str]) -> ProbeResult:
    """The task: estimates all candidates, and measures the largest ones where there is a GPU."""
    import torch

    from segcore.training.device import choose_device, is_out_of_memory
    from segcore.training.step_probe import measure_memory

    device = choose_device()
    configs = [TrainConfig.model_validate_json(text) for text in dumped]
    estimates, num_models = estimate(configs, device)
    order = sorted(estimates, key=lambda index: -estimates[index])
    num_estimated = min(num_models, MOST_MODELS)
    found = ProbeResult(order[0], estimates[order[0]], num_models=num_models, num_estimated=num_estimated)
    if device.type != "cuda":
        return found
    mps = mps_directory()
    free, total = torch.cuda.mem_get_info(device)
    found = replace(found, free_bytes=free, total_bytes=total, mps=str(mps) if mps is not None else None)
    peak = -1
    for index in order[:NUM_MEASURED]:
        try:
            seen = measure_memory(configs[index], device)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return replace(found, largest=index, estimate_bytes=estimates[index], fits=False)
        if seen.peak_bytes > peak:
            peak = seen.peak_bytes
            overhead = max(seen.overhead_bytes, found.overhead_bytes)
            found = replace(
                found, largest=index, estimate_bytes=estimates[index], peak_bytes=peak, overhead_bytes=overhead
            )
    return found


def estimate(configs: Sequence[TrainConfig], device: Any) -> tuple[dict[int, int], int]:
    """`{index: bytes}` of the configs whose model is among the first `MOST_MODELS`, and how many models there are.

    Each model is traced once: its activations grow with the number of images, the rest follows from its size.
    """
    from segcore.training.memory_estimate import ModelMemory, estimate_training_bytes, trace_model

    keys = [(repr(config.model), config.train.precision, config.optimizer.encoder_lr_factor == 0) for config in configs]
    models: dict[Any, ModelMemory] = {}
    for key, config in zip(keys, configs, strict=True):
        if key not in models and len(models) < MOST_MODELS:
            models[key] = trace_model(config, device)
    known = [index for index, key in enumerate(keys) if key in models]
    return {index: estimate_training_bytes(configs[index], models[keys[index]]) for index in known}, len(set(keys))
