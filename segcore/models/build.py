"""The U-Net family: plain, residual, with attention gates, and both, over any encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from segcore.errors import ConfigError
from segcore.models.blocks import BlockFactory, ConvBlock, ResidualBlock
from segcore.models.encoders import (
    TIMM_PREFIX,
    PlainEncoder,
    TimmEncoder,
    build_timm_encoder,
)
from segcore.models.unet import SegmentationModel

if TYPE_CHECKING:
    from segcore.config import ModelConfig

__all__ = [
    "MODELS",
    "Architecture",
    "SegmentationModel",
    "build_model",
    "build_model_outline",
    "default_decoder_channels",
]


@dataclass(frozen=True)
class Architecture:
    """What tells one U-Net of the family from another."""

    block: BlockFactory
    has_attention: bool


MODELS: dict[str, Architecture] = {
    "unet": Architecture(ConvBlock, has_attention=False),
    "residual_unet": Architecture(ResidualBlock, has_attention=False),
    "attention_unet": Architecture(ConvBlock, has_attention=True),
    "residual_attention_unet": Architecture(ResidualBlock, has_attention=True),
}


def build_model(config: ModelConfig, load_pretrained: bool = True) -> SegmentationModel:
    """Build the model of a config, in channels_last, in training mode, with weights from torch's global generator.

    Args:
        config: What to build. The residual architectures use residual blocks in the decoder and in the plain
            encoder; a timm encoder stays what it is.
        load_pretrained: False leaves `encoder_weights` unread, for when a state dict is loaded next.

    Raises:
        ConfigError: `model.arch`, `model.encoder`, `model.encoder_weights` or `model.decoder_channels` do not fit.
        SegsearchError: Pretrained weights could not be downloaded.
    """
    if config.arch not in MODELS:
        raise ConfigError(f"model.arch: no architecture {config.arch!r}; valid: {', '.join(MODELS)}")
    architecture = MODELS[config.arch]
    encoder: PlainEncoder | TimmEncoder
    if config.encoder == "none":
        encoder = PlainEncoder(config.in_channels, config.base_channels, config.depth, architecture.block)
    else:
        weights = config.encoder_weights if load_pretrained else "none"
        encoder = build_timm_encoder(config.encoder.removeprefix(TIMM_PREFIX), weights)
    num_stages = encoder.reductions[-1].bit_length() - 1
    decoder_channels = config.decoder_channels or default_decoder_channels(encoder.channels, encoder.reductions)
    if len(decoder_channels) != num_stages:
        raise ConfigError(
            f"model.decoder_channels: {num_stages} widths are needed for encoder {config.encoder!r} "
            f"(one per doubling from 1/{encoder.reductions[-1]} to full resolution, deepest first), "
            f"found {len(decoder_channels)}: {list(decoder_channels)}"
        )
    model = SegmentationModel(
        encoder,
        decoder_channels=decoder_channels,
        block=architecture.block,
        has_attention=architecture.has_attention,
        dropout=config.dropout,
        num_classes=config.num_classes,
    )
    return model.to(memory_format=torch.channels_last)


def build_model_outline(config: ModelConfig) -> SegmentationModel:
    """Build the structure of a model without memory for its weights, on the meta device; draws no random numbers.

    Some encoders look at values while they are built; their model is then an ordinary one, on the CPU.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build_model(config, load_pretrained=False)
        except (NotImplementedError, RuntimeError):
            return build_model(config, load_pretrained=False)


def default_decoder_channels(channels: Sequence[int], reductions: Sequence[int]) -> tuple[int, ...]:
    """Choose the decoder's widths, deepest first, from the encoder's features (finest first).

    An encoder with a feature at full resolution is mirrored. Otherwise the widths halve at each stage, from the
    deepest feature's width but at most 256, 128, 64, 32, 16 for stages that end at 1/16, 1/8, 1/4, 1/2, 1/1 (for most
    encoders those of segmentation_models_pytorch). They are rounded up to multiples of 16, which is what the CPU's
    convolutions are fast at. With EfficientNet-Lite0 at 96 px, half of these widths take 0.7 of the time; they cost
    0.02 IoU on a small data set at a learning rate of 1e-3, and nothing that one seed could show at 3e-3.
    """
    num_stages = reductions[-1].bit_length() - 1
    width_at = dict(zip(reductions, channels, strict=True))
    if all(2**level in width_at for level in range(num_stages)):
        return tuple(width_at[2**level] for level in reversed(range(num_stages)))
    widths: list[int] = []
    for stage in range(num_stages):
        halved = channels[-1] >> stage
        widest = 16 * 2 ** (num_stages - 1 - stage)
        widths.append(min(widest, max(16, -(-halved // 16) * 16)))
    return tuple(widths)
