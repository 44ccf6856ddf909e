"""Applies a plan (`segcore.data.augment.plan`) to whole batches, on the device that holds them, with torch.

The steps and roundings are those of `segcore.data.augment.cpu`, so the images are equal except for an occasional level
of difference. Nothing waits for the device, and every step processes the whole batch. It deliberately uses plain
float32 arithmetic: matrix products, and coordinates computed by them, could be rounded to TF32.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from segcore.data.augment.plan import (
    BLUR_SIGMA,
    NOISE_LEVEL,
    Column,
    blur_radius,
    noise_bank,
)

if TYPE_CHECKING:
    from segcore.config import AugmentConfig

DeviceAugmentation = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
AugmentOn = Literal["loader", "device"]

_STEPS: dict[str, tuple[str, ...]] = {
    "flip": ("flip",),
    "light": ("affine", "contrast"),
    "medium": ("affine", "contrast", "hsv", "noise", "blur"),
}


def build_device_augmentation(config: "AugmentConfig") -> DeviceAugmentation | None:
    """Build the function that applies the plans of `config` on the device.

    Args:
        config: Policy and probability; the ranges are in the plan.

    Returns:
        A callable that takes `(N, 3, H, W) uint8` images in channels_last memory, `(N, 1, H, W) uint8` targets of 0 and
        1, and the batch's `(N, K) float32` plan, all on one device, and returns new images and targets like these; None
        for a policy that does nothing or does not run on devices (`heavy`).
    """
    if not is_done_on_device(config):
        return None
    steps = _STEPS[config.policy]

    @torch.no_grad()
    def augment(images: Tensor, targets: Tensor, plan: Tensor) -> tuple[Tensor, Tensor]:
        plan = plan.to(torch.float32)
        if "flip" in steps:
            return _flip(images, plan).contiguous(memory_format=torch.channels_last), _flip(targets, plan)
        images, targets = _warp(images, targets, plan)
        images = _contrast(images, plan)
        if "hsv" in steps:
            images = _shift_hsv(images, plan)
        if "noise" in steps:
            images = _add_noise(images, plan)
        if "blur" in steps:
            images = _blur(images, plan)
        return images.to(torch.uint8, memory_format=torch.channels_last), targets.to(torch.uint8)

    return augment


def is_done_on_device(config: "AugmentConfig") -> bool:
    """Whether a policy does something, and nothing that only the loader can do."""
    return config.policy in _STEPS and config.probability > 0


def _column(plan: Tensor, column: Column) -> Tensor:
    """One column of a plan, `(N, 1, 1, 1)`."""
    return plan[:, column].reshape(-1, 1, 1, 1)


def _flip(values: Tensor, plan: Tensor) -> Tensor:
    values = torch.where(_column(plan, Column.FLIP_X) > 0, values.flip(3), values)
    return torch.where(_column(plan, Column.FLIP_Y) > 0, values.flip(2), values)


def _warp(images: Tensor, targets: Tensor, plan: Tensor) -> tuple[Tensor, Tensor]:
    """Flip, zoom, rotate and shift; borders are reflected about the centres of the outermost pixels."""
    height, width = images.shape[-2:]
    angle = torch.deg2rad(_column(plan, Column.ANGLE)[..., 0])  # (N, 1, 1), as all that follow
    cos, sin = angle.cos(), angle.sin()
    zoom_x = ((1 - 2 * _column(plan, Column.FLIP_X)) / _column(plan, Column.SCALE_X))[..., 0]
    zoom_y = ((1 - 2 * _column(plan, Column.FLIP_Y)) / _column(plan, Column.SCALE_Y))[..., 0]
    # Coordinates relative to the image's centre, to keep rounding errors small.
    x = torch.arange(width, device=plan.device, dtype=torch.float32) - (width - 1) / 2
    y = torch.arange(height, device=plan.device, dtype=torch.float32) - (height - 1) / 2
    x = x.reshape(1, 1, -1) - _column(plan, Column.SHIFT_X)[..., 0]  # (N, 1, W)
    y = y.reshape(1, -1, 1) - _column(plan, Column.SHIFT_Y)[..., 0]  # (N, H, 1)
    source_x = zoom_x * (cos * x - sin * y)  # (N, H, W)
    source_y = zoom_y * (sin * x + cos * y)
    grid = torch.stack((source_x * (2 / max(width - 1, 1)), source_y * (2 / max(height - 1, 1))), dim=-1)
    both = torch.cat((images, targets), dim=1).float()
    both = F.grid_sample(both, grid, mode="bilinear", padding_mode="reflection", align_corners=True).round_()
    return both[:, :3], both[:, 3:]


def _contrast(images: Tensor, plan: Tensor) -> Tensor:
    changed = images * _column(plan, Column.CONTRAST) + _column(plan, Column.BRIGHTNESS)
    return changed.round_().clamp_(0, 255)


def _shift_hsv(images: Tensor, plan: Tensor) -> Tensor:
    """Shift HSV like OpenCV for 8 bits: hue in steps of 2 degrees, saturation and value in 256, all integers."""
    shifts = [_column(plan, column)[:, 0] for column in (Column.HUE, Column.SATURATION, Column.VALUE)]
    red, green, blue = images.to(torch.int32).unbind(1)  # (N, H, W)
    value = images.amax(1).to(torch.int32)
    span = value - images.amin(1).to(torch.int32)
    sextant = torch.where(
        value == red,
        green - blue,
        torch.where(value == green, blue - red + 2 * span, red - green + 4 * span),
    )
    hue = (sextant * _divided((180 << 12) / 6, span) + (1 << 11)) >> 12
    hue = torch.where(hue < 0, hue + 180, hue)
    saturation = (span * _divided(255 << 12, value) + (1 << 11)) >> 12

    new_hue = torch.remainder(hue + shifts[0], 180).floor_().clamp_(max=179) / 30  # sextants
    new_saturation = torch.where(saturation == 0, 0, (saturation + shifts[1]).round().clamp(0, 255)) / 255
    new_value = (value + shifts[2]).round().clamp(0, 255)
    channels = []
    for start in (5, 3, 1):
        place = torch.remainder(new_hue + start, 6)
        weight = torch.minimum(place, 4 - place).clamp_(0, 1)
        channels.append(new_value * (1 - new_saturation * weight))
    changed = torch.stack(channels, dim=1).floor_()  # OpenCV truncates here
    moved = (shifts[0] != 0) | (shifts[1] != 0) | (shifts[2] != 0)
    return torch.where(moved[:, None], changed, images)  # the conversion to HSV and back is not exact


def _divided(number: float, by: Tensor) -> Tensor:
    """`number / by`, rounded to integers; 0 where `by` is 0."""
    return torch.where(by > 0, (number / by.double()).round(), 0).to(torch.int32)


def _add_noise(images: Tensor, plan: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    bank = _bank_on(images.device, height, width)  # (H + margin, W + margin, 3)
    rows = plan[:, Column.NOISE_Y].long()[:, None] + torch.arange(height, device=plan.device)  # (N, H)
    columns = plan[:, Column.NOISE_X].long()[:, None] + torch.arange(width, device=plan.device)
    noise = bank[rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # (N, 3, H, W)
    factor = _column(plan, Column.NOISE_STD) / NOISE_LEVEL
    return (images + factor * (noise.float() - 128)).round_().clamp_(0, 255)


_banks: dict[tuple[torch.device, int, int], Tensor] = {}


def _bank_on(device: torch.device, height: int, width: int) -> Tensor:
    """The noise bank on a device; the last one is cached, 0.8 MB for images of 256 pixels."""
    key = (device, height, width)
    if key not in _banks:
        _banks.clear()
        _banks[key] = torch.tensor(noise_bank((height, width)), device=device)
    return _banks[key]


def _blur(images: Tensor, plan: Tensor) -> Tensor:
    """Blur rows, then columns, by weighted sums of shifted images, since each sample has its own weights."""
    radius = blur_radius(BLUR_SIGMA[1])
    sigma = _column(plan, Column.BLUR_SIGMA)
    offsets = torch.arange(radius + 1, device=plan.device, dtype=torch.float32).reshape(1, -1, 1, 1)
    weights = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)) ** 2)  # (N, R + 1, 1, 1)
    weights = torch.where(offsets <= torch.floor(sigma * 3.5), weights, 0)
    weights = weights / (2 * weights.sum(1, keepdim=True) - 1)  # the middle, of weight 1, counts once
    for dim in (2, 3):
        side = images.shape[dim]
        padded = F.pad(images, (radius, radius, 0, 0) if dim == 3 else (0, 0, radius, radius), mode="reflect")
        images = weights[:, :1] * padded.narrow(dim, radius, side)
        for k in range(1, radius + 1):
            pair = padded.narrow(dim, radius - k, side) + padded.narrow(dim, radius + k, side)
            images = images + weights[:, k : k + 1] * pair
    return images.round_()
