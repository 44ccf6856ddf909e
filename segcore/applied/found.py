"""What a training run is really made of, read from its live objects and never from the config.

Behaviour is measured wherever possible: the loss is called, the schedule is evaluated at steps of the whole run,
augmentation is drawn for `NUM_DRAWS` samples, the moving average is updated. Every object is left as it was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from segcore.data.augment.plan import Column, mixed_seeds
from segcore.models.blocks import AttentionGate
from segcore.models.unet import UNetDecoder
from segcore.training.cost import num_parameters

if TYPE_CHECKING:
    from segcore.data.loader import Loader
    from segcore.registries import Floats
    from segcore.training.schedule import LRSchedule
    from segcore.training.step import TrainStep

Fact = bool | int | float | str | Sequence[float | str] | Mapping[str, int] | None
Facts = dict[str, Fact]
"""Facts about a run by name: a dotted config key or a section, optionally followed by a comma and a detail."""

NUM_DRAWS = 2048
"""Samples that augmentation is drawn for; an event expected in fewer than `RAREST` of them is not measured."""
RAREST = 40
MANY_UPDATES = 10**12
TINY_FACTOR = 1e-12
PROBE_LR = 0.01
"""Learning rate of the optimizer's probe steps; the run's own learning rate is compared separately."""
_MOST_PATIENCE = 10_000
_PLANNED_HW = (256, 256)


def read_model(model: nn.Module) -> Facts:
    """Read decoder, encoder, dropout and number of parameters of a segmentation model."""
    live: Any = model
    encoder = live.encoder
    facts: Facts = {
        **_read_decoder(live.decoder),
        "model.dropout": live.dropout.p,
        "model.num_classes": live.segmentation_head.out_channels,
        "model, parameters": num_parameters(model),
    }
    if encoder.is_timm:
        pretrained: Any = getattr(encoder.backbone, "pretrained_cfg", None) or {}
        facts["model.encoder"] = f"timm:{pretrained.get('architecture', type(encoder.backbone).__name__)}"
    else:
        facts["model.encoder"] = "none"
        facts["model.arch, blocks of the encoder"] = ", ".join(sorted({type(b).__name__ for b in encoder.stages}))
        widths = [block.conv2.out_channels for block in encoder.stages]
        facts["model.base_channels"], facts["model.depth"] = widths[0], len(widths) - 1
    return facts


def _read_decoder(decoder: Any) -> Facts:
    """Blocks, gates and widths of a U-Net's decoder; the class name of any other decoder."""
    if not isinstance(decoder, UNetDecoder):
        return {"model.arch": type(decoder).__name__}
    stages: list[Any] = list(decoder.stages)
    return {
        "model.arch": ", ".join(sorted({type(stage.block).__name__ for stage in stages})),
        "model.arch, attention gates": sum(isinstance(module, AttentionGate) for module in decoder.modules()),
        "model.decoder_channels": [stage.block.conv2.out_channels for stage in stages],
    }


def read_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> Facts:
    """Read the optimizer's class, the settings of every parameter group, and how many parameters are trained."""
    facts: Facts = {"optimizer.name": type(optimizer).__name__}
    trained = {}
    for index, group in enumerate(optimizer.param_groups):
        name = str(group.get("name", index))
        of_encoder = name.startswith("encoder/")
        facts[f"optimizer.{'encoder_lr_factor' if of_encoder else 'lr'}, peak of {name}"] = _peak(group)
        facts[f"optimizer.weight_decay, of {name}"] = group.get("weight_decay")
        facts[f"optimizer.momentum, of {name}"] = _momentum(group)
        trained[name] = sum(parameter.numel() for parameter in group["params"])
    facts["optimizer, parameters by group"] = trained
    encoder = list(model.encoder_parameters())  # type: ignore[operator]
    facts["optimizer.encoder_lr_factor, encoder frozen"] = not any(p.requires_grad for p in encoder)
    return facts


def read_steps(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> list[float]:
    """Return four weights after three steps at `PROBE_LR` of a fresh optimizer with one group's settings."""
    weights, gradients = optimizer_sample()
    probe = nn.Parameter(torch.from_numpy(weights))
    settings = {key: value for key, value in group.items() if key in optimizer.defaults}
    twin = type(optimizer)([{**settings, "params": [probe], "lr": PROBE_LR}], lr=PROBE_LR)  # type: ignore[call-arg]
    for gradient in gradients:
        probe.grad = torch.from_numpy(gradient)
        twin.step()
    return probe.detach().tolist()


def optimizer_sample() -> tuple[Floats, list[Floats]]:
    """Fixed weights `(4,) float64` and the gradients of three steps, `(4,) float64` each."""
    weights = np.linspace(-1.0, 2.0, 4)
    return weights, [np.array([0.3, -0.2, 1.5, 0.01]) * scale for scale in (1.0, -0.5, 2.0)]


def _peak(group: dict[str, Any]) -> float:
    return float(group.get("peak_lr", group["lr"]))


def _momentum(group: dict[str, Any]) -> Any:
    if "momentum" in group:
        return [group["momentum"], "nesterov" if group.get("nesterov") else "plain"]
    return list(group.get("betas", ()))


def read_schedule(schedule: LRSchedule, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> Facts:
    """Read the schedule's share of the peak over the whole run, its plateau behaviour, and the current learning rates.

    Args:
        schedule: The live schedule; its state is restored afterwards.
        optimizer: The live optimizer, whose groups hold `lr` and `peak_lr`.
        steps_per_epoch: Optimizer steps per epoch, at least 1.
    """
    total = schedule.total_steps
    shares = sorted({float(f"{group['lr'] / (_peak(group) or 1.0):.9g}") for group in optimizer.param_groups})
    with _untouched(schedule):  # restoring the state also sets the learning rates again
        patience, factor, floor = _plateau(schedule)
    return {
        "train.epochs": total / steps_per_epoch,
        "lr_scheduler, share of the peak over the run": [schedule.factor_at(step) for step in probes(total)],
        "lr_scheduler.patience": patience,
        "lr_scheduler.factor": factor,
        "lr_scheduler.min_lr_factor, of plateau": floor,
        "lr_scheduler, share of the peak now": shares,
    }


def probes(total: int) -> list[int]:
    """Steps at which a schedule is evaluated: the first two, the last, and evenly spaced ones between."""
    return sorted({0, min(1, total), *(total * sixteenth // 16 for sixteenth in range(17))})


def _plateau(schedule: LRSchedule) -> tuple[int | None, float | None, float | None]:
    """Patience in epochs, factor and smallest share of the peak of a schedule that follows the metric; else None."""
    start = {**schedule.state_dict(), "num_steps": 0, "plateau_factor": 1.0, "best_metric": 0.0, "num_bad_epochs": 0}
    schedule.load_state_dict(start)
    full = schedule.lr
    if not full:
        return None, None, None
    for patience in range(_MOST_PATIENCE):
        schedule.end_epoch(-1.0)
        if schedule.lr != full:
            factor = schedule.lr / full
            schedule.load_state_dict({**start, "plateau_factor": TINY_FACTOR, "num_bad_epochs": _MOST_PATIENCE})
            schedule.end_epoch(-1.0)
            return patience, factor, schedule.lr / full
        if schedule.state_dict()["num_bad_epochs"] == 0:
            return None, None, None
    return None, None, None


@contextmanager
def _untouched(schedule: LRSchedule) -> Iterator[None]:
    before = dict(schedule.state_dict())
    try:
        yield
    finally:
        schedule.load_state_dict(before)


def read_loss(loss_fn: nn.Module) -> Facts:
    """Evaluate the loss on two small images, one of them without foreground: each term and the total."""
    logits, targets = loss_sample()
    with torch.no_grad():
        facts: Facts = {"loss, in all": float(loss_fn(logits, targets))}
        terms = getattr(loss_fn, "terms", None)
        values: dict[str, Tensor] = terms(logits, targets) if callable(terms) else {}
    weights = getattr(loss_fn, "weights", {})
    for name, value in values.items():
        facts[f"loss.{name}, weight"] = weights.get(name)
        facts[f"loss, {name}"] = float(value)
    return facts


def loss_sample() -> tuple[Tensor, Tensor]:
    """Fixed logits and targets, `(2, 1, 4, 4) float32` each; the second target is empty."""
    logits = torch.linspace(-3.0, 2.5, 32).reshape(2, 1, 4, 4)
    targets = (torch.arange(32).reshape(2, 1, 4, 4) % 3 == 0).float()
    targets[1] = 0.0
    return logits, targets


def read_augmentation(step: TrainStep, loader: Loader) -> Facts:
    """Read which augmentation training samples get, where it runs, how often and how strong."""
    augmentation, on_device = loader.dataset.augmentation(), loader.dataset.plans_only
    facts: Facts = {"train.augment_on": "device" if on_device else "loader", "augment.policy": "none"}
    if on_device or step.augment is not None:
        facts["augment.policy, on the device"] = "nothing" if step.augment is None else device_steps(step)
    if augmentation is not None:
        plan = augmentation.plan(_PLANNED_HW, mixed_seeds(0, 0, np.arange(NUM_DRAWS)))
        facts["augment.policy"] = "heavy" if augmentation.is_distorting else _policy(_plan_steps(plan))
        facts |= _extents(plan)
    return facts


def _policy(steps: list[str]) -> str:
    if "blur" in steps:
        return "medium"
    return "light" if "affine" in steps else "flip" if "flip" in steps else "none"


def _plan_steps(plan: Any) -> list[str]:
    steps = []
    if (plan[:, Column.FLIP_X] != 0).any():
        steps.append("flip")
    if (plan[:, [Column.SHIFT_X, Column.SHIFT_Y]] != 0).any():
        steps.append("affine")
    if (plan[:, Column.BLUR_SIGMA] != 0).any():
        steps.append("blur")
    return steps


def _extents(plan: Any) -> Facts:
    """How often a sample is flipped, and the extremes of the drawn values."""
    return {
        "augment.probability": float((plan[:, Column.FLIP_X] != 0).mean()),
        "augment.vertical_flip": bool((plan[:, Column.FLIP_Y] != 0).any()),
        "augment.scale": float(abs(plan[:, Column.SCALE_X] - 1.0).max()),
        "augment.rotate": float(abs(plan[:, Column.ANGLE]).max()),
        "augment.color": float(abs(plan[:, Column.CONTRAST] - 1.0).max()),
    }


def device_steps(step: TrainStep) -> str:
    """Names of the steps that the device's augmentation carries out, found by requesting one at a time."""
    asked = {
        "flip": (Column.FLIP_X, 1.0),
        "affine": (Column.ANGLE, 45.0),
        "contrast": (Column.CONTRAST, 0.5),
        "hsv": (Column.HUE, 40.0),
        "noise": (Column.NOISE_STD, 20.0),
        "blur": (Column.BLUR_SIGMA, 1.0),
    }
    plan = torch.zeros((len(asked), len(Column)))
    plan[:, [Column.SCALE_X, Column.SCALE_Y, Column.CONTRAST]] = 1.0
    for row, (column, value) in enumerate(asked.values()):
        plan[row, column] = value
    image = (torch.arange(3 * 16 * 16).reshape(1, 3, 16, 16) * 7919 % 251).to(torch.uint8)
    images = image.repeat(len(asked), 1, 1, 1).contiguous(memory_format=torch.channels_last)
    augment: Any = step.augment
    changed, _ = augment(images, images[:, :1] > 125, plan)
    return ", ".join(name for name, new in zip(asked, changed, strict=True) if not torch.equal(new, image[0]))


def read_loop(step: TrainStep, train_loader: Loader, val_loader: Loader | None) -> Facts:
    """Read batch sizes, precision, gradient clipping, weight averaging and seeds.

    Args:
        step: The live training step.
        train_loader: The loader of the training split.
        val_loader: The loader of the validation split; None reads nothing about it.
    """
    facts: Facts = {
        "train.batch_size": train_loader.batch_size,
        "train.micro_batch_size": step.micro_batch_size,
        "train.precision": str(step.precision).removeprefix("torch."),
        "train.precision, losses are scaled": step.scaler.is_enabled(),
        "train.grad_clip": step.grad_clip,
        "train.ema_decay": _decay(step),
        "train.seed, of the samples": train_loader.dataset.seed,
        "train.seed, of the weights": torch.initial_seed(),
        "train, samples are shuffled": train_loader.is_shuffled,
    }
    if step.device.type == "cuda":
        switches = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
        facts["train.deterministic"] = all((*switches, not torch.backends.cudnn.benchmark))
    if val_loader is not None:
        facts["augment, of validation"] = "none" if val_loader.dataset.augmentation() is None else "some"
    return facts


def _decay(step: TrainStep) -> float:
    """Share of itself that the moving average keeps in one update once it has warmed up; 0 without an average."""
    if step.ema is None:
        return 0.0
    ema: Any = step.ema
    before, kept = ema.n_averaged, torch.ones((), dtype=torch.float64)
    try:
        ema.n_averaged = torch.tensor(MANY_UPDATES)
        ema.multi_avg_fn([kept], [torch.zeros_like(kept)], MANY_UPDATES)
    finally:
        ema.n_averaged = before
    return float(kept)


def is_measurable(probability: float) -> bool:
    """Whether an augmentation of this probability, in [0, 1], is drawn often enough to be measured."""
    return probability * NUM_DRAWS >= RAREST


def slack_of(probability: float) -> tuple[float, float]:
    """Tolerances for a probability in (0, 1]: error of the measured share, and share of a range that may be missed."""
    spread = math.sqrt(max(probability * (1.0 - probability), 1e-12) / NUM_DRAWS)
    return 6.0 * spread, min(1.0, 20.0 / (NUM_DRAWS * probability))
