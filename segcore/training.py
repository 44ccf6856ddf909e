"""The one training loop: `fit` reads top to bottom, and every command and every trial runs it."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segcore.checkpoint import BestModel, TrainingState, load_checkpoint
from segcore.config import LoopConfig, TrainConfig
from segcore.data.cache import SampleCache
from segcore.data.dataset import Loader, build_loader
from segcore.errors import DataError, NonFiniteLossError
from segcore.losses import build_loss
from segcore.metrics import CurveResult, ThresholdCurve
from segcore.models import build_model
from segcore.optim import LRSchedule, build_lr_scheduler, build_optimizer

METRICS: dict[str, str] = {
    "val/iou": "max",
    "val/dice": "max",
    "val/iou_pooled": "max",
    "val/dice_pooled": "max",
    "val/loss": "min",
}
"""What may choose the best epoch and the best trial, and in which direction it is better."""

NUM_OVERLAYS = 6


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


@dataclass(frozen=True)
class Evaluation:
    """One pass over a split: mean loss, the threshold curve, and a few images with their probabilities."""

    loss: float
    curve: CurveResult
    overlays: dict[str, np.ndarray] = field(default_factory=dict)


def choose_device() -> torch.device:
    """The GPU of this process when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(config: LoopConfig, device: torch.device) -> torch.dtype:
    """The dtype of autocast; float32 means none. bf16 where the GPU has it, else fp16; on a CPU fp32 is faster."""
    if config.precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]


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

    Raises:
        NonFiniteLossError: The training or validation loss became NaN or infinite.
        DataError: A split is empty.
    """
    device = device or choose_device()
    loop = config.train
    for split in ("train", "val"):
        if not cache.indices(split):
            raise DataError(f"data.root: the {split} split holds no images; training needs both train and val")

    torch.manual_seed(loop.seed)
    model = build_model(config.model, load_pretrained=checkpoint is None)
    model = model.to(device).to(memory_format=torch.channels_last)
    loss_fn = build_loss(config.loss).to(device)
    optimizer = build_optimizer(model, config.optimizer)

    workers = num_cpus if loop.num_workers == "auto" and device.type == "cuda" else loop.num_workers
    workers = 0 if workers == "auto" else workers
    pin_memory = device.type == "cuda"
    train_loader = build_loader(
        cache, "train", batch_size=loop.batch_size, augment=config.augment, shuffle=True, drop_last=True,
        seed=loop.seed, num_workers=workers, pin_memory=pin_memory,
    )  # fmt: skip
    val_loader = build_loader(
        cache, "val", batch_size=loop.batch_size, augment=None, shuffle=False, drop_last=False,
        seed=loop.seed, num_workers=workers, pin_memory=pin_memory,
    )  # fmt: skip
    lr_schedule = build_lr_scheduler(optimizer, config.lr_scheduler, loop.epochs, len(train_loader))
    ema = build_ema(model, loop.ema_decay)
    precision = choose_precision(loop, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16 and device.type == "cuda")

    state = TrainingState(model, optimizer, lr_schedule, scaler, ema)
    if checkpoint is not None:
        load_checkpoint(checkpoint, state, as_fork=as_fork)

    step_model: nn.Module = torch.compile(model) if loop.compile else model  # type: ignore[assignment]
    eval_model: nn.Module = ema.module if ema is not None else model
    sign = 1.0 if METRICS[metric] == "max" else -1.0

    for epoch in range(state.epoch + 1, loop.epochs + 1):
        seed_everything(loop.seed, epoch)
        train_loader.set_epoch(epoch)
        started = time.perf_counter()
        train_loss = train_one_epoch(
            step_model, train_loader, loss_fn, optimizer, lr_schedule, scaler, ema, precision, loop.grad_clip, device
        )
        train_s = time.perf_counter() - started
        if not math.isfinite(train_loss):
            raise _non_finite(epoch, f"the training loss became {train_loss}", config, precision)
        try:
            validation = evaluate(eval_model, val_loader, loss_fn, precision, device, config.threshold)
        except NonFiniteLossError as error:
            raise _non_finite(epoch, str(error), config, precision) from error

        metrics: dict[str, float] = {
            "train/loss": train_loss,
            "lr": lr_schedule.lr,
            **score(validation, config.threshold),
            "time/train_s": train_s,
            "time/val_s": time.perf_counter() - started - train_s,
            "time/images_per_s": train_loader.num_samples / train_s,
        }
        lr_schedule.end_epoch(sign * metrics[metric])

        state.epoch = epoch
        is_best = state.best is None or sign * metrics[metric] > sign * state.best.metrics[metric]
        if is_best:
            state.best = BestModel.copy_of(eval_model, epoch, metrics, validation.curve.to_dict(), validation.overlays)
        yield EpochResult(epoch, metrics, is_best, epoch == loop.epochs, state)


def train_one_epoch(
    model: nn.Module,
    loader: Loader,
    loss_fn: nn.Module,
    optimizer: torch.optim.Optimizer,
    lr_schedule: LRSchedule,
    scaler: torch.amp.GradScaler,
    ema: AveragedModel | None,
    precision: torch.dtype,
    grad_clip: float,
    device: torch.device,
) -> float:
    """Trains over the loader once and returns the mean loss over samples.

    The loss is summed on the device and read once, at the end, so that no step waits for it.
    """
    model.train()
    total = torch.zeros((), dtype=torch.float64, device=device)
    num_samples = 0
    for batch in loader:
        images = batch.images.to(device, non_blocking=True)  # (N, 3, H, W) uint8, channels_last
        targets = batch.targets.to(device, non_blocking=True)  # (N, 1, H, W) uint8
        with torch.autocast(device.type, dtype=precision, enabled=precision is not torch.float32):
            logits = model(images)  # (N, 1, H, W)
        loss: Tensor = loss_fn(logits.float(), targets)

        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if grad_clip > 0:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], grad_clip)
        scaler.step(optimizer)
        scaler.update()
        lr_schedule.step()
        if ema is not None:
            ema.update_parameters(getattr(model, "_orig_mod", model))
        total += loss.detach().double() * len(images)
        num_samples += len(images)
    return total.item() / max(num_samples, 1)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Loader,
    loss_fn: nn.Module,
    precision: torch.dtype,
    device: torch.device,
    threshold: float | Literal["auto"] = "auto",
) -> Evaluation:
    """One pass over a loader: mean loss, exact threshold curve, and `NUM_OVERLAYS` evenly spaced examples."""
    model.eval()
    curve = ThresholdCurve(device=device, thresholds=() if threshold == "auto" else (threshold,))
    total = torch.zeros((), dtype=torch.float64, device=device)
    wanted = set(np.linspace(0, loader.num_samples - 1, min(NUM_OVERLAYS, loader.num_samples)).round().astype(int))
    images_kept, targets_kept, probs_kept = [], [], []
    position = 0
    for batch in loader:
        images = batch.images.to(device, non_blocking=True)
        targets = batch.targets.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=precision, enabled=precision is not torch.float32):
            logits = model(images)
        logits = logits.float()
        total += loss_fn(logits, targets).double() * len(images)
        probs = logits.sigmoid()  # (N, 1, H, W) float32
        curve.update(probs, targets)
        for offset in [i for i in range(len(images)) if position + i in wanted]:
            images_kept.append(images[offset].permute(1, 2, 0).cpu().numpy())
            targets_kept.append(targets[offset, 0].cpu().numpy())
            probs_kept.append(probs[offset, 0].half().cpu().numpy())
        position += len(images)
    if not math.isfinite(total.item()):
        raise NonFiniteLossError(f"the validation loss became {total.item()}")
    overlays = {"images": np.stack(images_kept), "targets": np.stack(targets_kept), "probs": np.stack(probs_kept)}
    return Evaluation(total.item() / max(position, 1), curve.compute(), overlays)


def score(evaluation: Evaluation, threshold: float | Literal["auto"]) -> dict[str, float]:
    """The validation metrics at the threshold that applies, beside what `auto` gives."""
    curve = evaluation.curve
    auto_threshold, auto_iou, gap = curve.best("iou")
    applied = auto_threshold if threshold == "auto" else threshold
    point = curve.at(applied)
    return {
        "val/loss": evaluation.loss,
        "val/iou": point.iou,
        "val/dice": point.dice,
        "val/iou_pooled": point.iou_pooled,
        "val/dice_pooled": point.dice_pooled,
        "val/threshold": point.threshold,
        "val/iou_auto": auto_iou,
        "val/threshold_auto": auto_threshold,
        "val/threshold_gap": gap,
    }


def build_ema(model: nn.Module, decay: float) -> AveragedModel | None:
    """Moving average of weights and batch-norm statistics, or None for a decay of 0.

    The decay warms up as `min(decay, (1 + n) / (10 + n))` over updates n, so that a short run is not
    dominated by its initial weights (TensorFlow's ExponentialMovingAverage uses the same ramp).
    """
    if decay == 0.0:
        return None

    def average(averaged: Tensor, current: Tensor, num_averaged: Tensor | int) -> Tensor:
        n = float(num_averaged)
        if not torch.is_floating_point(averaged):
            return current
        return torch.lerp(averaged, current, 1.0 - min(decay, (1.0 + n) / (10.0 + n)))

    return AveragedModel(model, avg_fn=average, use_buffers=True)


def _non_finite(epoch: int, found: str, config: TrainConfig, precision: torch.dtype) -> NonFiniteLossError:
    return NonFiniteLossError(
        f"epoch {epoch}: {found} "
        f"(optimizer.lr={config.optimizer.lr:g}, loss={_active_terms(config)}, precision={precision}); "
        "a lower optimizer.lr, train.grad_clip above 0 or precision fp32 is the usual cure"
    )


def _active_terms(config: TrainConfig) -> str:
    weights = config.loss.model_dump(include={"bce", "dice", "focal", "tversky", "lovasz"})
    return "+".join(f"{weight:g}*{name}" for name, weight in weights.items() if weight > 0)
