"""Builds the model of a config, or only its structure without memory for its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segcore.models.unet import SegmentationModel
from segcore.registries import ARCHITECTURES

if TYPE_CHECKING:
    from segcore.config import ModelConfig


def build_model(config: ModelConfig, load_pretrained: bool = True) -> SegmentationModel:
    """Build the model of a config, in channels_last, in training mode, with weights from torch's global generator.

    Args:
        config: What to build.
        load_pretrained: Whether to load `encoder_weights`; False where a state dict is loaded next.

    Raises:
        ConfigError: `model.arch`, `model.encoder`, `model.encoder_weights` or `model.decoder_channels` do not fit.
        SegsearchError: Pretrained weights could not be downloaded.
    """
    chosen = ARCHITECTURES[config.arch]
    model: SegmentationModel = chosen.build.build(config, load_pretrained, **chosen.arguments(config))
    return model.to(memory_format=torch.channels_last)


def build_model_outline(config: ModelConfig) -> SegmentationModel:
    """Build the structure of a model without memory for its weights, on the meta device; draws no random numbers.

    Some encoders read values while they are built; their model is then built normally, on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build_model(config, load_pretrained=False)
        except (NotImplementedError, RuntimeError):
            return build_model(config, load_pretrained=False)
