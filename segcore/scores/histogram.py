"""Fast histograms of probabilities by image and class, from which the threshold curve is computed."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_LANES = 4
_MIN_PIXELS_FOR_LANES = 2**14
_PIXELS_AT_ONCE = 2**18
_INT16_CODES = 2**15


class HistogramCounter:
    """Counts pixels by image, class and bin, where the bins lie between the edges k / num_bins and further cuts.

    A probability's bin is `floor(prob * num_bins)` plus the number of further cuts that it reaches: both grow with
    the probability, so each bin holds exactly the probabilities between two neighbours among all edges and cuts.

    Saturated pixels come in long runs, and repeated increments of one counter wait for each other. So in all but small
    images neighbouring pixels are counted in `_LANES` separate histograms, which are added at the end.

    Args:
        num_bins: A power of two up to 65,536: then `prob * num_bins` is exact in binary floating point.
        cuts: Further thresholds in [0, 1], off the edges k / num_bins.
    """

    def __init__(self, num_bins: int, cuts: tuple[float, ...] = ()) -> None:
        self._num_bins = num_bins
        self._cuts = cuts
        # The last edge's bin holds prob == 1 alone, so that threshold 1.0 is an edge as well.
        self.width = num_bins + 1 + len(cuts)
        self._prepared: tuple[int, int, torch.dtype] | None = None
        self._offsets = torch.empty(0, 0, dtype=torch.int32)
        self._scaled = torch.empty(0)
        self._reached = torch.empty(0, dtype=torch.bool)
        self._codes = torch.empty(0, dtype=torch.int16)

    def positions(self, thresholds: npt.NDArray[np.float64]) -> list[int]:
        """Return, for each threshold (an edge or a cut), the first bin with probabilities at or above it."""
        reached = (thresholds[:, None] >= np.asarray(self._cuts)).sum(1)
        return [int(k) for k in np.floor(thresholds * self._num_bins) + reached]

    @torch.inference_mode()
    def count(self, probs: Tensor, targets: Tensor) -> Tensor:
        """Return the histograms `(N, 2, width) int32` of one batch, by image, class and bin.

        Args:
            probs: `(N, pixels)` float32 or float64 in [0, 1]. Values outside are counted in an arbitrary bin on a GPU;
                on the CPU the caller must have checked them.
            targets: `(N, pixels)` uint8 in {0, 1}, on the same device, with the same caveat.
        """
        if probs.device.type == "cpu":
            return self._count_in_cache(probs, targets)
        return self._count_at_once(probs, targets)

    def _count_in_cache(self, probs: Tensor, targets: Tensor) -> Tensor:
        """Count a few images at a time, so that intermediate results stay in the CPU's cache."""
        num_images, pixels = probs.shape
        lanes = self._num_lanes(pixels)
        size = lanes * 2 * self.width  # counters per image
        at_once = max(1, min(num_images, _PIXELS_AT_ONCE // pixels, _INT16_CODES // size))
        self._prepare(at_once, pixels, probs.dtype)
        histograms = torch.empty(num_images, 2 * self.width, dtype=torch.int32)
        for first in range(0, num_images, at_once):
            some_probs = probs[first : first + at_once].reshape(-1)
            some_targets = targets[first : first + at_once].reshape(-1)
            length = len(some_probs)
            scaled, reached, codes = self._scaled[:length], self._reached[:length], self._codes[:length]
            torch.mul(some_probs, self._num_bins, out=scaled)
            codes.copy_(scaled)  # rounds towards zero
            for cut in self._cuts:
                codes += torch.ge(some_probs, cut, out=reached)
            codes.add_(some_targets, alpha=self.width).add_(self._offsets[:length])
            counts = torch.bincount(codes, minlength=at_once * size).view(at_once, lanes, -1)
            histograms[first : first + at_once] = counts.sum(1)[: num_images - first]
        return histograms.view(num_images, 2, self.width)

    def _prepare(self, num_images: int, pixels: int, dtype: torch.dtype) -> None:
        """Allocate the buffers for `num_images` images at once, or keep those of the previous batch."""
        if self._prepared == (num_images, pixels, dtype):
            return
        self._prepared = (num_images, pixels, dtype)
        length = num_images * pixels
        self._scaled = torch.empty(length, dtype=dtype)
        self._reached = torch.empty(length, dtype=torch.bool)
        offsets = self._make_offsets(num_images, pixels, torch.device("cpu")).view(-1)
        most = int(offsets.max()) + 2 * self.width
        self._offsets = offsets.to(torch.int16 if most <= _INT16_CODES else torch.int32)
        self._codes = torch.empty_like(self._offsets)

    def _num_lanes(self, pixels: int) -> int:
        return _LANES if pixels >= _MIN_PIXELS_FOR_LANES and _LANES * 2 * self.width <= _INT16_CODES else 1

    def _make_offsets(self, num_images: int, pixels: int, device: torch.device) -> Tensor:
        """Offset of the histogram of each pixel's image and lane, `(num_images, pixels) int32`."""
        lanes = self._num_lanes(pixels)
        images = torch.arange(num_images, dtype=torch.int32, device=device)[:, None] * lanes
        pixel_lanes = torch.arange(pixels, dtype=torch.int32, device=device) % lanes
        return (images + pixel_lanes) * (2 * self.width)

    def _count_at_once(self, probs: Tensor, targets: Tensor) -> Tensor:
        """Count the whole batch in a few kernels without waiting for the device, unlike `bincount`."""
        num_images, pixels = probs.shape
        if self._offsets.shape[1] != pixels or len(self._offsets) < num_images:
            self._offsets = self._make_offsets(num_images, pixels, probs.device)
        codes = (probs * self._num_bins).to(torch.int32)
        for cut in self._cuts:
            codes += probs >= cut
        codes.add_(targets, alpha=self.width)
        codes.clamp_(0, 2 * self.width - 1)  # no input may write outside the counters
        codes += self._offsets[:num_images]
        lanes = self._num_lanes(pixels)
        counts = torch.zeros(num_images * lanes * 2 * self.width, dtype=torch.int32, device=probs.device)
        counts.index_add_(0, codes.view(-1), counts.new_ones(1).expand(codes.numel()))
        return counts.view(num_images, lanes, 2, self.width).sum(1, dtype=torch.int32)
