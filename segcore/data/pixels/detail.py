"""What `data.image_size` leaves of the masks: thin and small ones do not survive it, however good the model is."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from segcore.data.masks.planes import ByteArray
from segcore.data.masks.rule import MaskRule
from segcore.data.pixels.content import num_cpus
from segcore.data.pixels.decode import read_mask, resize_mask

ENOUGH = 0.95
"""The IoU that a size should allow to be worth naming."""

_LEAST = 0.9
"""Below this IoU a size is warned of; above it, a model's own smooth edges make up for most of the loss."""

_MOST_MASKS = 100
_MOST_SIZES = 10
_STEP, _LARGEST = 32, 4096


def iou_after_resizing(mask: ByteArray, hw: tuple[int, int]) -> float:
    """IoU of a `(H, W) uint8` mask with itself after resizing to `hw` and back (nearest pixel); 1 if empty."""
    if mask.shape == hw:
        return 1.0
    back = resize_mask(resize_mask(mask, hw), (mask.shape[0], mask.shape[1]))
    union = np.count_nonzero(mask | back)
    return np.count_nonzero(mask & back) / union if union else 1.0


def size_warning(masks: Sequence[Path], rule: MaskRule, hw: tuple[int, int], seed: int = 0) -> str | None:
    """Say when an image size costs more than a perfect model could make up for, and which size would not.

    The IoU is the mean over at most 100 masks, as val/iou is over images.

    Args:
        masks: The mask files, all of them readable.
        rule: What they mean.
        hw: The image size, in pixels.
        seed: Chooses the masks that are looked at.

    Returns:
        The warning, or None.
    """
    rng = np.random.default_rng(seed)
    chosen = [masks[i] for i in sorted(rng.permutation(len(masks))[:_MOST_MASKS])]
    with ThreadPoolExecutor(num_cpus(), thread_name_prefix="detail") as pool:

        def mean_ious(sizes: Sequence[tuple[int, int]]) -> tuple[list[float], int]:
            found = list(pool.map(lambda path: _ious(read_mask(path, rule), sizes), chosen))
            return [float(mean) for mean in np.mean([ious for ious, _ in found], axis=0)], max(s for _, s in found)

        (least,), longest = mean_ious([hw])
        if least >= _LEAST:
            return None
        sizes = _larger(hw, longest)
        allowed = next((size for size, iou in zip(sizes, mean_ious(sizes)[0], strict=True) if iou >= ENOUGH), None)
    way_out = f"{_shown(allowed)} would allow {ENOUGH}" if allowed else f"no size up to {_LARGEST} would allow {ENOUGH}"
    return (
        f"data.image_size {hw[0]} x {hw[1]}: a perfect model could not exceed IoU {least:.3f} at the images' own size "
        f"(thin or small masks); {way_out}"
    )


def _ious(mask: ByteArray, sizes: Sequence[tuple[int, int]]) -> tuple[list[float], int]:
    return [iou_after_resizing(mask, size) for size in sizes], max(mask.shape)


def _larger(hw: tuple[int, int], longest: int) -> list[tuple[int, int]]:
    """Sizes of the same shape above `hw`, ascending, up to one at which no mask loses anything."""
    most = min(_LARGEST, max(longest, _STEP) * max(hw) // min(hw))
    steps = range(max(hw) // _STEP + 1, -(-most // _STEP) + 1)
    some = sorted({steps[i] for i in np.linspace(0, len(steps) - 1, _MOST_SIZES).round().astype(int)}) if steps else []
    return [(_rounded(hw[0], hw, step), _rounded(hw[1], hw, step)) for step in some]


def _rounded(side: int, hw: tuple[int, int], step: int) -> int:
    return max(1, round(side / max(hw) * step)) * _STEP


def _shown(hw: tuple[int, int]) -> str:
    return str(hw[0]) if hw[0] == hw[1] else f"[{hw[0]}, {hw[1]}]"
