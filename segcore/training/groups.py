"""The optimizer of a training run over its parameter groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from segcore.models.unet import SegmentationModel
from segcore.registries import OPTIMIZERS

if TYPE_CHECKING:
    from segcore.config import OptimizerConfig


def build_optimizer(model: SegmentationModel, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the optimizer of a config over up to four groups: encoder and decoder, with and without decay.

    Every group carries `name`: `encoder/decay`, `encoder/no_decay`, `decoder/decay`, `decoder/no_decay`; the
    segmentation head belongs to the decoder. Norms and biases (parameters of one dimension) are not decayed.
    `encoder_lr_factor` applies to timm encoders only: it scales their learning rate, and 0 freezes them with
    `model.freeze_encoder()` and leaves them out. The plain encoder always trains at `lr`.

    The model must already be on its device: fused kernels are used where all parameters allow them.
    """
    factor = config.encoder_lr_factor if model.has_timm_encoder else 1.0
    if factor == 0.0:
        model.freeze_encoder()
    encoder = list(model.encoder_parameters())
    in_encoder = {id(parameter) for parameter in encoder}
    decoder = [parameter for parameter in model.parameters() if id(parameter) not in in_encoder]
    groups: list[dict[str, Any]] = []
    for part, parameters, lr in (("encoder", encoder, config.lr * factor), ("decoder", decoder, config.lr)):
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for kind, members, weight_decay in (
            ("decay", [p for p in trained if p.ndim > 1], config.weight_decay),
            ("no_decay", [p for p in trained if p.ndim <= 1], 0.0),
        ):
            if members:
                groups.append({"name": f"{part}/{kind}", "params": members, "lr": lr, "weight_decay": weight_decay})
    chosen = OPTIMIZERS[config.name]
    return chosen.build.build(
        groups, lr=config.lr, weight_decay=config.weight_decay, can_fuse=_can_fuse(model), **chosen.arguments(config)
    )


def _can_fuse(model: nn.Module) -> bool:
    return all(p.device.type in ("cuda", "cpu") and p.is_floating_point() for p in model.parameters())
