"""Training steps run only to measure them: their memory, and how many images they process per second."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from segcore.data.loader import Batch
from segcore.data.pixels.cache_file import open_cache
from segcore.scores.threshold_curve import curve_of
from segcore.sealed.predictor import forward
from segcore.training.loop import build_train_loader
from segcore.training.step import TrainStep, build_step

if TYPE_CHECKING:
    from segcore.config import TrainConfig

WARM_UP_STEPS = 3
_STEPS_OF_A_RUN = 1000  # given to the learning-rate schedule, which has no effect here


@dataclass(frozen=True)
class StepMemory:
    """The measured GPU memory of one training step.

    Attributes:
        peak_bytes: Peak bytes held by torch's allocator, including the blocks it caches.
        overhead_bytes: Further bytes that the process held while it trained: kernels and library handles.
        free_bytes: Bytes that were free before, with only this process's CUDA context in place.
        total_bytes: The GPU's total memory in bytes.
    """

    peak_bytes: int
    overhead_bytes: int
    free_bytes: int
    total_bytes: int


def random_batch(config: TrainConfig) -> Batch:
    """A batch of random images and masks, of the config's batch and image size."""
    count = config.train.batch_size
    images = torch.randint(0, 256, (count, 3, *config.data.image_hw), dtype=torch.uint8)
    targets = torch.randint(0, 2, (count, 1, *config.data.image_hw), dtype=torch.uint8)
    return Batch(images.contiguous(memory_format=torch.channels_last), targets, torch.arange(count))


def measure_memory(config: TrainConfig, device: torch.device) -> StepMemory:
    """Train and validate on random data, and measure the GPU memory that takes.

    The first round is not counted: in it cuDNN tries algorithms whose working space is not needed again.

    Raises:
        torch.OutOfMemoryError: It does not fit.
    """
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    step, batch = _build_step(config, device), random_batch(config)
    _train_and_validate(step, batch)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    _train_and_validate(step, batch)
    _train_and_validate(step, batch)
    torch.cuda.synchronize(device)
    held = torch.cuda.memory_reserved(device)
    overhead = free - torch.cuda.mem_get_info(device)[0] - held
    return StepMemory(torch.cuda.max_memory_reserved(device), max(0, overhead), free, total)


def _train_and_validate(step: TrainStep, batch: Batch) -> None:
    step(batch)
    step.model.eval()
    with torch.inference_mode():
        images, targets = batch.images.to(step.device), batch.targets.to(step.device)
        logits = forward(step.model, images, step.precision)
        step.loss_fn(logits, step.task.targets(targets))
        curve_of(step.task, device=step.device).update(step.task.probs(logits), targets)
    step.model.train()


class RateProbe:
    """Trains on real batches, loader and augmentation included, as a trial of the config would.

    Args:
        config: What to train.
        batches: An endless iterator, such as `endless_batches` or `itertools.repeat(random_batch(config))`.
        device: The device to train on.
    """

    def __init__(self, config: TrainConfig, batches: Iterator[Batch], device: torch.device) -> None:
        self._batches = batches
        self._device = device
        self._step = _build_step(config, device)
        for _ in range(WARM_UP_STEPS):
            self._step(next(batches))
        self._wait()

    def images_per_s(self, seconds: float) -> float:
        """Train for a number of seconds, at least one step, and return the images processed per second."""
        started, count = time.perf_counter(), 0
        while count == 0 or time.perf_counter() - started < seconds:
            batch = next(self._batches)
            self._step(batch)
            count += len(batch)
        self._wait()
        return count / (time.perf_counter() - started)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


@contextmanager
def endless_batches(
    config: TrainConfig, cache_path: Path, num_cpus: int, device: torch.device
) -> Iterator[Iterator[Batch]]:
    """Open the cache and yield an endless iterator over the training batches of a config, epoch after epoch.

    Args:
        config: The run's config.
        cache_path: The file of the decoded samples.
        num_cpus: Cores of this run, at least 1.
        device: The device the batches are for.
    """
    with open_cache(cache_path) as cache:
        loader = build_train_loader(config, cache, num_cpus, device)

        def batches() -> Iterator[Batch]:
            for epoch in itertools.count(1):
                loader.set_epoch(epoch)
                yield from loader

        with closing(loader):
            yield batches()


def _build_step(config: TrainConfig, device: torch.device) -> TrainStep:
    return build_step(config, device, steps_per_epoch=_STEPS_OF_A_RUN, load_pretrained=False)
