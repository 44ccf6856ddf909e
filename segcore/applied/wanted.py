"""What the config says that a training run is to be made of, under the keys of `found`, by rules of its own.

The formulas are written down a second time here, from the docstrings of what they describe and not from its code: a
slip in a builder is a difference. Only what a config leaves to defaults (decoder widths, `auto`) asks the builders.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from segcore.applied.found import (
    MANY_UPDATES,
    TINY_FACTOR,
    is_measurable,
    loss_sample,
    probes,
)
from segcore.models.build import build_model_outline, default_decoder_channels
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
"""Stands for what cannot be foreseen or measured."""

_OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD", "nadam": "NAdam"}
_PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_DEVICE_STEPS = {
    "flip": "flip",
    "light": "flip, affine, contrast",
    "medium": "flip, affine, contrast, hsv, noise, blur",
}
_counts: dict[str, int] = {}


def want_model(config: ModelConfig, model: nn.Module) -> dict[str, Any]:
    """The architecture; the encoder's own widths are the live one's, where they are timm's."""
    encoder: Any = model.encoder
    block = "ResidualBlock" if "residual" in config.arch else "ConvBlock"
    widths = config.decoder_channels or default_decoder_channels(encoder.channels, encoder.reductions)
    facts: dict[str, Any] = {
        "model.arch": block,
        "model.arch, attention gates": len(encoder.reductions) - 1 if "attention" in config.arch else 0,
        "model.decoder_channels": list(widths),
        "model.dropout": config.dropout,
        "model.num_classes": config.num_classes,
        "model, parameters": _num_fresh_parameters(config),
        "model.encoder": config.encoder.partition(".")[0],
    }
    if config.encoder == "none":
        facts["model.arch, blocks of the encoder"] = block
        facts["model.base_channels"], facts["model.depth"] = config.base_channels, config.depth
    return facts


def _num_fresh_parameters(config: ModelConfig) -> int:
    """Parameters of a model that is built anew, without memory where its code allows that; counted once a process."""
    key = repr((config.arch, config.encoder, config.base_channels, config.depth, config.decoder_channels))
    if key not in _counts:
        _counts[key] = num_parameters(build_model_outline(config))
    return _counts[key]


def want_optimizer(config: OptimizerConfig, model: nn.Module) -> dict[str, Any]:
    """Groups by the rule: encoder and decoder, each with and without decay; a factor of 0 freezes timm encoders."""
    factor = config.encoder_lr_factor if model.has_timm_encoder else 1.0
    encoder = {id(p) for p in model.encoder_parameters()}  # type: ignore[operator]
    trained: dict[str, int] = {}
    for parameter in model.parameters():
        part = "encoder" if id(parameter) in encoder else "decoder"
        if part == "decoder" or factor > 0:
            name = f"{part}/{'decay' if parameter.ndim > 1 else 'no_decay'}"
            trained[name] = trained.get(name, 0) + parameter.numel()
    momentum = [config.momentum, "nesterov" if config.momentum > 0 else "plain"]
    facts: dict[str, Any] = {
        "optimizer.name": _OPTIMIZERS[config.name],
        "optimizer, parameters by group": trained,
        "optimizer.encoder_lr_factor, encoder frozen": factor == 0,
    }
    for name in trained:
        peak = ("encoder_lr_factor", config.lr * factor) if name.startswith("encoder/") else ("lr", config.lr)
        facts[f"optimizer.{peak[0]}, peak of {name}"] = peak[1]
        facts[f"optimizer.weight_decay, of {name}"] = 0.0 if name.endswith("no_decay") else config.weight_decay
        facts[f"optimizer.momentum, of {name}"] = momentum if config.name == "sgd" else [0.9, 0.999]
    return facts


def want_schedule(
    config: LRSchedulerConfig, epochs: int, steps_per_epoch: int, place: dict[str, int | float]
) -> dict[str, Any]:
    """The closed forms of `LRSchedule`; `place` is how far the live one is."""
    total = epochs * steps_per_epoch
    is_plateau = config.name == "plateau"
    now = share_at(config, int(place["num_steps"]), total, steps_per_epoch) * float(place["plateau_factor"])
    floor = config.min_lr_factor
    return {
        "train.epochs": float(epochs),
        "lr_scheduler, share of the peak over the run": [
            share_at(config, step, total, steps_per_epoch) for step in probes(total)
        ],
        "lr_scheduler.patience": config.patience if is_plateau and floor < 1 else None,
        "lr_scheduler.factor": max(floor, config.factor) if is_plateau and floor < 1 else None,
        "lr_scheduler.min_lr_factor, of plateau": max(floor, TINY_FACTOR * config.factor)
        if is_plateau and floor < 1
        else None,
        "lr_scheduler, share of the peak now": [now],
    }


def share_at(config: LRSchedulerConfig, step: int, total: int, steps_per_epoch: int) -> float:
    """The learning rate of a step as a share of its peak, before what plateau does."""
    least, step = config.min_lr_factor, min(step, total)
    if config.name == "onecycle":
        top = config.pct_start * total
        if step < top:
            return 1.0 - (1.0 - 1.0 / 25.0) * math.cos(math.pi * step / top / 2.0) ** 2
        return least + (1.0 - least) * math.cos(math.pi * (step - top) / (total - top) / 2.0) ** 2
    if config.name not in ("cosine", "polynomial"):
        return 1.0
    warm_up = min(total, round(config.warmup_epochs * steps_per_epoch))
    if step < warm_up:
        return (step + 1) / warm_up
    left = 1.0 - (step - warm_up) / max(1, total - warm_up)
    shape = math.sin(math.pi * left / 2.0) ** 2 if config.name == "cosine" else left**config.power
    return least + (1.0 - least) * shape


def want_loss(config: LossConfig) -> dict[str, Any]:
    """Every term in float64, by its formula."""
    logits, targets = (tensor.numpy().astype(np.float64)[:, 0] for tensor in loss_sample())
    values = {
        "bce": _bce(logits, targets, config.bce_pos_weight),
        "dice": _tversky(logits, targets, 0.5, 0.5, config.smooth / 2.0),
        "focal": _focal(logits, targets, config.focal_gamma, config.focal_alpha),
        "tversky": _tversky(logits, targets, config.tversky_alpha, config.tversky_beta, config.smooth),
        "lovasz": _lovasz(logits, targets),
    }
    weights = {name: float(getattr(config, name)) for name in values if getattr(config, name) > 0}
    facts: dict[str, Any] = {"loss, in all": sum(weight * values[name] for name, weight in weights.items())}
    for name, weight in weights.items():
        facts[f"loss.{name}, weight"], facts[f"loss, {name}"] = weight, values[name]
    return facts


Floats = npt.NDArray[np.float64]


def _bce(logits: Floats, targets: Floats, pos_weight: float) -> float:
    cost = pos_weight * targets * np.logaddexp(0, -logits) + (1 - targets) * np.logaddexp(0, logits)
    return float(cost.mean())


def _focal(logits: Floats, targets: Floats, gamma: float, alpha: float) -> float:
    right = 1.0 / (1.0 + np.exp(-logits * (2 * targets - 1)))
    weight = np.where(targets > 0, alpha, 1 - alpha)
    return float((-weight * (1 - right) ** gamma * np.log(right)).mean())


def _tversky(logits: Floats, targets: Floats, alpha: float, beta: float, smooth: float) -> float:
    probs = 1.0 / (1.0 + np.exp(-logits))
    hit = (probs * targets).sum((1, 2))
    false_positive, missed = (probs * (1 - targets)).sum((1, 2)), ((1 - probs) * targets).sum((1, 2))
    below = np.maximum(hit + alpha * false_positive + beta * missed + smooth, 1e-7)
    return float((1 - (hit + smooth) / below).mean())


def _lovasz(logits: Floats, targets: Floats) -> float:
    costs = []
    for image, target in zip(logits.reshape(2, -1), targets.reshape(2, -1), strict=True):
        errors = 1 - image * (2 * target - 1)
        order = np.argsort(-errors, kind="stable")
        cost, before, wrong = 0.0, 0.0, np.zeros(len(order), bool)
        for pixel in order:
            wrong[pixel] = True
            union = ((target > 0) | wrong).sum()
            jaccard = 1 - ((target > 0) & ~wrong).sum() / union
            cost += max(errors[pixel], 0.0) * (jaccard - before)
            before = jaccard
        costs.append(cost)
    return float(np.mean(costs))


def want_augmentation(config: AugmentConfig, augment_on: str, is_cuda: bool) -> dict[str, Any]:
    """What the policy draws, and where it is done."""
    does = config.policy if config.probability > 0 else "none"
    on_device = does in _DEVICE_STEPS and (augment_on == "device" or (augment_on == "auto" and is_cuda))
    facts: dict[str, Any] = {"train.augment_on": "device" if on_device else "loader", "augment.policy": does}
    if on_device:
        facts["augment.policy, on the device"] = _DEVICE_STEPS[does]
    if config.policy == "none":
        return facts
    p, moves = config.probability, does not in ("none", "flip")
    extents: dict[str, Any] = {
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


def want_loop(config: TrainConfig, model: nn.Module, device: torch.device) -> dict[str, Any]:
    """Batches, precision, clipping, averaging and seeds."""
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
