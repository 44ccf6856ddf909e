"""How each sample is augmented: a row of numbers that depends only on the sample's own seed.

`cpu` and `device` both apply such rows and give the same images. The random number of a cell depends only on the
sample's seed and the column, so a row depends neither on the batch nor on the worker that draws it.

The steps, in order: flip, affine, brightness and contrast (light); hue, saturation and value, noise, blur (medium).
They have the distributions of albumentations' HorizontalFlip, VerticalFlip, Affine, RandomBrightnessContrast,
HueSaturationValue, GaussNoise (at half size) and GaussianBlur, each applied with the policy's probability.

References:
    Buslaev et al., "Albumentations: Fast and Flexible Image Augmentations", Information 11(2), 2020.
    Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014 (splitmix64).
"""

from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from segcore.data.masks.planes import ByteArray

if TYPE_CHECKING:
    from segcore.config import AugmentConfig

PlanArray = npt.NDArray[np.float32]
SeedArray = npt.NDArray[np.uint64]

SHIFT = 0.0625  # share of the side
NOISE_STD = (0.01, 0.06)  # share of full scale, before the noise is enlarged
BLUR_SIGMA = (0.2, 1.2)  # pixels
NOISE_MARGIN = 256  # rows and columns by which the bank of noise is larger than an image
NOISE_LEVEL = 36.0  # of the bank's 256 levels, one standard deviation


class Column(IntEnum):
    """The columns of a plan: their meaning and, in brackets, the value that changes nothing."""

    FLIP_X = 0  # 1: left-right (0)
    FLIP_Y = 1  # 1: upside down (0)
    SCALE_X = 2  # zoom, about the centre, after the flips (1)
    SCALE_Y = 3
    ANGLE = 4  # degrees, counter-clockwise, after the zoom (0)
    SHIFT_X = 5  # whole pixels, after the turn (0)
    SHIFT_Y = 6
    CONTRAST = 7  # factor (1)
    BRIGHTNESS = 8  # levels of 0..255, added after the factor (0)
    HUE = 9  # of 180, added (0)
    SATURATION = 10  # levels, added (0)
    VALUE = 11  # levels, added (0)
    NOISE_STD = 12  # levels, before the noise is enlarged (0)
    NOISE_X = 13  # column and row at which the sample's window of the bank of noise begins
    NOISE_Y = 14
    BLUR_SIGMA = 15  # pixels (0)


_NOTHING = np.array([0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], np.float32)

# Which of the seven chances applies a column: flip left-right, upside down, affine, contrast, hue, noise, blur.
_CHANCE_OF = np.array([0, 1, 2, 2, 2, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 6])
_NUM_CHANCES = 7


def draw_plan(config: "AugmentConfig", hw: tuple[int, int], seeds: SeedArray) -> PlanArray:
    """Draw how some samples are augmented.

    Args:
        config: Policy, probability and ranges. `heavy` draws the same as `medium`.
        hw: Height and width of the images, in pixels.
        seeds: `(N,) uint64`, one per sample; well mixed, as `mixed_seeds` returns them.

    Returns:
        `(N, len(Column)) float32`.
    """
    low, high = _ranges(config, hw)
    uniforms = _uniforms(seeds, _NUM_CHANCES + len(Column))
    applied = (uniforms[:, :_NUM_CHANCES] < config.probability)[:, _CHANCE_OF]
    plan = np.where(applied, low + (high - low) * uniforms[:, _NUM_CHANCES:], _NOTHING).astype(np.float32)
    whole = [Column.SHIFT_X, Column.SHIFT_Y, Column.NOISE_X, Column.NOISE_Y]
    plan[:, whole] = np.trunc(plan[:, whole])
    return plan


def _ranges(config: "AugmentConfig", hw: tuple[int, int]) -> tuple[PlanArray, PlanArray]:
    """Lowest and highest value of each column; columns that a policy does not use have the neutral value."""
    low, high = _NOTHING.copy(), _NOTHING.copy()

    def between(column: Column, lowest: float, highest: float) -> None:
        low[column], high[column] = lowest, highest

    policy, color = config.policy, config.color
    if policy == "none":
        return low, high
    between(Column.FLIP_X, 1, 1)
    if config.vertical_flip:
        between(Column.FLIP_Y, 1, 1)
    if policy == "flip":
        return low, high
    between(Column.SCALE_X, 1 - config.scale, 1 + config.scale)
    between(Column.SCALE_Y, 1 - config.scale, 1 + config.scale)
    between(Column.ANGLE, -config.rotate, config.rotate)
    between(Column.SHIFT_X, -SHIFT * hw[1], SHIFT * hw[1])
    between(Column.SHIFT_Y, -SHIFT * hw[0], SHIFT * hw[0])
    between(Column.CONTRAST, 1 - color, 1 + color)
    between(Column.BRIGHTNESS, -255 * color, 255 * color)
    if policy == "light":
        return low, high
    for column, limit in zip((Column.HUE, Column.SATURATION, Column.VALUE), hsv_limits(color), strict=True):
        between(column, -limit, limit)
    between(Column.NOISE_STD, 255 * NOISE_STD[0], 255 * NOISE_STD[1])
    between(Column.NOISE_X, 0, NOISE_MARGIN)
    between(Column.NOISE_Y, 0, NOISE_MARGIN)
    between(Column.BLUR_SIGMA, *BLUR_SIGMA)
    return low, high


def describe_plan(config: "AugmentConfig") -> list[str]:
    """One line per step that `draw_plan` may draw, with its settings."""
    policy, p, color = config.policy, config.probability, config.color
    if policy == "none" or p == 0:
        return []
    lines = [f"HorizontalFlip(p={p})"]
    if config.vertical_flip:
        lines.append(f"VerticalFlip(p={p})")
    if policy == "flip":
        return lines
    scale = (1 - config.scale, 1 + config.scale)
    lines += [
        f"Affine(scale={scale}, rotate={(-config.rotate, config.rotate)}, shift={(-SHIFT, SHIFT)}, p={p})",
        f"BrightnessContrast(brightness={(-color, color)}, contrast={(1 - color, 1 + color)}, p={p})",
    ]
    if policy == "light":
        return lines
    hue, saturation, value = hsv_limits(color)
    return [
        *lines,
        f"HueSaturationValue(hue={(-hue, hue)}, saturation={(-saturation, saturation)}, "
        f"value={(-value, value)}, p={p})",
        f"GaussNoise(std={NOISE_STD}, at half size, p={p})",
        f"GaussianBlur(sigma={BLUR_SIGMA}, p={p})",
    ]


def hsv_limits(color: float) -> tuple[float, float, float]:
    """Largest shift of hue (of 180), saturation and value (of 255)."""
    return 50 * color, 100 * color, 50 * color


def mixed_seeds(seed: int, epoch: int, indices: npt.ArrayLike) -> SeedArray:
    """One seed per sample: a well-mixed pure function of run, epoch and sample.

    Args:
        seed: Seed of the run; only its low 64 bits count.
        epoch: Number of the epoch, 0 or more.
        indices: `(N,)`, indices of the samples in the cache.

    Returns:
        `(N,) uint64`.
    """
    run = np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)
    with np.errstate(over="ignore"):
        mixed = _splitmix64(_splitmix64(run) ^ np.uint64(epoch))
        return _splitmix64(mixed ^ np.asarray(indices, dtype=np.uint64))


@lru_cache(maxsize=2)
def noise_bank(hw: tuple[int, int]) -> ByteArray:
    """The noise for all samples of one image size: each sample adds a window of it, at its own position.

    Rounded normal numbers of mean 128 and standard deviation `NOISE_LEVEL` on a grid of half the size, enlarged
    linearly; so neighbouring pixels are correlated, and the standard deviation is 0.625 of the nominal one, as with
    albumentations' `noise_scale_factor=0.5`. A fixed bank costs a hundredth of drawing noise for each image, and CPU
    and GPU get the same noise.

    Returns:
        `(H + NOISE_MARGIN, W + NOISE_MARGIN, 3) uint8`, read-only.
    """
    height, width = (side + NOISE_MARGIN for side in hw)
    half = np.random.default_rng(0).standard_normal((-(-height // 2), -(-width // 2), 3), np.float32)
    full = cv2.resize(half, (half.shape[1] * 2, half.shape[0] * 2), interpolation=cv2.INTER_LINEAR)
    bank: ByteArray = np.rint(full[:height, :width] * np.float32(NOISE_LEVEL) + 128).clip(0, 255).astype(np.uint8)
    bank.flags.writeable = False
    return bank


def blur_radius(sigma: float) -> int:
    """Radius in pixels of a Gaussian blur of this sigma, by the rule of albumentations and PIL."""
    return int(sigma * 3.5)


def _uniforms(seeds: SeedArray, count: int) -> npt.NDArray[np.float64]:
    """`(N, count)` numbers in [0, 1): each seed's splitmix64 sequence."""
    with np.errstate(over="ignore"):
        steps = np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits = _splitmix64(seeds[:, None] + steps)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _splitmix64(values: SeedArray) -> SeedArray:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: SeedArray = values ^ (values >> np.uint64(31))
    return mixed
