"""Training-time augmentation of uint8 images and masks, from `AugmentConfig`.

`plan` draws how a sample is augmented, and `cpu` applies that in the loader or `device` to a whole batch. Only the
additional steps of `heavy` (distortion, local contrast, dropped-out patches) come from albumentations, which no other
policy imports.

All random numbers of albumentations' pipeline come from two generators that are reset in place for each sample, which
takes microseconds. (`Compose.set_random_seed` of albumentations 2.0.8 takes 50 and gives every transform a generator of
the same seed, so that all of them draw the same numbers and are applied together or not at all.)

References:
    Buslaev et al., "Albumentations: Fast and Flexible Image Augmentations", Information 11(2), 2020.
"""

import os
import random
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from segcore.data.augment.cpu import CpuAugmentation
from segcore.data.augment.device import build_device_augmentation
from segcore.data.augment.plan import (
    PlanArray,
    SeedArray,
    describe_plan,
    draw_plan,
)
from segcore.data.masks.planes import ByteArray

if TYPE_CHECKING:
    from segcore.config import AugmentConfig


__all__ = ["Augmentation", "build_augmentation", "build_device_augmentation"]


class Augmentation:
    """Draws and applies the augmentation of a policy, on the CPU.

    Args:
        config: Policy, probability and ranges.
    """

    def __init__(self, config: "AugmentConfig") -> None:
        self._config = config
        self._executor: tuple[tuple[int, int], CpuAugmentation] | None = None
        is_heavy = config.policy == "heavy" and config.probability > 0
        self._distortion = SeededCompose(_heavy_transforms(config.probability)) if is_heavy else None

    @property
    def is_distorting(self) -> bool:
        """Whether there are steps beyond the plan, those that `heavy` adds."""
        return self._distortion is not None

    def plan(self, hw: tuple[int, int], seeds: SeedArray) -> PlanArray:
        """Draw how samples of these seeds are augmented; see `draw_plan`."""
        return draw_plan(self._config, hw, seeds)

    def apply(
        self,
        plan: PlanArray,
        seeds: SeedArray,
        images: list[ByteArray],
        masks: list[ByteArray],
        out_images: ByteArray,
        out_masks: ByteArray,
    ) -> None:
        """Fill a batch with augmented samples; the inputs are never written to.

        Args:
            plan: `(N, K)`, from `plan`.
            seeds: `(N,)`, those that the plan was drawn from.
            images: N of `(H, W, 3) uint8`.
            masks: N of `(H, W) uint8`, of 0 and 1.
            out_images: `(N, H, W, 3) uint8`; filled.
            out_masks: `(N, H, W) uint8`; filled with 0 and 1.
        """
        hw = (out_images.shape[1], out_images.shape[2])
        if self._executor is None or self._executor[0] != hw:
            self._executor = hw, CpuAugmentation(hw)
        execute = self._executor[1]
        for number, row in enumerate(plan.tolist()):
            out_image, out_mask = out_images[number], out_masks[number]
            execute(row, images[number], masks[number], out_image, out_mask)
            if self._distortion is not None:
                self._distortion.reseed(int(seeds[number]))
                out_image[...], out_mask[...] = self._distortion(out_image, out_mask)

    def describe(self) -> list[str]:
        """One line per step that may be applied, in order, with its settings."""
        return describe_plan(self._config) + (self._distortion.describe() if self._distortion is not None else [])


class SeededCompose:
    """An albumentations pipeline whose calls are a pure function of the last `reseed`.

    Args:
        transforms: albumentations transforms, applied in order.
    """

    def __init__(self, transforms: list[Any]) -> None:
        import albumentations

        self._transforms = transforms
        self._python = random.Random(0)
        self._numpy = np.random.Generator(np.random.PCG64(0))
        self._compose = albumentations.Compose(transforms)
        self._compose.set_random_state(self._numpy, self._python)

    def reseed(self, seed: int) -> None:
        """Make all further calls a pure function of `seed`, 64 well-mixed bits."""
        self._python.seed(seed)
        # Setting PCG64's state costs a tenth of making a generator; the odd increment is an arbitrary constant.
        self._numpy.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": (seed << 64) | (seed ^ 0xD1B54A32D192ED03), "inc": 0x5851F42D4C957F2D14057B7EF767814F},
            "has_uint32": 0,
            "uinteger": 0,
        }

    def __call__(self, image: ByteArray, mask: ByteArray) -> tuple[ByteArray, ByteArray]:
        """Transform one `(H, W, 3) uint8` image and its `(H, W) uint8` mask; neither is written to."""
        result = self._compose(image=image, mask=mask)
        return result["image"], result["mask"]

    def describe(self) -> list[str]:
        """One line per transform, with its settings."""
        return [repr(transform) for transform in self._transforms]


def build_augmentation(config: "AugmentConfig") -> Augmentation:
    """Build the augmentation of `config.policy`.

    none: nothing. flip: left-right, and upside down with `vertical_flip`. light: flip, small zoom, rotation and shift
    with reflected borders, brightness and contrast. medium: light, hue and saturation, noise, blur. heavy: medium,
    then elastic or grid distortion, local contrast, dropped-out patches (of the image only).

    Args:
        config: Policy, probability and ranges.
    """
    return Augmentation(config)


def _heavy_transforms(p: float) -> list[Any]:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import checks the network for a newer version
    import albumentations as A
    import cv2

    with warnings.catch_warnings():
        # A wrong keyword only warns and is dropped, so warnings are errors here.
        warnings.simplefilter("error", UserWarning)
        border = cv2.BORDER_REFLECT_101
        return [
            A.OneOf(
                [
                    A.ElasticTransform(alpha=30, sigma=6, border_mode=border, p=1),
                    A.GridDistortion(num_steps=5, distort_limit=0.2, border_mode=border, p=1),
                ],
                p=p,
            ),
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
