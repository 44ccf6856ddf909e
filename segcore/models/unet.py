"""The U-Net decoder and the complete segmentation model."""

from collections.abc import Iterator, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segcore.models.blocks import AttentionGate, BlockFactory, initialize
from segcore.models.encoders import PlainEncoder, TimmEncoder

MIN_SIDE = 16
"""Smallest image height or width, in pixels."""


class DecoderStage(nn.Module):
    """Doubles height and width, concatenates the (gated) skip if there is one, and applies a block."""

    def __init__(
        self, in_channels: int, skip_channels: int, out_channels: int, block: BlockFactory, has_attention: bool
    ) -> None:
        super().__init__()
        self.gate = AttentionGate(skip_channels, in_channels) if has_attention and skip_channels else None
        self.block = block(in_channels + skip_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Map `(N, in_channels, h, w)` and `(N, skip_channels, 2h, 2w)` to `(N, out_channels, 2h, 2w)`."""
        gated = self.gate(skip, x) if self.gate is not None and skip is not None else skip
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        if gated is not None:
            x = torch.cat([x, gated], dim=1)
        refined: Tensor = self.block(x)
        return refined


class UNetDecoder(nn.Module):
    """Upsamples from the deepest feature to full resolution, one stage per factor of two.

    A stage uses the encoder's feature of its resolution as skip, where there is one (not in the last stage of most
    timm encoders, nor in the last two of a stride-4 stem).

    References:
        Ronneberger et al., "U-Net", 2015, arXiv:1505.04597.
    """

    def __init__(
        self,
        encoder_channels: Sequence[int],
        reductions: Sequence[int],
        channels: Sequence[int],
        block: BlockFactory,
        has_attention: bool,
    ) -> None:
        super().__init__()
        skip_channels = dict(zip(reductions, encoder_channels, strict=True))
        reduction = reductions[-1]
        before = skip_channels.pop(reduction)
        self._reductions = tuple(reductions)
        stages: list[DecoderStage] = []
        for width in channels:
            reduction //= 2
            stages.append(DecoderStage(before, skip_channels.get(reduction, 0), width, block, has_attention))
            before = width
        self.stages = nn.ModuleList(stages)
        initialize(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map features, finest first, to `(N, channels[-1], H, W)` at full resolution."""
        skips = dict(zip(self._reductions, features, strict=True))
        reduction = self._reductions[-1]
        x = skips[reduction]
        for stage in self.stages:
            reduction //= 2
            x = stage(x, skips.get(reduction))
        return x


def default_decoder_channels(channels: Sequence[int], reductions: Sequence[int]) -> tuple[int, ...]:
    """Choose the decoder's widths, deepest first, from the encoder's features (finest first).

    An encoder with a feature at full resolution is mirrored. Otherwise the widths halve at each stage, from the
    deepest feature's width but at most 256, 128, 64, 32, 16 for stages that end at 1/16, 1/8, 1/4, 1/2, 1/1 (for most
    encoders those of segmentation_models_pytorch). They are rounded up to multiples of 16, for which the CPU's
    convolutions are fast. With EfficientNet-Lite0 at 96 px, half of these widths take 0.7 of the time; they cost 0.02
    IoU on a small data set at a learning rate of 1e-3, and no measurable IoU (one seed) at 3e-3.
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


class SegmentationModel(nn.Module):
    """A model from bytes to logits: normalisation, encoder, decoder, dropout and head.

    The buffers `mean` and `std` `(1, 3, 1, 1)`, in units of 0..1, are part of the state dict, so that weights
    always include their normalisation.

    Args:
        encoder: Returns features, finest first.
        decoder: From these features to `(N, width, H, W)` at full resolution.
        width: Output channels of the decoder.
        dropout: Probability of dropping a channel before the head, in [0, 1).
        num_classes: Channels of the logits.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: PlainEncoder | TimmEncoder,
        decoder: nn.Module,
        *,
        width: int,
        dropout: float,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.dropout = nn.Dropout2d(dropout)
        self.segmentation_head = nn.Conv2d(width, num_classes, kernel_size=1)
        nn.init.kaiming_normal_(self.segmentation_head.weight, nonlinearity="linear")
        nn.init.zeros_(self.segmentation_head.bias)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor(encoder.mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(encoder.std, dtype=torch.float32).view(1, 3, 1, 1))
        self.has_timm_encoder = encoder.is_timm
        self.is_encoder_frozen = False
        self._multiple = encoder.reductions[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Score every pixel.

        Any height and width of at least 16 works: the image is padded at its right and bottom by repeating its
        edge, up to a multiple of the encoder's largest reduction, and the logits are cropped.

        Args:
            images: `(N, 3, H, W)` uint8, or float in [0, 255].

        Returns:
            Logits `(N, num_classes, H, W)` float32.

        Raises:
            ValueError: The images are not `(N, 3, H, W)` with H and W of at least 16.
        """
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < MIN_SIDE:
            raise ValueError(
                f"images must be (N, 3, H, W) with H and W of at least {MIN_SIDE}, found {tuple(images.shape)}"
            )
        height, width = images.shape[2:]
        x = (images.to(self.mean.dtype) - 255.0 * self.mean) / (255.0 * self.std)
        pad_height, pad_width = -height % self._multiple, -width % self._multiple
        if torch.compiler.is_exporting() or pad_height or pad_width:  # an export must work for any size
            x = F.pad(x, (0, pad_width, 0, pad_height), mode="replicate")
        x = self.decoder(self.encoder(x))
        logits: Tensor = self.segmentation_head(self.dropout(x))
        return logits[:, :, :height, :width].float()

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the encoder's parameters."""
        return self.encoder.parameters()

    def freeze_encoder(self) -> None:
        """Stop training the encoder: no gradients, and its batch norms keep their stored statistics.

        `train()` leaves a frozen encoder in eval mode from here on.
        """
        self.encoder.requires_grad_(False)
        self.is_encoder_frozen = True
        self.encoder.eval()

    def unfreeze_encoder(self) -> None:
        """Undo `freeze_encoder`."""
        self.encoder.requires_grad_(True)
        self.is_encoder_frozen = False
        self.encoder.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for a frozen encoder, which stays in eval mode."""
        super().train(mode)
        if self.is_encoder_frozen:
            self.encoder.eval()
        return self
