"""How well masks fit images, without a model: do outlines lie on edges, and do insides differ from outsides?

A pair's fit is the correlation, over the pixels of a thumbnail, of the mask's outline with the image's edges, plus the
largest correlation of the mask with a colour or texture of the image. It is compared with the fit of other pairings and
of moved masks, so a data set's typical fit (nuclei: 1.2, horses: 0.5) does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

SIDE = 64
_SCALES = (0.5, 0.65, 0.8, 1.25, 1.5, 2.0)
_SHIFTS = (-0.25, -0.125, 0.125, 0.25)


@dataclass(frozen=True)
class Thumbnails:
    """Small copies of some samples, all float32; `P = SIDE * SIDE` pixels.

    Attributes:
        edges: `(N, P)`, each image's edge strength, standardised.
        channels: `(C, N, P)`, colours and texture, standardised.
        masks: `(N, SIDE, SIDE)` of 0 and 1.
        aspects: `(N,)`, width over height of the files.
    """

    edges: FloatArray
    channels: FloatArray
    masks: FloatArray
    aspects: FloatArray


def thumbnails(images: FloatArray, masks: FloatArray, aspects: FloatArray) -> Thumbnails:
    """Shrink images and masks to `SIDE` pixels and compute edges, colours and texture.

    Args:
        images: `(N, 3, h, w) float32`, in any unit.
        masks: `(N, h, w) float32`; values above 0 are foreground.
        aspects: `(N,) float32`, width over height of the files.
    """
    edges, channels, small_masks = [], [], []
    for image, mask in zip(images, masks, strict=True):
        small = cv2.resize(np.ascontiguousarray(image.transpose(1, 2, 0)), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        smooth = cv2.GaussianBlur(small, (0, 0), 0.8)
        gradient = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)).max(axis=2)
        edges.append(np.sqrt(gradient).ravel())
        texture = cv2.GaussianBlur(np.abs(small - smooth).max(axis=2), (0, 0), 2.0)
        channels.append([smooth[..., 0].ravel(), smooth[..., 1].ravel(), smooth[..., 2].ravel(), texture.ravel()])
        small_mask = cv2.resize((mask > 0).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        small_masks.append((small_mask >= 0.5).astype(np.float32))
    return Thumbnails(
        _standardised(np.stack(edges)),
        _standardised(np.array(channels, dtype=np.float32).transpose(1, 0, 2)),
        np.stack(small_masks),
        aspects,
    )


def pair_fits(thumbs: Thumbnails) -> FloatArray:
    """Fit of each image `i` with each mask `j`, `(N, N) float32`."""
    outlines, insides = _described(thumbs.masks)
    fits: FloatArray = thumbs.edges @ outlines.T + np.abs(thumbs.channels @ insides.T).max(axis=0)
    return fits


def own_fits(thumbs: Thumbnails, masks: FloatArray) -> FloatArray:
    """Fit of each image with the mask of the same index, `(N,) float32`."""
    outlines, insides = _described(masks)
    by_channel = np.abs(np.einsum("cnp,np->cn", thumbs.channels, insides)).max(axis=0)
    return np.asarray(np.einsum("np,np->n", thumbs.edges, outlines) + by_channel, dtype=np.float32)


def standing_out(fits: npt.NDArray[np.floating]) -> float:
    """Standard deviations by which the mean fit of own pairs exceeds that of masks shifted by 1, 2, ... places.

    `fits` is `(N, N)`, as `pair_fits` returns it; 0 where the shifted pairings do not vary.
    """
    size = len(fits)
    rows = np.arange(size)
    by_shift = np.array([fits[rows, (rows + shift) % size].mean() for shift in range(size)])
    spread = float(by_shift[1:].std())
    return float((by_shift[0] - by_shift[1:].mean()) / spread) if spread > 1e-6 else 0.0


Move = Callable[[FloatArray, float], FloatArray]
"""Maps a mask `(SIDE, SIDE)` and its file's aspect to a moved mask."""


def moves() -> dict[str, Move]:
    """Changes that may have been applied to only masks or only images, by the name of the move that undoes them."""
    found: dict[str, Move] = {
        "flipping left-right": lambda mask, _: mask[:, ::-1],
        "flipping upside down": lambda mask, _: mask[::-1],
        "turning by 180 degrees": lambda mask, _: mask[::-1, ::-1],
        "swapping height and width": lambda mask, _: mask.T,
        "turning by 90 degrees": lambda mask, _: np.rot90(mask),
        "turning by 270 degrees": lambda mask, _: np.rot90(mask, 3),
        "padding to a square": _to_letterbox,
        "cropping the padding of a square": _from_letterbox,
    }
    for scale in _SCALES:
        found[f"scaling by {scale:g}"] = _affine(scale, scale)
        found[f"scaling heights by {scale:g}"] = _affine(scale, 1.0)
        found[f"scaling widths by {scale:g}"] = _affine(1.0, scale)
        found[f"scaling by {scale:g} from the top left corner"] = _affine(scale, scale, anchor=0.0)
    for share in _SHIFTS:
        found[f"moving down by {share:g} of the height"] = _affine(1.0, 1.0, down=share)
        found[f"moving right by {share:g} of the width"] = _affine(1.0, 1.0, right=share)
    return found


def moved(thumbs: Thumbnails, move: Move) -> FloatArray:
    """All masks after a move, `(N, SIDE, SIDE) float32`."""
    return np.stack([move(mask, float(aspect)) for mask, aspect in zip(thumbs.masks, thumbs.aspects, strict=True)])


def _affine(by_height: float, by_width: float, anchor: float = 0.5, down: float = 0.0, right: float = 0.0) -> Move:
    fixed = anchor * (SIDE - 1)
    matrix = np.array(
        [
            [by_width, 0.0, fixed * (1 - by_width) + right * SIDE],
            [0.0, by_height, fixed * (1 - by_height) + down * SIDE],
        ]
    )

    def move(mask: FloatArray, _: float) -> FloatArray:
        warped = cv2.warpAffine(np.ascontiguousarray(mask), matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
        return (warped >= 0.5).astype(np.float32)

    return move


def _to_letterbox(mask: FloatArray, aspect: float) -> FloatArray:
    return _affine(min(1.0, 1.0 / aspect), min(1.0, aspect))(mask, aspect)


def _from_letterbox(mask: FloatArray, aspect: float) -> FloatArray:
    return _affine(max(1.0, aspect), max(1.0, 1.0 / aspect))(mask, aspect)


def _described(masks: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Standardised outlines and insides, `(N, P)` each."""
    kernel = np.ones((3, 3), np.uint8)
    gradients = [cv2.morphologyEx(np.ascontiguousarray(m), cv2.MORPH_GRADIENT, kernel) for m in masks]
    outlines = np.stack(gradients).astype(np.float32)
    return _standardised(outlines.reshape(len(masks), -1)), _standardised(masks.reshape(len(masks), -1))


def _standardised(rows: FloatArray) -> FloatArray:
    """Rows scaled to mean 0 and length 1, so that products are correlations; a constant row becomes 0."""
    centred = rows - rows.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    return np.asarray(centred / np.maximum(length, 1e-6) * (length > 1e-6), dtype=np.float32)
