"""What a training run should be made of according to its config, under the keys of `found`, by independent rules.

The formulas are implemented a second time, here or as the twins of losses, optimizers and schedules. They follow the
docstrings of what they describe, not its code, so a mistake in a builder shows as a difference. The builders are asked
only for what a config leaves to defaults (decoder widths, `auto`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from segcore.applied.found import (
    MANY_UPDATES,
    PROBE_LR,
    TINY_FACTOR,
    Facts,
    is_measurable,
    loss_sample,
    optimizer_sample,
    probes,
)
from segcore.models.build import build_model_outline
from segcore.registries import ARCHITECTURES, LOSSES, OPTIMIZERS, SCHEDULES, Horizon
from segcore.training.cost import num_parameters
from segcore.training.device import choose_precision

if TYPE_CHECKING:
    from segcore.config import (
        AugmentConfig,
        LossConfig,
        LRSchedulerConfig,
        ModelConfig,
        OptimizerConfig,
        TrainConfig,
    )

ANYTHING = "anything"
"""Stands for a value that cannot be predicted or measured."""

_PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_DEVICE_STEPS = {
    "flip": "flip",
    "light": "flip, affine, contrast",
    "medium": "flip, affine, contrast, hsv, noise, blur",
}
_counts: dict[str, int] = {}


def want_model(config: ModelConfig, model: nn.Module) -> Facts:
    """What to expect of a model: the facts of its architecture, and those that all models have."""
    chosen = ARCHITECTURES[config.arch]
    facts: Facts = {
        **chosen.build.want(config, model, **chosen.arguments(config)),
        "model.dropout": config.dropout,
        "model.num_classes": config.num_classes,
        "model, parameters": _num_fresh_parameters(config),
        "model.encoder": config.encoder.partition(".")[0],
    }
    if config.encoder == "none":
        facts["model.base_channels"], facts["model.depth"] = config.base_channels, config.depth
    return facts


def _num_fresh_parameters(config: ModelConfig) -> int:
    """Parameters of a newly built model, without allocating memory where possible; counted once per process."""
    own = ARCHITECTURES[config.arch].arguments(config)
    key = repr((config.arch, config.encoder, config.base_channels, config.depth, config.decoder_channels, own))
    if key not in _counts:
        _counts[key] = num_parameters(build_model_outline(config))
    return _counts[key]


def want_optimizer(config: OptimizerConfig, model: nn.Module) -> Facts:
    """What to expect of the optimizer: its class, and its groups (encoder and decoder, each with and without decay).

    An `encoder_lr_factor` of 0 freezes a timm encoder, which then has no groups.
    """
    factor = config.encoder_lr_factor if model.has_timm_encoder else 1.0
    encoder = {id(p) for p in model.encoder_parameters()}  # type: ignore[operator]
    trained: dict[str, int] = {}
    for parameter in model.parameters():
        part = "encoder" if id(parameter) in encoder else "decoder"
        if part == "decoder" or factor > 0:
            name = f"{part}/{'decay' if parameter.ndim > 1 else 'no_decay'}"
            trained[name] = trained.get(name, 0) + parameter.numel()
    chosen = OPTIMIZERS[config.name]
    momentum = list(chosen.build.momentum(**chosen.arguments(config)))
    facts: Facts = {
        "optimizer.name": chosen.build.class_name,
        "optimizer, parameters by group": trained,
        "optimizer.encoder_lr_factor, encoder frozen": factor == 0,
    }
    for name in trained:
        peak = ("encoder_lr_factor", config.lr * factor) if name.startswith("encoder/") else ("lr", config.lr)
        facts[f"optimizer.{peak[0]}, peak of {name}"] = peak[1]
        facts[f"optimizer.weight_decay, of {name}"] = 0.0 if name.endswith("no_decay") else config.weight_decay
        facts[f"optimizer.momentum, of {name}"] = momentum
    return facts


def want_schedule(config: LRSchedulerConfig, epochs: int, steps_per_epoch: int, place: dict[str, int | float]) -> Facts:
    """What to expect of the schedule, computed by its twin.

    Args:
        config: Which schedule, and its options.
        epochs: Epochs of the run, at least 1.
        steps_per_epoch: Optimizer steps per epoch, at least 1.
        place: The live schedule's `state_dict()`, which says how far it has come.
    """
    total = epochs * steps_per_epoch
    now = share_at(config, int(place["num_steps"]), total, steps_per_epoch) * float(place["plateau_factor"])
    chosen = SCHEDULES[config.name]
    judge = chosen.build.judge_twin
    patience, factor, floor = (None, None, None) if judge is None else judge(**chosen.arguments(config))
    if floor is None or factor is None or floor >= 1:
        patience = factor = floor = None  # it has no visible effect
    else:
        floor = max(floor, TINY_FACTOR * factor)
    return {
        "train.epochs": float(epochs),
        "lr_scheduler, share of the peak over the run": [
            share_at(config, step, total, steps_per_epoch) for step in probes(total)
        ],
        "lr_scheduler.patience": patience,
        "lr_scheduler.factor": factor,
        "lr_scheduler.min_lr_factor, of plateau": floor,
        "lr_scheduler, share of the peak now": [now],
    }


def share_at(config: LRSchedulerConfig, step: int, total: int, steps_per_epoch: int) -> float:
    """Learning rate of a step as a share of its peak, without the factor that follows the metric.

    Args:
        config: Which schedule, and its options.
        step: Optimizer steps taken so far; values beyond `total` count as `total`.
        total: Optimizer steps of the whole run.
        steps_per_epoch: Optimizer steps per epoch, at least 1.
    """
    chosen = SCHEDULES[config.name]
    return chosen.build.twin(min(step, total), Horizon(total, steps_per_epoch), **chosen.arguments(config))


def want_loss(config: LossConfig) -> Facts:
    """What to expect of the loss on `loss_sample`: each active term in float64, by its twin, and the total."""
    logits, targets = (tensor.numpy().astype(np.float64)[:, 0] for tensor in loss_sample())
    weights = {term.name: float(getattr(config, term.name)) for term in LOSSES}
    values = {
        term.name: term.build.twin(logits, targets, **term.arguments(config))
        for term in LOSSES
        if weights[term.name] > 0
    }
    facts: Facts = {"loss, in all": sum(weights[name] * value for name, value in values.items())}
    for name, value in values.items():
        facts[f"loss.{name}, weight"], facts[f"loss, {name}"] = weights[name], value
    return facts


def want_augmentation(config: AugmentConfig, augment_on: str, is_cuda: bool) -> Facts:
    """What to expect of augmentation: the policy, where it runs, and the range of each drawn value.

    Args:
        config: The policy and its options.
        augment_on: `train.augment_on`: "device", "loader" or "auto".
        is_cuda: Whether the run trains on a GPU.
    """
    does = config.policy if config.probability > 0 else "none"
    on_device = does in _DEVICE_STEPS and (augment_on == "device" or (augment_on == "auto" and is_cuda))
    facts: Facts = {"train.augment_on": "device" if on_device else "loader", "augment.policy": does}
    if on_device:
        facts["augment.policy, on the device"] = _DEVICE_STEPS[does]
    if config.policy == "none":
        return facts
    p, moves = config.probability, does not in ("none", "flip")
    extents: Facts = {
        "augment.probability": p,
        "augment.vertical_flip": config.vertical_flip and p > 0,
        "augment.scale": config.scale if moves else 0.0,
        "augment.rotate": config.rotate if moves else 0.0,
        "augment.color": config.color if moves else 0.0,
    }
    if p > 0 and not is_measurable(p):
        extents = dict.fromkeys(extents, ANYTHING)
        facts["augment.policy"] = "heavy" if does == "heavy" else ANYTHING
    return facts | extents


def want_steps(config: OptimizerConfig, weight_decay: float) -> list[float]:
    """The weights of `optimizer_sample` after its steps at `PROBE_LR`, by the optimizer's twin."""
    chosen, (weights, gradients) = OPTIMIZERS[config.name], optimizer_sample()
    after = chosen.build.twin(weights, gradients, lr=PROBE_LR, weight_decay=weight_decay, **chosen.arguments(config))
    return [float(weight) for weight in after]


def want_loop(config: TrainConfig, model: nn.Module, device: torch.device) -> Facts:
    """What to expect of batch sizes, precision, gradient clipping, weight averaging and seeds.

    Args:
        config: The run's config.
        model: The live model, which decides what precision `auto` means.
        device: The device the run trains on.
    """
    loop = config.train
    automatic = str(choose_precision(loop, device, model)).removeprefix("torch.")
    precision = _PRECISIONS.get(loop.precision, automatic)
    ramp = (1.0 + MANY_UPDATES) / (10.0 + MANY_UPDATES)
    return {
        "train.batch_size": loop.batch_size,
        "train.micro_batch_size": loop.micro_batch_size,
        "train.precision": precision,
        "train.precision, losses are scaled": precision == "float16" and device.type == "cuda",
        "train.grad_clip": loop.grad_clip,
        "train.ema_decay": min(loop.ema_decay, ramp),
        "train.seed, of the samples": loop.seed,
        "train.seed, of the weights": loop.seed % 2**64,
        "train, samples are shuffled": True,
        **({"train.deterministic": loop.deterministic} if device.type == "cuda" else {}),
        "augment, of validation": "none",
    }
