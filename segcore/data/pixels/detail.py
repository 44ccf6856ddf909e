"""What a sample of masks shows: whether they survive `data.image_size`, and whether they may be inverted."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
_STEP, _LARGEST = 16, 4096
_MOST_COVERED, _MOST_BORDER = 0.5, 0.5


def iou_after_resizing(mask: ByteArray, hw: tuple[int, int]) -> float:
    """IoU of a `(H, W) uint8` mask with itself after resizing to `hw` and back (nearest pixel); 1 if empty."""
    if mask.shape == hw:
        return 1.0
    back = resize_mask(resize_mask(mask, hw), (mask.shape[0], mask.shape[1]))
    union = np.count_nonzero(mask | back)
    return np.count_nonzero(mask & back) / union if union else 1.0


def sample_warnings(masks: Sequence[Path], rule: MaskRule, hw: tuple[int, int], seed: int = 0) -> list[str]:
    """What shows in a sample of at most 100 masks, read at their own size.

    An image size may cost more than a perfect model could make up for (its IoU is the mean over masks, as val/iou is
    over images), and foreground that covers most of the masks and of their borders may be the background.

    Args:
        masks: The mask files, all of them readable.
        rule: What they mean.
        hw: The image size, in pixels.
        seed: Chooses the masks that are looked at.

    Returns:
        One line each.
    """
    rng = np.random.default_rng(seed)
    chosen = [masks[i] for i in sorted(rng.permutation(len(masks))[:_MOST_MASKS])]
    with ThreadPoolExecutor(num_cpus(), thread_name_prefix="detail") as pool:

        def look(sizes: Sequence[tuple[int, int]]) -> list[_Look]:
            return list(pool.map(lambda path: _look_at(read_mask(path, rule), sizes), chosen))

        looks = look([hw])
        lines = _inverted(looks, rule)
        least = float(np.mean([found.ious[0] for found in looks]))
        if least >= _LEAST:
            return lines
        sizes = _larger(hw, max(found.longest for found in looks))
        means = np.mean([found.ious for found in look(sizes)], axis=0)
        allowed = next((size for size, iou in zip(sizes, means, strict=True) if iou >= ENOUGH), None)
    way_out = f"{_shown(allowed)} would allow {ENOUGH}" if allowed else f"no size up to {_LARGEST} would allow {ENOUGH}"
    lines.append(
        f"data.image_size {hw[0]} x {hw[1]}: a perfect model could not exceed IoU {least:.3f} at the images' own size "
        f"(thin or small masks); {way_out}"
    )
    return lines


@dataclass(frozen=True)
class _Look:
    """What one mask shows: IoU after each size, its longer side, and the shares of mask and border that are covered."""

    ious: list[float]
    longest: int
    covered: float
    border: float


def _look_at(mask: ByteArray, sizes: Sequence[tuple[int, int]]) -> _Look:
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    ious = [iou_after_resizing(mask, size) for size in sizes]
    return _Look(ious, max(mask.shape), float(mask.mean()), float(border.mean()))


def _inverted(looks: Sequence[_Look], rule: MaskRule) -> list[str]:
    covered, border = (float(np.mean([getattr(look, name) for look in looks])) for name in ("covered", "border"))
    if rule.foreground is not None or covered <= _MOST_COVERED or border <= _MOST_BORDER:
        return []
    return [
        f"the masks' foreground (whatever is not 0, or not black) covers {covered:.0%} of the pixels and {border:.0%} "
        "of the borders; if it is the background: --set data.foreground=0"
    ]


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
