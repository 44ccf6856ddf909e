"""Training-time augmentation of uint8 images and masks, from `AugmentConfig`.

All random numbers of a pipeline come from two generators that `Augmentation.reseed` resets in place, which takes
microseconds; so each sample of each epoch can have its own seed. (`Compose.set_random_seed` of albumentations 2.0.8
takes 50 and gives every transform a generator of the same seed, so that all of them draw the same numbers and are
applied together or not at all.)

References:
    Buslaev et al., "Albumentations: Fast and Flexible Image Augmentations", Information 11(2), 2020.
"""

import os
import random
import warnings
from typing import Any

import numpy as np

from segcore.config import AugmentConfig
from segcore.data.decode import ByteArray

_TRANSLATE = 0.0625  # share of the side


class Augmentation:
    """A pipeline with its own random numbers, or the identity when there is nothing to do.

    Args:
        transforms: albumentations transforms, applied in order.
        seed: First seed.
    """

    def __init__(self, transforms: list[Any], seed: int) -> None:
        self._transforms = transforms
        self._python = random.Random()
        self._numpy = np.random.Generator(np.random.PCG64(0))
        self._compose: Any = None
        if transforms:
            import albumentations

            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                self._compose = albumentations.Compose(transforms)
            self._compose.set_random_state(self._numpy, self._python)
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Make the calls from here on a pure function of `seed` (any integer >= 0; its low 64 bits count)."""
        seed &= 0xFFFFFFFFFFFFFFFF
        self._python.seed(seed)
        # Setting PCG64's state costs a tenth of making a generator; the odd increment is any constant.
        self._numpy.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": _mix128(seed), "inc": 0x5851F42D4C957F2D14057B7EF767814F},
            "has_uint32": 0,
            "uinteger": 0,
        }

    def __call__(self, image: ByteArray, mask: ByteArray) -> tuple[ByteArray, ByteArray]:
        """Augment one sample; the inputs are never written to.

        Args:
            image: `(H, W, 3) uint8`.
            mask: `(H, W) uint8` of 0 and 1.

        Returns:
            Image and mask of the same shapes and types; the inputs themselves when there is nothing to do.
        """
        if self._compose is None:
            return image, mask
        result = self._compose(image=image, mask=mask)
        return result["image"], result["mask"]

    def describe(self) -> list[str]:
        """One line per transform, with its settings."""
        return [repr(transform) for transform in self._transforms]


def build_augmentation(config: AugmentConfig, seed: int) -> Augmentation:
    """Build the pipeline of `config.policy`.

    none: nothing. flip: left-right, and upside down with `vertical_flip`. light: flip, small zoom, turn and shift
    with reflected borders, brightness and contrast. medium: light, hue and saturation, noise, blur. heavy: medium,
    elastic or grid distortion, local contrast, dropped-out patches (of the image only).

    Args:
        config: Policy, chance and ranges.
        seed: First seed.

    Returns:
        A callable on `(image, mask)`; albumentations is imported only when there is something to do.
    """
    return Augmentation([] if config.policy == "none" or config.probability == 0 else _transforms(config), seed)


def _transforms(config: AugmentConfig) -> list[Any]:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for a newer version
    import albumentations as A
    import cv2

    # One loader process is one core's work; OpenCV's own threads only fight the model's for such small images.
    cv2.setNumThreads(0)
    p, policy, color = config.probability, config.policy, config.color
    with warnings.catch_warnings():
        # A wrong keyword only warns and is dropped: nothing may be left out in silence.
        warnings.simplefilter("error", UserWarning)
        transforms = [A.HorizontalFlip(p=p)]
        if config.vertical_flip:
            transforms.append(A.VerticalFlip(p=p))
        if policy == "flip":
            return transforms
        transforms += [
            A.Affine(
                scale=(1 - config.scale, 1 + config.scale),
                rotate=(-config.rotate, config.rotate),
                translate_percent=(-_TRANSLATE, _TRANSLATE),
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST,
                border_mode=cv2.BORDER_REFLECT_101,
                p=p,
            ),
            A.RandomBrightnessContrast(brightness_limit=color, contrast_limit=color, p=p),
        ]
        if policy == "light":
            return transforms
        if policy == "heavy":
            transforms.append(
                A.OneOf(
                    [
                        A.ElasticTransform(alpha=30, sigma=6, border_mode=cv2.BORDER_REFLECT_101, p=1),
                        A.GridDistortion(num_steps=5, distort_limit=0.2, border_mode=cv2.BORDER_REFLECT_101, p=1),
                    ],
                    p=p,
                )
            )
        transforms += [
            A.HueSaturationValue(
                hue_shift_limit=100 * color / 2, sat_shift_limit=100 * color, val_shift_limit=50 * color, p=p
            ),
            A.GaussNoise(std_range=(0.01, 0.06), noise_scale_factor=0.5, p=p),  # half size: a third of the time
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.2, 1.2), p=p),
        ]
        if policy == "heavy":
            transforms += [
                A.CLAHE(clip_limit=(1, 3), p=p),
                A.CoarseDropout(
                    num_holes_range=(1, 4),
                    hole_height_range=(0.05, 0.2),
                    hole_width_range=(0.05, 0.2),
                    fill=0,
                    fill_mask=None,
                    p=p,
                ),
            ]
        return transforms


def _mix128(seed: int) -> int:
    """Spread 64 bits over 128 (two rounds of splitmix64), so that neighbouring seeds give unrelated states."""
    return (_splitmix64(seed) << 64) | _splitmix64(seed ^ 0xD1B54A32D192ED03)


def _splitmix64(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)
