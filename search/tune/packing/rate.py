"""Measures whether trials side by side on a GPU get more done than one alone; if not, they do not share it."""

import logging
from collections.abc import Callable
from pathlib import Path

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from segcore.config import TrainConfig

log = logging.getLogger("segsearch")

MEASURE_S = 4.0
READY_TIMEOUT_S = 180.0
TOLERANCE = 0.03
"""Relative difference that measurements show by chance; packing is kept unless it is slower by more."""

Measure = Callable[[int], float]
"""Maps a number of trials side by side on one GPU to the images per second that they process together."""


def settle(num_trials: int, measure: Measure) -> tuple[int, dict[int, float]]:
    """Halves the number of trials on a GPU until they are no slower together than one alone.

    Args:
        num_trials: As many as fit.
        measure: Measures one number of trials.

    Returns:
        How many trials are to share a GPU, and every rate that was measured.
    """
    if num_trials <= 1:
        return num_trials, {}
    rates = {1: measure(1)}
    while num_trials > 1:
        rates[num_trials] = measure(num_trials)
        if rates[num_trials] >= (1.0 - TOLERANCE) * rates[1]:
            break
        num_trials //= 2
    return num_trials, rates


def share_of(num_trials: int) -> float:
    """The share of a GPU for each of `num_trials`, rounded down to the four digits that Ray keeps."""
    return (10_000 // num_trials) / 10_000


def measured_rate(config: TrainConfig, cache_path: Path, num_trials: int, cpus: float) -> float:
    """Images per second of several training runs at once on one GPU, each limited to its share.

    Args:
        config: What each of them trains.
        cache_path: The decoded samples.
        num_trials: How many.
        cpus: Cores of each.

    Raises:
        ray.exceptions.RayError: One broke, or there was no GPU in `READY_TIMEOUT_S` seconds.
    """
    share = share_of(num_trials)
    group = placement_group([{"CPU": cpus * num_trials, "GPU": 1.0}])
    try:
        place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        runners = [
            ray.remote(_Runner)
            .options(num_cpus=cpus, num_gpus=share, scheduling_strategy=place)
            .remote(config.model_dump_json(), str(cache_path), cpus, share)
            for _ in range(num_trials)
        ]
        ray.get([runner.ready.remote() for runner in runners], timeout=READY_TIMEOUT_S)
        rates = ray.get([runner.images_per_s.remote(MEASURE_S) for runner in runners], timeout=READY_TIMEOUT_S)
        return float(sum(rates))
    finally:
        remove_placement_group(group)


class _Runner:
    """One training run in a process of its own."""

    def __init__(self, train: str, cache: str, cpus: float, share: float) -> None:
        from segcore.training.device import begin_trial, choose_device
        from segcore.training.step_probe import RateProbe, endless_batches

        begin_trial(cpus, share)
        config, device = TrainConfig.model_validate_json(train), choose_device()
        self._open = endless_batches(config, Path(cache), max(1, int(cpus)), device)
        self._probe = RateProbe(config, self._open.__enter__(), device)

    def ready(self) -> bool:
        """Answers once the first steps are done."""
        return True

    def images_per_s(self, seconds: float) -> float:
        """Trains for the given number of seconds."""
        return self._probe.images_per_s(seconds)
