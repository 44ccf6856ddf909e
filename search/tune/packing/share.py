"""How many trials share a GPU: what `resources.gpus_per_trial: auto` comes to, measured once per run and kept."""

import hashlib
import json
import logging
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

from search.config.tree import SearchConfig
from search.runs.folder import update_run
from search.runs.paths import RunPaths
from search.runs.records import Packing, read_run
from search.space.search import Search
from search.tune.packing.gpu_probe import (
    GpuNode,
    ProbeResult,
    gpu_nodes,
    probe_memory,
)
from search.tune.packing.largest import candidates, settings
from search.tune.packing.rate import (
    TOLERANCE,
    Measure,
    measured_rate,
    settle,
    share_of,
)
from segcore.config import TrainConfig

log = logging.getLogger("segsearch")

MOST_TRIALS = 8
"""Most trials on one GPU; with more, each would have too little of it to gain anything."""
DEFAULT_TRIALS = 4
"""Trials on a GPU whose memory cannot be asked."""
MARGIN = 0.2
"""Margin on the measured peak: fragmentation, and other algorithms than those chosen in the probe."""
CONTEXT_BYTES = 512 * 2**20
"""What a CUDA context takes before anything is computed, outside of what torch's allocator counts."""
GB = 1e9


def gpu_share(
    search: Search,
    paths: RunPaths,
    cache_path: Path,
    *,
    probe: Callable[[list[TrainConfig], list[GpuNode]], ProbeResult] = probe_memory,
    measure: Callable[[TrainConfig, Path, int, float], float] = measured_rate,
) -> float:
    """The share of a GPU that a trial gets: the config's number, or with `auto` what is measured.

    What was found is kept in `run.json` as `packing`, and a resume on the same nodes takes it from there.

    Args:
        search: The run's.
        paths: The run's folder.
        cache_path: The decoded samples.
        probe: Finds what the largest configuration takes.
        measure: Measures images per second of a number of trials on one GPU.
    """
    config = search.config
    wanted = config.resources.gpus_per_trial
    if wanted != "auto":
        return float(wanted)
    nodes = gpu_nodes()
    if not nodes:
        return 0.0
    key = _key(config, nodes)
    known = read_run(paths).packing
    if known is not None and known.key == key:
        log.info("packing: %d trials a GPU, as measured when this run began", known.trials_per_gpu)
        return share_of(known.trials_per_gpu)
    most = most_trials(config, nodes)
    record = Packing(key=key, limit=most, trials_per_gpu=1)
    try:
        among = candidates(search)
        seen = probe(among, nodes)
        largest = settings(among[seen.largest], search.space)
        record = _seen(record, seen, largest)
        found = _by_memory(len(among), seen, most, largest)
        if found > 1:
            cpus = partial(cpus_of_each, config, nodes)
            found, rates = _by_rate(found, lambda count: measure(among[0], cache_path, count, cpus(count)))
            record = record.model_copy(update={"images_per_s": rates})
    except Exception as error:  # whatever breaks a measurement must not lose the run
        reason = str(error).strip().splitlines()[-1:] or [""]
        log.warning("packing: could not be measured (%s: %s); one trial a GPU", type(error).__name__, reason[0])
        record = record.model_copy(update={"error": f"{type(error).__name__}: {reason[0]}"})
        found = 1
    update_run(paths, packing=record.model_copy(update={"trials_per_gpu": found}))
    return share_of(found)


def most_trials(config: SearchConfig, nodes: list[GpuNode]) -> int:
    """How many trials may share a GPU whatever their memory: each needs its cores, and that many must exist."""
    cpus = config.resources.cpus_per_trial
    each = 1.0 if cpus == "auto" else float(cpus)
    by_cpus = min(math.floor(node.cpus / max(node.gpus, 1.0) / each + 1e-9) for node in nodes)
    wanted = [config.search.num_samples]
    if config.search.max_concurrent != "auto":
        wanted.append(int(config.search.max_concurrent))
    by_number = math.ceil(min(wanted) / max(1.0, sum(node.gpus for node in nodes)))
    return max(1, min(MOST_TRIALS, by_cpus, by_number))


def trials_that_fit(found: ProbeResult, most: int) -> int:
    """The most trials of the measured size that one GPU holds; 0 if it does not hold one with the margin."""
    if not found.fits or found.peak_bytes is None or found.free_bytes is None or found.total_bytes is None:
        return 0
    peak = found.peak_bytes * (1.0 + MARGIN)
    each = peak + found.overhead_bytes + CONTEXT_BYTES
    for count in range(most, 1, -1):
        # A trial's cap is a share of the whole memory, so the peak must be below that too.
        if count * each <= found.free_bytes and peak <= share_of(count) * found.total_bytes:
            return count
    return 1 if found.peak_bytes + found.overhead_bytes <= found.free_bytes else 0


def _seen(record: Packing, found: ProbeResult, largest: str) -> Packing:
    """The record with what the probe found."""
    return Packing(
        key=record.key,
        limit=record.limit,
        largest=largest,
        estimate_bytes=found.estimate_bytes,
        peak_bytes=found.peak_bytes,
        overhead_bytes=found.overhead_bytes,
        free_bytes=found.free_bytes,
        total_bytes=found.total_bytes,
        mps=found.mps,
        trials_per_gpu=record.trials_per_gpu,
    )


def _by_memory(num_configs: int, found: ProbeResult, most: int, what: str) -> int:
    """How many fit, with one line that says what was probed, what was picked and why.

    Args:
        num_configs: That were probed.
        found: What the probe found.
        most: The limit, whatever the memory.
        what: Settings of the largest configuration, for the line.
    """
    looked = f"{num_configs} configurations"
    if found.num_estimated < found.num_models:
        looked += f" ({found.num_estimated} of their {found.num_models} models estimated)"
    if found.free_bytes is None:
        count = min(DEFAULT_TRIALS, most)
        log.info(
            "packing: %d trials a GPU: Ray has a GPU, but torch sees none, so its memory is not known and trials run "
            "on the CPU; the largest of %s (%s) is estimated at %.2f GB",
            count, looked, what, found.estimate_bytes / GB,
        )  # fmt: skip
        return count
    log.info(
        "packing: NVIDIA MPS %s", f"runs ({found.mps}): trials compute at the same time" if found.mps else
        "does not run: trials on one GPU take turns",
    )  # fmt: skip
    count = trials_that_fit(found, most)
    if count == 0:
        log.warning(
            "packing: one trial a GPU: the largest of %s (%s) does not fit a whole GPU with %.1f GB free; such trials "
            "will fail as out of memory and the search learns to avoid them. train.micro_batch_size lowers what they "
            "take",
            looked, what, found.free_bytes / GB,
        )  # fmt: skip
        return 1
    log.info(
        "packing: %d trials a GPU fit: the largest of %s (%s) peaks at %.2f GB; with %.0f%% margin and %.2f GB for its "
        "process each, in %.1f GB free; at most %d by cores and number of trials",
        count, looked, what, (found.peak_bytes or 0) / GB, 100 * MARGIN,
        (found.overhead_bytes + CONTEXT_BYTES) / GB, found.free_bytes / GB, most,
    )  # fmt: skip
    return count


def _by_rate(fitting: int, measure: Measure) -> tuple[int, dict[str, float]]:
    """How many are no slower together than one alone, and images per second by number of trials, as text."""
    count, rates = settle(fitting, measure)
    figures = ", ".join(f"{number}: {value:.1f}" for number, value in sorted(rates.items()))
    verdict = "kept" if count == fitting else f"slower than one alone, so {count} a GPU"
    log.info(
        "packing: %d trials a GPU %s; images/s in total by trials a GPU: %s (tolerance %.0f%%)",
        fitting, verdict, figures, 100 * TOLERANCE,
    )  # fmt: skip
    return count, {str(number): round(value, 2) for number, value in sorted(rates.items())}


def cpus_of_each(config: SearchConfig, nodes: list[GpuNode], count: int) -> float:
    """Cores of a trial when `count` of them share a GPU, as the search will assign them.

    Args:
        config: The run's config.
        nodes: The nodes that have GPUs.
        count: How many trials share a GPU.
    """
    cpus = config.resources.cpus_per_trial
    if cpus != "auto":
        return float(cpus)
    return float(max(1, min(math.floor(node.cpus / max(node.gpus, 1.0) / count + 1e-9) for node in nodes)))


def _key(config: SearchConfig, nodes: list[GpuNode]) -> str:
    """Identifies what was measured, the space and the nodes: an earlier measurement with the same key still holds."""
    tree = config.model_dump(mode="json")
    parts = [tree["data"]["image_size"], *(tree[name] for name in ("model", "loss", "optimizer", "train", "space"))]
    parts += [tree["augment"], tree["resources"]["cpus_per_trial"], tree["search"]["max_concurrent"]]
    parts += [sorted((node.cpus, node.gpus) for node in nodes)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
