"""The live objects that the gate examines: by default those of a config, each of which a caller may replace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Literal, cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segcore.data.loader import Batch, BatchDataset, build_loader
from segcore.data.masks.planes import ByteArray
from segcore.data.pixels.cache_file import SampleCache
from segcore.models.build import build_model
from segcore.models.unet import SegmentationModel
from segcore.scores.threshold_curve import curve_of
from segcore.task import Task
from segcore.training.parts import part_sizes
from segcore.training.step import TrainStep, build_step

if TYPE_CHECKING:
    from segcore.config import TrainConfig

SIDES = (128, 96, 64, 48)
"""Longest sides, in pixels, that the gate may shrink images to."""

BATCH_SIZE = 8
_FLOPS_PER_STEP = 20e9
"""Operations of one training step: about 0.3 s on one core, so that the whole gate stays well below a minute."""
_VAL_BATCHES = 2


@dataclass
class Pipeline:
    """Everything between the decoded samples and a score.

    Attributes:
        config: What the objects were built from.
        cache: The decoded samples, at the gate's image size.
        read: Returns samples, by their indices in the cache, as training gets them but without augmentation.
        val_pass: Yields the first validation batches; called with the number of the pass.
        step: The training step with its model, loss and optimizer.
        encoder: The part of the model that takes the normalised image; has `mean` and `std`, three values each.
        metric: Maps logits `(N, C, H, W)`, masks `(N, 1, H, W)` and a threshold to mean IoU or Dice.
        threshold: Probability from which a pixel is foreground.
        total_steps: Optimizer steps of the whole run.
    """

    config: TrainConfig
    cache: ResizedSamples
    read: Callable[[Sequence[int]], Batch]
    val_pass: Callable[[int], Iterator[Batch]]
    step: TrainStep
    encoder: nn.Module
    metric: Callable[[Tensor, Tensor, float], float]
    threshold: float | Literal["auto"]
    total_steps: int

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self.step.model

    @property
    def task(self) -> Task:
        """What masks and logits mean."""
        return self.step.task


class ResizedSamples:
    """The samples of a cache at another size; replaces `SampleCache` where only pixels are needed."""

    def __init__(self, cache: SampleCache, hw: tuple[int, int]) -> None:
        self.source = cache
        self.hw = hw

    def image(self, i: int) -> ByteArray:
        """Sample `i`'s image: `(H, W, 3) uint8`."""
        image = self.source.image(i)
        if image.shape[:2] == self.hw:
            return image
        return cast(ByteArray, cv2.resize(image, self.hw[::-1], interpolation=cv2.INTER_AREA))

    def mask(self, i: int) -> ByteArray:
        """Sample `i`'s mask: `(H, W) uint8` of 0 and 1."""
        mask = self.source.mask(i)
        if mask.shape == self.hw:
            return mask
        shrunk = cv2.resize(mask.astype(np.float32), self.hw[::-1], interpolation=cv2.INTER_AREA)
        return (shrunk >= 0.5).astype(np.uint8)


def build_pipeline(config: TrainConfig, cache: SampleCache, device: torch.device | None = None) -> Pipeline:
    """Build the pipeline of a config for a short run over one batch.

    It differs from the config's own pipeline as follows: images are at most 128 px on their longer side, less for
    expensive models; a batch is not split where that would leave single images; the learning rate stays at its peak;
    weights are not averaged and steps not compiled; and on a CPU, fp16 is replaced by what `auto` chooses.

    Args:
        config: The run's config.
        cache: The run's decoded samples, with a `train` split.
        device: Where the gate runs; by default the CPU, so that the calling process holds no GPU memory.
    """
    device = device or torch.device("cpu")
    loop_changes: dict[str, object] = {"ema_decay": 0.0, "compile": False}
    if device.type == "cpu" and config.train.precision == "fp16":
        loop_changes["precision"] = "auto"
    samples = ResizedSamples(cache, _affordable_hw(config, cache.hw))
    num_train = max(1, len(cache.indices("train")))
    if min(part_sizes(min(BATCH_SIZE, num_train), config.train.micro_batch_size)) == 1:
        loop_changes["micro_batch_size"] = None  # these few small images fit, and a single one may not train
        if num_train == 1:
            samples = ResizedSamples(cache, cache.hw)  # smaller, its deepest map could be one pixel
    short = config.model_copy(
        update={
            "lr_scheduler": config.lr_scheduler.model_copy(update={"name": "constant"}),
            "train": config.train.model_copy(update=loop_changes),
        }
    )
    step = build_step(short, device, steps_per_epoch=1)
    model = cast(SegmentationModel, step.model)
    dataset = BatchDataset(cast(SampleCache, samples), None, config.train.seed)
    batches = -(-num_train // config.train.batch_size)

    def val_pass(number: int) -> Iterator[Batch]:
        if not cache.indices("val"):
            return
        loader = build_loader(
            cache, "val", batch_size=config.train.batch_size, augment=None, shuffle=False, drop_last=False,
            seed=config.train.seed, num_workers=0, pin_memory=False,
        )  # fmt: skip
        with closing(loader):
            loader.set_epoch(number)
            yield from islice(loader, _VAL_BATCHES)

    return Pipeline(
        config=config,
        cache=samples,
        read=lambda indices: dataset[(0, tuple(indices))],
        val_pass=val_pass,
        step=step,
        encoder=model.encoder,
        metric=partial(mean_iou, step.task),
        threshold=config.threshold,
        total_steps=config.train.epochs * batches,
    )


def mean_iou(task: Task, logits: Tensor, masks: Tensor, threshold: float) -> float:
    """Mean over images of each image's IoU at a threshold, as validation computes it.

    Args:
        task: What masks and logits mean.
        logits: `(N, C, H, W)`, any float dtype.
        masks: `(N, 1, H, W) uint8`.
        threshold: In [0, 1].
    """
    curve = curve_of(task, threshold=threshold)
    curve.update(task.probs(logits.float()), masks)
    return curve.compute().at(threshold).iou


def _affordable_hw(config: TrainConfig, hw: tuple[int, int]) -> tuple[int, int]:
    """The largest image size, up to the cache's, at which a training step is cheap enough."""
    longest = max(hw)
    sides = [min(longest, SIDES[0]), *(side for side in SIDES if side < min(longest, SIDES[0]))]
    per_pixel = _flops_per_pixel(config)
    affordable = [side for side in sides if per_pixel * side * side <= _FLOPS_PER_STEP / BATCH_SIZE]
    side = affordable[0] if affordable else sides[-1]
    height, width = (max(16, round(length * side / longest)) for length in hw)
    return height, width


def _flops_per_pixel(config: TrainConfig) -> float:
    """Floating-point operations of forward and backward pass per pixel of an image."""
    side = 64
    model = build_model(config.model, load_pretrained=False).eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, 3, side, side))
    return 3 * counter.get_total_flops() / side**2
