"""One optimizer step, written so that it never waits for a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segcore.data.augment.device import build_device_augmentation, is_done_on_device
from segcore.data.loader import Batch
from segcore.losses.mix import build_loss
from segcore.models.build import build_model
from segcore.sealed.predictor import forward
from segcore.task import BINARY, Task, task_of
from segcore.training.device import choose_precision, prepare_device
from segcore.training.groups import build_optimizer
from segcore.training.parts import part_sizes
from segcore.training.schedule import LRSchedule, build_lr_scheduler

if TYPE_CHECKING:
    from segcore.config import TrainConfig

Augment = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps images, targets and a plan to augmented images and targets, on the device."""


@dataclass
class TrainStep:
    """Trains on one batch: copy to the device, augment there, forward, loss, backward, clip, step.

    Attributes:
        model: The model itself, or its compiled form.
        loss_fn: From logits and targets to a loss that is a mean over images.
        optimizer: The optimizer over the model's parameter groups.
        lr_schedule: Sets the learning rates; advanced by each step.
        scaler: Scales losses in float16 on a GPU, else disabled.
        ema: Moving average of the uncompiled model's weights; None for none.
        precision: dtype of autocast; float32 means none. Losses are always float32.
        device: The device to train on.
        grad_clip: Largest gradient norm; 0 is off.
        micro_batch_size: Largest number of images that go through the model at once; None for all. Parts are as even
            as they can be. Their gradients add up to the batch's own, since each loss is a mean over images. Only
            batch norm differs: its statistics are those of a part.
        augment: Augmentation that the loader leaves to the device; None for none.
        task: What masks and logits mean.
    """

    model: nn.Module
    loss_fn: nn.Module
    optimizer: torch.optim.Optimizer
    lr_schedule: LRSchedule
    scaler: torch.amp.GradScaler
    ema: AveragedModel | None
    precision: torch.dtype
    device: torch.device
    grad_clip: float = 0.0
    micro_batch_size: int | None = None
    augment: Augment | None = None
    task: Task = BINARY
    _parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self._parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    def __call__(self, batch: Batch) -> Tensor:
        """Take the step and return the batch's mean loss, `() float32` on the device: reading it would wait."""
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for images, targets in self.parts(batch):
            loss = self.loss_of(images, targets) * (len(images) / len(batch))
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        if self.grad_clip > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._parameters, self.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.lr_schedule.step()
        if self.ema is not None:
            self.ema.update_parameters(getattr(self.model, "_orig_mod", self.model))
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def parts(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batch's micro-batches, augmented: images `(n, 3, H, W) uint8` and targets, on the device."""
        first = 0
        for size in part_sizes(len(batch), self.micro_batch_size):
            part = slice(first, first + size)
            first += size
            images = batch.images[part].to(self.device, non_blocking=True)
            masks = batch.targets[part].to(self.device, non_blocking=True)
            if self.augment is not None and batch.plan is not None:
                plan = batch.plan[part].to(self.device, non_blocking=True)
                images, masks = self.augment(images, masks, plan)
            yield images, self.task.targets(masks)

    def loss_of(self, images: Tensor, targets: Tensor) -> Tensor:
        """Run forward pass and loss; return the loss, `() float32`, for the backward pass.

        `images` is `(n, 3, H, W) uint8`, `targets` what `Task.targets` returns, both on the device.
        """
        logits = forward(self.model, images, self.precision)  # (N, C, H, W)
        loss: Tensor = self.loss_fn(logits, targets)
        return loss


def build_step(
    config: TrainConfig, device: torch.device, *, steps_per_epoch: int, load_pretrained: bool = True
) -> TrainStep:
    """Build the training step of a config with its model, optimizer and schedule, after seeding torch by `train.seed`.

    Args:
        config: The run's config.
        device: The device to train on.
        steps_per_epoch: Optimizer steps per epoch, at least 1.
        load_pretrained: Whether to load the encoder's pretrained weights that the config names.
    """
    loop = config.train
    prepare_device(device, deterministic=loop.deterministic)
    torch.manual_seed(loop.seed)
    model = build_model(config.model, load_pretrained=load_pretrained)
    model = model.to(device).to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(model, config.optimizer)
    precision = choose_precision(loop, device, model)
    return TrainStep(
        model,
        build_loss(config.loss).to(device),
        optimizer,
        build_lr_scheduler(optimizer, config.lr_scheduler, loop.epochs, steps_per_epoch),
        torch.amp.GradScaler(device.type, enabled=precision is torch.float16 and device.type == "cuda"),
        build_ema(model, loop.ema_decay),
        precision,
        device,
        grad_clip=loop.grad_clip,
        micro_batch_size=loop.micro_batch_size,
        augment=build_device_augmentation(config.augment) if augments_on_device(config, device) else None,
        task=task_of(config),
    )


def augments_on_device(config: TrainConfig, device: torch.device) -> bool:
    """Whether the device augments: where `train.augment_on` says so, and the device supports the whole policy."""
    where = config.train.augment_on
    return is_done_on_device(config.augment) and (where == "device" or (where == "auto" and device.type == "cuda"))


def build_ema(model: nn.Module, decay: float) -> AveragedModel | None:
    """Moving average of weights and batch-norm statistics, or None for a decay of 0.

    The decay warms up as `min(decay, (1 + n) / (10 + n))` over updates n, so that a short run is not
    dominated by its initial weights (TensorFlow's ExponentialMovingAverage uses the same ramp).
    """
    if decay == 0.0:
        return None

    def average(averaged: Sequence[Tensor], current: Sequence[Tensor], _: Tensor | int) -> None:
        if not torch.is_floating_point(averaged[0]):
            torch._foreach_copy_(list(averaged), list(current))
            return
        n = float(ema.n_averaged)  # kept on the CPU, so reading it does not wait
        torch._foreach_lerp_(list(averaged), list(current), 1.0 - min(decay, (1.0 + n) / (10.0 + n)))

    ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    return ema
