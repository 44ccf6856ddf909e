"""The U-Net family: plain, residual, with attention gates, and both, over any encoder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from segcore.component import Component
from segcore.registries import Architecture

if TYPE_CHECKING:
    from segcore.models.unet import SegmentationModel


_READS = tuple(
    f"model.{key}" for key in ("encoder", "encoder_weights", "base_channels", "depth", "decoder_channels", "dropout")
)


def build_unet(config: Any, load_pretrained: bool, *, is_residual: bool, has_attention: bool) -> SegmentationModel:
    """Build the U-Net of a model section.

    Args:
        config: The model section.
        load_pretrained: Whether to load `encoder_weights`.
        is_residual: Residual blocks in the decoder and in the plain encoder; a timm encoder is not changed.
        has_attention: Attention gates at the skips.

    Raises:
        ConfigError: `model.encoder`, `model.encoder_weights` or `model.decoder_channels` do not fit.
        SegsearchError: Pretrained weights could not be downloaded.
    """
    from segcore.errors import ConfigError
    from segcore.models.blocks import ConvBlock, ResidualBlock
    from segcore.models.encoders import build_encoder
    from segcore.models.unet import SegmentationModel, UNetDecoder, default_decoder_channels

    block = ResidualBlock if is_residual else ConvBlock
    encoder = build_encoder(config, block, load_pretrained)
    num_stages = encoder.reductions[-1].bit_length() - 1
    widths = config.decoder_channels or default_decoder_channels(encoder.channels, encoder.reductions)
    if len(widths) != num_stages:
        raise ConfigError(
            f"model.decoder_channels: {num_stages} widths are needed for encoder {config.encoder!r} "
            f"(one per doubling from 1/{encoder.reductions[-1]} to full resolution, deepest first), "
            f"found {len(widths)}: {list(widths)}"
        )
    decoder = UNetDecoder(encoder.channels, encoder.reductions, widths, block, has_attention)
    return SegmentationModel(
        encoder, decoder, width=widths[-1], dropout=config.dropout, num_classes=config.num_classes
    )  # fmt: skip


def want_unet(config: Any, model: Any, *, is_residual: bool, has_attention: bool) -> Mapping[str, object]:
    """The expected facts of a U-Net: its blocks, gates and widths.

    Args:
        config: The model section.
        model: The live model, which gives the widths of its encoder.
        is_residual: Whether it should have residual blocks.
        has_attention: Whether it should have attention gates at the skips.
    """
    from segcore.models.unet import default_decoder_channels

    block = "ResidualBlock" if is_residual else "ConvBlock"
    widths = config.decoder_channels or default_decoder_channels(model.encoder.channels, model.encoder.reductions)
    facts: dict[str, object] = {
        "model.arch": block,
        "model.arch, attention gates": len(model.encoder.reductions) - 1 if has_attention else 0,
        "model.decoder_channels": list(widths),
    }
    if config.encoder == "none":
        facts["model.arch, blocks of the encoder"] = block
    return facts


def _unet(name: str, summary: str, order: int, *, is_residual: bool, has_attention: bool) -> Component[Architecture]:
    build = partial(build_unet, is_residual=is_residual, has_attention=has_attention)
    want = partial(want_unet, is_residual=is_residual, has_attention=has_attention)
    return Component(name, summary, Architecture(build, want), reads=_READS, order=order)


COMPONENTS = (
    _unet("unet", "The plain U-Net.", 10, is_residual=False, has_attention=False),
    _unet("residual_unet", "A U-Net of residual blocks.", 20, is_residual=True, has_attention=False),
    _unet("attention_unet", "A U-Net with attention gates at its skips.", 30, is_residual=False, has_attention=True),
    _unet(
        "residual_attention_unet", "A U-Net of residual blocks with attention gates.", 40,
        is_residual=True, has_attention=True,
    ),
)  # fmt: skip
