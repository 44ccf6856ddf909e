"""The one training loop: `fit` reads top to bottom, and every command and every trial runs it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segcore.checkpoint import BestModel, TrainingState, load_checkpoint
from segcore.compiling import Compiler
from segcore.data.augment_device import build_device_augmentation
from segcore.data.cache import SampleCache
from segcore.data.dataset import Batch, Loader, build_loader
from segcore.device import choose_device, choose_precision, prepare_device
from segcore.errors import DataError, NonFiniteLossError
from segcore.evaluation import evaluate, score
from segcore.losses import build_loss
from segcore.models import build_model
from segcore.optim import build_lr_scheduler, build_optimizer
from segcore.step import TrainStep

if TYPE_CHECKING:
    from segcore.config import LoopConfig, TrainConfig

METRICS: dict[str, str] = {
    "val/iou": "max",
    "val/dice": "max",
    "val/iou_pooled": "max",
    "val/dice_pooled": "max",
    "val/loss": "min",
}
"""What may choose the best epoch and the best trial, and in which direction it is better."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave.

    `metrics` has one spelling everywhere: `train/loss`, `lr`, and of the validation images `val/loss`,
    `val/iou` and `val/dice` (mean over images), `val/iou_pooled` and `val/dice_pooled` (over all pixels), all at
    `val/threshold`; `val/iou_auto` at `val/threshold_auto` is what `threshold: auto` gives or would have given.
    """

    epoch: int
    metrics: dict[str, float]
    is_best: bool
    is_last: bool
    state: TrainingState


def seed_everything(seed: int, epoch: int) -> None:
    """Seeds torch for one epoch, so that dropout after a resume draws what an uninterrupted run would."""
    torch.manual_seed((seed * 1_000_003 + epoch) % 2**63)


def fit(
    config: TrainConfig,
    cache: SampleCache,
    *,
    metric: str = "val/iou",
    checkpoint: Path | None = None,
    as_fork: bool = False,
    num_cpus: int = 1,
    device: torch.device | None = None,
    decided_at: Collection[int] = (),
    on_trained: Callable[[TrainingState], None] | None = None,
) -> Iterator[EpochResult]:
    """Trains one model and yields after each epoch; the caller may save, report or stop there.

    Args:
        config: Everything that the run depends on.
        cache: Decoded samples, with a non-empty `train` and `val` split.
        metric: Key of `METRICS` that decides which epoch's weights are the best.
        checkpoint: Folder written by `save_checkpoint`; training goes on after its epoch, with this config's settings.
        as_fork: The checkpoint is of another trial, whose best epoch is not this one's.
        num_cpus: Cores of this run; loader processes follow it where they help.
        device: Default: the GPU when there is one.
        decided_at: Epochs after which this run may be stopped; what takes long to pay is judged by the next one.
        on_trained: Called after an epoch's steps and before its validation. Until its result is taken, nothing
            changes in the state but `lr_schedule` and `best`, so tensors may be written meanwhile.

    Raises:
        NonFiniteLossError: The training or validation loss became NaN or infinite.
        DataError: A split is empty.
    """
    device = device or choose_device()
    prepare_device(device)
    loop = config.train
    for split in ("train", "val"):
        if not cache.indices(split):
            raise DataError(f"data.root: the {split} split holds no images; training needs both train and val")

    torch.manual_seed(loop.seed)
    model = build_model(config.model, load_pretrained=checkpoint is None)
    model = model.to(device).to(memory_format=torch.channels_last)
    loss_fn = build_loss(config.loss).to(device)
    optimizer = build_optimizer(model, config.optimizer)

    is_cuda = device.type == "cuda"
    augment = build_device_augmentation(config.augment) if augments_on_device(config, device) else None
    common: dict[str, Any] = {
        "batch_size": loop.batch_size, "seed": loop.seed, "num_workers": num_loader_workers(loop, num_cpus, device),
        "pin_memory": is_cuda,
    }  # fmt: skip
    train_loader = build_loader(
        cache, "train", augment=config.augment, augment_on="loader" if augment is None else "device", shuffle=True,
        drop_last=True, **common,
    )  # fmt: skip
    val_loader = build_loader(cache, "val", augment=None, shuffle=False, drop_last=False, **common)
    lr_schedule = build_lr_scheduler(optimizer, config.lr_scheduler, loop.epochs, len(train_loader))
    ema = build_ema(model, loop.ema_decay)
    precision = choose_precision(loop, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16 and is_cuda)

    state = TrainingState(model, optimizer, lr_schedule, scaler, ema)
    if checkpoint is not None:
        load_checkpoint(checkpoint, state, as_fork=as_fork)

    step = TrainStep(
        model, loss_fn, optimizer, lr_schedule, scaler, ema, precision, device,
        grad_clip=loop.grad_clip, micro_batch_size=loop.micro_batch_size, augment=augment,
    )  # fmt: skip
    next_decision = min((epoch for epoch in decided_at if epoch > state.epoch), default=loop.epochs)
    take_step = Compiler(
        step,
        mode=loop.compile if is_cuda or loop.compile is True else False,
        steps_left=(next_decision - state.epoch) * len(train_loader),
        folder=cache.path.parent / "inductor",
    )
    val_precision = precision if is_cuda else torch.float32  # on a CPU, scores are those of the sealed model, exactly
    eval_model: nn.Module = ema.module if ema is not None else model
    sign = 1.0 if METRICS[metric] == "max" else -1.0

    with closing(train_loader), closing(val_loader):
        for epoch in range(state.epoch + 1, loop.epochs + 1):
            seed_everything(loop.seed, epoch)
            train_loader.set_epoch(epoch)
            started = time.perf_counter()
            train_loss = train_one_epoch(model, train_loader, take_step)
            train_s = time.perf_counter() - started
            if not math.isfinite(train_loss):
                raise _non_finite(epoch, f"the training loss became {train_loss}", config, precision)
            state.epoch = epoch
            if on_trained is not None:
                on_trained(state)
            try:
                validation = evaluate(eval_model, val_loader, loss_fn, val_precision, device, config.threshold)
            except NonFiniteLossError as error:
                raise _non_finite(epoch, str(error), config, precision) from error

            metrics: dict[str, float] = {
                "train/loss": train_loss,
                "lr": lr_schedule.lr,
                **score(validation, config.threshold),
                "time/train_s": train_s,
                "time/val_s": time.perf_counter() - started - train_s,
                "time/images_per_s": train_loader.num_samples / train_s,
                "time/loader_wait": min(1.0, train_loader.wait_s / train_s),
                "time/compiled": float(take_step.is_compiled),
            }
            lr_schedule.end_epoch(sign * metrics[metric])

            is_best = state.best is None or sign * metrics[metric] > sign * state.best.metrics[metric]
            if is_best:
                state.best = BestModel.copy_of(
                    eval_model, epoch, metrics, validation.curve.to_dict(), validation.overlays
                )
            yield EpochResult(epoch, metrics, is_best, epoch == loop.epochs, state)


def train_one_epoch(model: nn.Module, loader: Loader, take_step: Callable[[Batch], Tensor]) -> float:
    """Trains over the loader once and returns the mean loss over samples.

    The losses are read once, at the end, so that no step waits for one.
    """
    model.train()
    losses, sizes = [], []
    for batch in loader:
        losses.append(take_step(batch))
        sizes.append(len(batch))
    weights = torch.tensor(sizes, dtype=torch.float64)
    mean: float = (torch.stack(losses).cpu().double() * weights).sum().item() / max(sum(sizes), 1)
    return mean


def num_loader_workers(loop: LoopConfig, num_cpus: int, device: torch.device) -> int:
    """Loader processes of a run: as set, or with `auto` its cores where a GPU leaves them free, else none."""
    if loop.num_workers != "auto":
        return loop.num_workers
    return num_cpus if device.type == "cuda" else 0


def augments_on_device(config: TrainConfig, device: torch.device) -> bool:
    """Whether batches are augmented on the device, if it can do all of the policy; `auto` says so on a GPU."""
    where = config.train.augment_on
    return where == "device" or (where == "auto" and device.type == "cuda")


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
        n = float(ema.n_averaged)  # on the CPU, where reading it waits for nothing
        torch._foreach_lerp_(list(averaged), list(current), 1.0 - min(decay, (1.0 + n) / (10.0 + n)))

    ema = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
    return ema


def _non_finite(epoch: int, found: str, config: TrainConfig, precision: torch.dtype) -> NonFiniteLossError:
    return NonFiniteLossError(
        f"epoch {epoch}: {found} "
        f"(optimizer.lr={config.optimizer.lr:g}, loss={_active_terms(config)}, precision={precision}); "
        "a lower optimizer.lr, train.grad_clip above 0 or precision fp32 is the usual cure"
    )


def _active_terms(config: TrainConfig) -> str:
    weights = {name: getattr(config.loss, name) for name in ("bce", "dice", "focal", "tversky", "lovasz")}
    return "+".join(f"{weight:g}*{name}" for name, weight in weights.items() if weight > 0)
