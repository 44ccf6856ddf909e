"""The convolution blocks and the attention gate that encoders and decoders are built from."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

BlockFactory = Callable[[int, int], nn.Module]
"""Makes a block from `(in_channels, out_channels)` that keeps height and width."""

_GATE_OPEN_BIAS = 2.0
"""Bias of a new gate: sigmoid(2) = 0.88, so that it lets nearly everything through."""


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each followed by batch norm and ReLU.

    References:
        Ronneberger et al., "U-Net", 2015, arXiv:1505.04597 (with padding and batch norm).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, out_channels)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, in_channels, H, W)` to `(N, out_channels, H, W)`."""
        x = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(x)), inplace=True)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions whose input is added to their output before the last ReLU.

    The shortcut is the identity where the channels agree, else a 1x1 convolution with batch norm.

    References:
        He et al., "Deep Residual Learning", 2015, arXiv:1512.03385;
        Zhang et al., "Road Extraction by Deep Residual U-Net", 2017, arXiv:1711.10684.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, out_channels)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(N, in_channels, H, W)` to `(N, out_channels, H, W)`."""
        residual = F.relu(self.norm1(self.conv1(x)), inplace=True)
        residual = self.norm2(self.conv2(residual))
        return F.relu(residual + self.shortcut(x), inplace=True)


class AttentionGate(nn.Module):
    """Additive attention gate: weights each pixel of a skip, guided by the coarser decoder feature.

    As in the paper, the sum is computed at the gating signal's resolution (the skip is reduced by a
    strided convolution) and the coefficients are upsampled bilinearly. The gate starts nearly open.

    References:
        Oktay et al., "Attention U-Net", 2018, arXiv:1804.03999, equations 1 and 2.
    """

    def __init__(self, skip_channels: int, gating_channels: int) -> None:
        super().__init__()
        inner_channels = max(8, skip_channels // 2)
        self.reduce_skip = nn.Conv2d(skip_channels, inner_channels, kernel_size=2, stride=2, bias=False)
        self.project_gating = nn.Conv2d(gating_channels, inner_channels, kernel_size=1)
        self.psi = nn.Conv2d(inner_channels, 1, kernel_size=1)

    def coefficients(self, skip: Tensor, gating: Tensor) -> Tensor:
        """Return the attention map, one coefficient per pixel.

        Args:
            skip: `(N, skip_channels, 2h, 2w)` encoder feature.
            gating: `(N, gating_channels, h, w)` decoder feature, one level coarser.

        Returns:
            `(N, 1, 2h, 2w)` with values in (0, 1).
        """
        query = F.relu(self.reduce_skip(skip) + self.project_gating(gating), inplace=True)
        coarse = self.psi(query).sigmoid()  # (N, 1, h, w)
        return F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """Return `skip` times its coefficients, same shape as `skip`."""
        return skip * self.coefficients(skip, gating)


def initialize(module: nn.Module) -> None:
    """Kaiming-initialise the convolutions below `module`, reset norms, and leave attention gates nearly open."""
    for child in module.modules():
        if isinstance(child, nn.Conv2d):
            nn.init.kaiming_normal_(child.weight, mode="fan_out", nonlinearity="relu")
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.BatchNorm2d):
            child.reset_parameters()
    for child in module.modules():
        if isinstance(child, AttentionGate):
            nn.init.normal_(child.psi.weight, std=0.01)
            nn.init.constant_(child.psi.bias, _GATE_OPEN_BIAS)  # type: ignore[arg-type]


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
