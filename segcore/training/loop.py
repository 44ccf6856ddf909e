"""The one training loop: `fit` reads top to bottom, and every command and every trial runs it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from segcore.applied.verify import verify_applied, verify_epoch
from segcore.checkpoint.state import BestModel, Checkpoint, TrainingState, load_checkpoint
from segcore.data.loader import Batch, Loader, build_loader
from segcore.data.pixels.cache_file import SampleCache
from segcore.errors import ConfigError, DataError, NonFiniteLossError
from segcore.objective import Objective
from segcore.registries import LOSSES
from segcore.scores.scorer import scorer_of
from segcore.sealed.predictor import Predictor
from segcore.training.compiling import Compiler
from segcore.training.device import choose_device, freed_memory_kept
from segcore.training.evaluation import evaluate, score
from segcore.training.parts import one_image_problem
from segcore.training.step import augments_on_device, build_step

if TYPE_CHECKING:
    from segcore.config import LoopConfig, TrainConfig


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch.

    Keys of `metrics`: `train/loss`, `lr`, and on the validation images `val/loss`, `val/iou` and `val/dice` (mean over
    images), `val/iou_pooled` and `val/dice_pooled` (over all pixels), all at `val/threshold`; `val/iou_auto` at
    `val/threshold_auto` is what `threshold: auto` gives or would give. `time/loader_wait` is the share of the training
    time spent waiting for batches, in [0, 1]; `time/compiled` is 1 where the epoch ended with compiled steps.

    Attributes:
        epoch: The epoch, from 1.
        metrics: Numbers by key, as above.
        is_best: Whether this epoch is better than all earlier ones.
        is_last: Whether this is the run's last epoch.
        state: The live training state after the epoch.
        note: Something the user should know about this run, in one epoch's result only.
        applied: What was read back from the run before its first step, in the first result only.
    """

    epoch: int
    metrics: dict[str, float]
    is_best: bool
    is_last: bool
    state: TrainingState
    note: str | None = None
    applied: dict[str, Any] | None = None


def seed_everything(seed: int, epoch: int) -> None:
    """Seed torch for one epoch, so that dropout after a resume draws what an uninterrupted run would draw."""
    torch.manual_seed((seed * 1_000_003 + epoch) % 2**63)


def fit(
    config: TrainConfig,
    cache: SampleCache,
    *,
    metric: str = "val/iou",
    checkpoint: Checkpoint | None = None,
    num_cpus: int = 1,
    device: torch.device | None = None,
    decided_at: Collection[int] = (),
    on_trained: Callable[[TrainingState], None] | None = None,
) -> Generator[EpochResult, None, None]:
    """Train one model and yield after each epoch; the caller may save, report or stop there.

    Args:
        config: Everything that the run depends on.
        cache: Decoded samples, with a non-empty `train` and `val` split.
        metric: A key of `segcore.scores.scorer.METRICS`; it decides which epoch's weights are the best.
        checkpoint: Training resumes after its epoch, with this config's settings. Its contents are moved out of it.
        num_cpus: Cores of this run, at least 1; the number of loader processes follows it where they help.
        device: The device to train on; by default the GPU when there is one.
        decided_at: Epochs after which this run may be stopped; compiling must pay off before the next one.
        on_trained: Called after an epoch's steps and before its validation. Until the epoch's result is yielded and
            taken, only `lr_schedule` and `best` of the state change, so its tensors may be written meanwhile.

    Raises:
        AppliedConfigError: What was built is not what the config asks for.
        ConfigError: Single images would go through a model that cannot train on them.
        NonFiniteLossError: The training or validation loss became NaN or infinite.
        DataError: A split is empty.
    """
    device = device or choose_device()
    loop = config.train
    for split in ("train", "val"):
        if not cache.indices(split):
            raise DataError(f"data.root: the {split} split holds no images; training needs both train and val")

    if (problem := one_image_problem(config, len(cache.indices("train")))) is not None:
        raise ConfigError(problem)

    is_cuda = device.type == "cuda"
    train_loader = build_train_loader(config, cache, num_cpus, device)
    val_loader = build_loader(
        cache, "val", batch_size=loop.batch_size, augment=None, shuffle=False, drop_last=False, seed=loop.seed,
        num_workers=0 if loop.num_workers == "auto" else loop.num_workers, pin_memory=is_cuda,
    )  # fmt: skip
    step = build_step(config, device, steps_per_epoch=len(train_loader), load_pretrained=checkpoint is None)
    model, lr_schedule, ema = step.model, step.lr_schedule, step.ema
    state = TrainingState(model, step.optimizer, lr_schedule, step.scaler, ema)
    if checkpoint is not None:
        load_checkpoint(checkpoint, state)

    mode = compile_mode(loop, device)
    applied: dict[str, Any] | None = verify_applied(config, step, train_loader, val_loader, cache.hw, mode)
    next_decision = min((epoch for epoch in decided_at if epoch > state.epoch), default=loop.epochs)
    take_step = Compiler(
        step,
        mode=mode,
        steps_left=(next_decision - state.epoch) * len(train_loader),
        folder=cache.path.parent / "inductor",
    )
    val_precision = (
        step.precision if is_cuda else torch.float32
    )  # on a CPU, scores are those of the sealed model, exactly
    eval_model: nn.Module = ema.module if ema is not None else model
    objective = Objective(metric, scorer_of(metric).mode)
    predictor = Predictor(eval_model, step.task, cache.hw, device, val_precision)

    has_told = False
    with closing(train_loader), closing(val_loader), freed_memory_kept(device) as tidy_up:
        for epoch in range(state.epoch + 1, loop.epochs + 1):
            tidy_up()
            seed_everything(loop.seed, epoch)
            train_loader.set_epoch(epoch)
            started = time.perf_counter()
            train_loss = train_one_epoch(model, train_loader, take_step)
            train_s = time.perf_counter() - started
            if not math.isfinite(train_loss):
                raise _non_finite(epoch, f"the training loss became {train_loss}", config, step.precision)
            state.epoch = epoch
            if on_trained is not None:
                on_trained(state)
            try:
                validation = evaluate(predictor, val_loader, step.loss_fn, config.threshold)
            except NonFiniteLossError as error:
                raise _non_finite(epoch, str(error), config, step.precision) from error

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
            verify_epoch(config, metrics, epoch * len(train_loader), len(train_loader))
            lr_schedule.end_epoch(objective.sign * metrics[metric])

            is_best = state.best is None or objective.better(metrics[metric], state.best.metrics[metric])
            if is_best:
                curve, chosen = validation.curve, (metrics["val/threshold"], metrics["val/threshold_auto"])
                state.best = BestModel.copy_of(
                    eval_model, epoch, metrics, curve.to_dict(), validation.overlays, curve.image_counts(chosen)
                )
            notes = [loader.take_note() for loader in (train_loader, val_loader)]
            if not has_told and take_step.decision is not None:
                notes.append(take_step.decision.reason)
                has_told = True
            note = "; ".join(dict.fromkeys(filter(None, notes))) or None
            yield EpochResult(epoch, metrics, is_best, epoch == loop.epochs, state, note, applied)
            applied = None


def compile_mode(loop: LoopConfig, device: torch.device) -> bool | Literal["auto"]:
    """Whether a run compiles its steps: `auto` depends on timing, so on a CPU or a deterministic run it means False."""
    if loop.compile == "auto" and loop.deterministic:
        return False
    return loop.compile if device.type == "cuda" or loop.compile is True else False


def train_one_epoch(model: nn.Module, loader: Loader, take_step: Callable[[Batch], Tensor]) -> float:
    """Train over the loader once and return the mean loss over samples.

    The losses are read once, at the end, so that no step waits for the device.

    Args:
        model: The model, which is put into training mode.
        loader: The training batches of one epoch.
        take_step: Takes one optimizer step on a batch and returns its mean loss, `() float32` on the device.
    """
    model.train()
    losses, sizes = [], []
    for batch in loader:
        losses.append(take_step(batch))
        sizes.append(len(batch))
    weights = torch.tensor(sizes, dtype=torch.float64)
    mean: float = (torch.stack(losses).cpu().double() * weights).sum().item() / max(sum(sizes), 1)
    return mean


def build_train_loader(config: TrainConfig, cache: SampleCache, num_cpus: int, device: torch.device) -> Loader:
    """Build the loader of a run's training batches, augmented where it is fastest, with as many processes as help.

    With `train.num_workers: auto` there are as many processes as cores where a GPU trains and the loader augments.
    Where the GPU augments, one thread that reads ahead is enough; on a CPU, loader and model compete for the cores.

    Args:
        config: The run's config.
        cache: Decoded samples, with a non-empty `train` split.
        num_cpus: Cores of this run, at least 1.
        device: The device the run trains on.
    """
    loop, is_cuda, on_device = config.train, device.type == "cuda", augments_on_device(config, device)
    automatic = num_cpus if is_cuda and not on_device else 0
    return build_loader(
        cache, "train", batch_size=loop.batch_size, augment=config.augment,
        augment_on="device" if on_device else "loader", shuffle=True, drop_last=True, seed=loop.seed,
        num_workers=automatic if loop.num_workers == "auto" else loop.num_workers, pin_memory=is_cuda,
    )  # fmt: skip


def _non_finite(epoch: int, found: str, config: TrainConfig, precision: torch.dtype) -> NonFiniteLossError:
    return NonFiniteLossError(
        f"epoch {epoch}: {found} "
        f"(optimizer.lr={config.optimizer.lr:g}, loss={_active_terms(config)}, precision={precision}); "
        "a lower optimizer.lr, train.grad_clip above 0 or precision fp32 is the usual cure"
    )


def _active_terms(config: TrainConfig) -> str:
    weights = {name: getattr(config.loss, name) for name in LOSSES.names}
    return "+".join(f"{weight:g}*{name}" for name, weight in weights.items() if weight > 0)
