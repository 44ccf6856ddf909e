"""IoU and Dice at every threshold from one pass over the validation set.

Why a histogram is exact: with `num_bins` a power of two, `prob * num_bins` is exact in binary floating point,
so `floor(prob * num_bins) >= k` is equivalent to `prob >= k / num_bins`. The counts at every edge are integers
and the ratios are computed in float64.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from segcore.errors import TrainingError
from segcore.scores.curve import (
    METRICS,
    CurvePoint,
    CurveResult,
    check_threshold,
)
from segcore.scores.histogram import HistogramCounter
from segcore.task import Task

__all__ = ["METRICS", "CurvePoint", "CurveResult", "ThresholdCurve", "curve_of"]


class ThresholdCurve:
    """Collects the counts for IoU and Dice at every threshold k / num_bins at once.

    `pred = prob >= threshold`. An image whose target and prediction are both empty scores 1; one where only the
    target is empty scores 0. The same holds for the pooled scores.

    An update keeps one int32 per image, class and bin on the device: 8.2 kB per image at 1,024 bins, 8.2 MB per 1,000
    images. On a GPU nothing waits before `compute`, which copies only the curves to the CPU.

    Args:
        num_bins: Number of bins, a power of two up to 65,536.
        device: Where updates are counted; None: on the device of the first update.
        thresholds: Further thresholds in [0, 1], off the edges, to be counted exactly as well (one comparison
            per update and threshold). As usual in torch and numpy, a threshold is compared with float32
            probabilities as the nearest float32.

    Raises:
        ValueError: `num_bins` is not a power of two, or a threshold lies outside [0, 1].
    """

    def __init__(
        self, num_bins: int = 1024, device: torch.device | str | None = None, thresholds: Sequence[float] = ()
    ) -> None:
        if num_bins < 2 or num_bins > 65_536 or num_bins & (num_bins - 1):
            raise ValueError(f"num_bins must be a power of two in [2, 65536], found {num_bins}")
        for threshold in thresholds:
            check_threshold(threshold)
        self.num_bins = num_bins
        self._device = None if device is None else torch.device(device)
        # Edges are already exact; only the other thresholds need their own counts.
        self._extra = tuple(sorted({float(t) for t in thresholds if not (t * num_bins).is_integer()}))
        self._counter = HistogramCounter(num_bins, self._extra)
        self._histograms: list[Tensor] = []  # (n, 2, width) int32
        self._ranges: list[tuple[Tensor, Tensor, Tensor]] = []  # least and largest prob, largest target

    @torch.inference_mode()
    def update(self, probs: Tensor, targets: Tensor) -> None:
        """Count one batch.

        Args:
            probs: `(N, 1, H, W)` float probabilities in [0, 1]; any float type.
            targets: `(N, 1, H, W)` in {0, 1}, any type.

        Raises:
            ValueError: The shapes differ or there is more than one class.
        """
        if probs.shape != targets.shape or probs.ndim != 4 or probs.shape[1] != 1:
            raise ValueError(
                f"probs and targets must both be (N, 1, H, W), found {tuple(probs.shape)} and {tuple(targets.shape)}"
            )
        if probs.numel() == 0:
            return
        device = self._device = self._device or probs.device
        probs = probs.to(device).reshape(len(probs), -1)
        if probs.dtype not in (torch.float32, torch.float64):
            probs = probs.float()  # half types hold fewer digits: this is exact
        targets = targets.to(device=device, dtype=torch.uint8).reshape(len(targets), -1)
        low, high = probs.aminmax()
        target_high = targets.amax()
        self._ranges.append((low, high, target_high))
        # On the CPU this check is free; elsewhere it would wait for the device, so `compute` checks instead.
        if device.type != "cpu" or (low >= 0.0 and high <= 1.0 and target_high <= 1):
            self._histograms.append(self._counter.count(probs, targets))

    @torch.inference_mode()
    def compute(self) -> "CurveResult":
        """Turn the counts into curves; updates may continue afterwards.

        Raises:
            TrainingError: Nothing was counted, or a probability was NaN.
            ValueError: A probability lay outside [0, 1] or a target outside {0, 1}.
        """
        if not self._ranges:
            raise TrainingError("no image was scored: the validation set gave no batch")
        lows, highs, targets_high = (torch.stack(values).cpu() for values in zip(*self._ranges, strict=True))
        if lows.isnan().any():
            raise TrainingError("the model's probabilities hold NaN: the weights or the input are not finite")
        low, high, target_high = float(lows.min()), float(highs.max()), float(targets_high.max())
        if low < 0.0 or high > 1.0:
            raise ValueError(
                f"probs must lie in [0, 1], found [{low:g}, {high:g}]; are these logits that still need a sigmoid, "
                "or were probs and targets swapped?"
            )
        if target_high > 1.0:
            raise ValueError(f"targets must be 0 or 1, found {target_high:g}")
        histograms = torch.cat(self._histograms)
        self._histograms = [histograms]
        edges = self._counter.positions(np.arange(self.num_bins + 1) / self.num_bins)
        extra = self._counter.positions(np.array(self._extra))
        return CurveResult.from_histograms(histograms, edges, dict(zip(self._extra, extra, strict=True)))


def curve_of(
    task: Task, *, device: torch.device | None = None, threshold: float | Literal["auto"] = "auto"
) -> ThresholdCurve:
    """Build the threshold curve that compares a task's probabilities with its masks.

    Args:
        task: What the masks mean.
        device: Where updates are counted; None: on the device of the first update.
        threshold: A threshold in [0, 1] to count exactly in addition; `auto`: none.

    Raises:
        ValueError: The task has more than one class, which is not supported yet.
    """
    if len(task.classes) != 1:
        raise ValueError(f"a threshold curve counts one class, found {len(task.classes)}")
    return ThresholdCurve(device=device, thresholds=() if threshold == "auto" else (threshold,))
