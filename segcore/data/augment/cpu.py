"""Applies a plan (`segcore.data.augment.plan`) on the CPU with OpenCV, sample by sample, directly into the batch.

Each sample costs only its own steps: one without any is a plain copy, a flip a mirrored copy. Flips are part of the
affine map where there is one. OpenCV warps four channels more than twice as fast as three, and much slower where it
needs pixels beyond the border; so image and mask are warped together, as one image of four channels with a reflected
margin. The mask is thus interpolated linearly and thresholded at one half: a pixel is foreground when at least half of
its weight is. Nearest-neighbour sampling would differ by half a pixel along the edge.
"""

import math

import cv2
import numpy as np

from segcore.data.augment.plan import NOISE_LEVEL, blur_radius, noise_bank
from segcore.data.masks.planes import ByteArray

_LEVELS = np.arange(256, dtype=np.float32)
_FLIP_CODES = {(1.0, 0.0): 1, (0.0, 1.0): 0, (1.0, 1.0): -1}

Affine = tuple[tuple[float, float, float], tuple[float, float, float]]


class CpuAugmentation:
    """Applies rows of a plan to images of one size; holds the working memory for that.

    Args:
        hw: Height and width of the images, in pixels.
    """

    def __init__(self, hw: tuple[int, int]) -> None:
        # A loader process uses one core; for such small images OpenCV's threads only compete with the model's.
        cv2.setNumThreads(0)
        self._hw = height, width = hw
        self._margin = height // 2, width // 2
        self._framed = np.empty((height + 2 * self._margin[0], width + 2 * self._margin[1], 4), np.uint8)
        self._warped = np.empty((height, width, 4), np.uint8)
        self._hsv = np.empty((1, height * width, 3), np.uint8)
        self._planes = [np.empty((1, height * width), np.uint8) for _ in range(3)]

    def __call__(
        self, row: list[float], image: ByteArray, mask: ByteArray, out_image: ByteArray, out_mask: ByteArray
    ) -> None:
        """Augment one sample; the inputs are never written to.

        Args:
            row: One row of a plan.
            image: `(H, W, 3) uint8`.
            mask: `(H, W) uint8` of 0 and 1.
            out_image: Like `image`; filled.
            out_mask: Like `mask`; filled.
        """
        (
            flip_x, flip_y, scale_x, scale_y, angle, shift_x, shift_y, contrast, brightness,
            hue, saturation, value, noise_std, noise_x, noise_y, blur_sigma,
        ) = row  # fmt: skip
        source = image
        if scale_x != 1 or scale_y != 1 or angle != 0 or shift_x != 0 or shift_y != 0:
            self._warp(_inverse_map(row, self._hw), image, mask, out_image, out_mask)
            source = out_image
        else:
            np.copyto(out_mask, mask)
            if flip_x or flip_y:
                # In place: flipping between images with the same offset in a memory page takes three times as long.
                np.copyto(out_image, image)
                code = _FLIP_CODES[flip_x, flip_y]
                cv2.flip(out_image, code, dst=out_image)
                cv2.flip(out_mask, code, dst=out_mask)
                source = out_image

        if contrast != 1 or brightness != 0:
            cv2.addWeighted(source, contrast, source, 0, brightness, dst=out_image)
            source = out_image
        if hue != 0 or saturation != 0 or value != 0:
            self._shift_hsv(source, hue, saturation, value, out_image)
            source = out_image
        if noise_std != 0:
            top, left = int(noise_y), int(noise_x)
            noise = noise_bank(self._hw)[top : top + self._hw[0], left : left + self._hw[1]]
            factor = noise_std / NOISE_LEVEL
            cv2.addWeighted(source, 1, noise, factor, -128 * factor, dst=out_image)
            source = out_image
        if radius := blur_radius(blur_sigma):
            kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / blur_sigma) ** 2)
            kernel /= kernel.sum()
            cv2.sepFilter2D(source, -1, kernel, kernel, dst=out_image, borderType=cv2.BORDER_REFLECT_101)
            source = out_image
        if source is image:
            np.copyto(out_image, image)

    def _warp(
        self, inverse: Affine, image: ByteArray, mask: ByteArray, out_image: ByteArray, out_mask: ByteArray
    ) -> None:
        (height, width), (rows, columns) = self._hw, self._margin
        framed, flags = self._framed, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        source = framed[rows : rows + height, columns : columns + width]
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA, dst=source)
        cv2.insertChannel(mask, source, 3)
        (a, b, x), (c, d, y) = inverse
        left, right = _beyond(a, b, x, width, height, width)
        top, bottom = _beyond(c, d, y, width, height, height)
        if max(left, right, top, bottom) > 0 and max(left, right) <= columns and max(top, bottom) <= rows:
            # One pixel more where there is room, since rounding may need it.
            left, right = min(left + 1, columns), min(right + 1, columns)
            top, bottom = min(top + 1, rows), min(bottom + 1, rows)
            frame = framed[rows - top : rows + height + bottom, columns - left : columns + width + right]
            cv2.copyMakeBorder(source, top, bottom, left, right, cv2.BORDER_REFLECT_101, dst=frame)
            source, x, y = frame, x + left, y + top
        matrix = np.array(((a, b, x), (c, d, y)))
        cv2.warpAffine(source, matrix, (width, height), self._warped, flags, cv2.BORDER_REFLECT_101)
        cv2.cvtColor(self._warped, cv2.COLOR_RGBA2RGB, dst=out_image)
        cv2.extractChannel(self._warped, 3, dst=out_mask)

    def _shift_hsv(self, source: ByteArray, hue: float, saturation: float, value: float, out: ByteArray) -> None:
        saturations = np.rint(_LEVELS + np.float32(saturation)).clip(0, 255).astype(np.uint8)
        saturations[0] = 0  # grey stays grey
        tables = (
            np.floor(np.mod(_LEVELS + np.float32(hue), np.float32(180))).clip(0, 179).astype(np.uint8),
            saturations,
            np.rint(_LEVELS + np.float32(value)).clip(0, 255).astype(np.uint8),
        )
        # As one long row: OpenCV rounds the remainder at the end of each row differently.
        cv2.cvtColor(source.reshape(1, -1, 3), cv2.COLOR_RGB2HSV, dst=self._hsv)
        cv2.split(self._hsv, self._planes)
        for plane, table in zip(self._planes, tables, strict=True):
            cv2.LUT(plane, table, dst=plane)
        cv2.merge(self._planes, dst=self._hsv)
        cv2.cvtColor(self._hsv, cv2.COLOR_HSV2RGB, dst=out.reshape(1, -1, 3))


def _inverse_map(row: list[float], hw: tuple[int, int]) -> Affine:
    """The affine map from a pixel of the result to the source, `(x, y)` from the centre of the first pixel."""
    flip_x, flip_y, scale_x, scale_y, angle, shift_x, shift_y = row[:7]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    zoom_x, zoom_y = (1 - 2 * flip_x) / scale_x, (1 - 2 * flip_y) / scale_y
    a, b, c, d = zoom_x * cos, -zoom_x * sin, zoom_y * sin, zoom_y * cos
    center_x, center_y = (hw[1] - 1) / 2, (hw[0] - 1) / 2
    x, y = center_x + shift_x, center_y + shift_y
    return (a, b, center_x - a * x - b * y), (c, d, center_y - c * x - d * y)


def _beyond(a: float, b: float, offset: float, width: int, height: int, side: int) -> tuple[int, int]:
    """How far `a * x + b * y + offset` reaches below 0 and above `side - 1` over an image's pixels, in pixels."""
    corners = offset, a * (width - 1) + offset, b * (height - 1) + offset, a * (width - 1) + b * (height - 1) + offset
    return max(0, math.ceil(-min(corners))), max(0, math.ceil(max(corners) - (side - 1)))
