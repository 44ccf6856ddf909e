"""What every probe may examine: the pipeline, some of its samples, and the batch that is overfitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segcore.data.loader import Batch
from segcore.gate.alignment import Thumbnails, thumbnails
from segcore.gate.pipeline import BATCH_SIZE, Pipeline
from segcore.gate.report import Finding
from segcore.sealed.predictor import forward

MAX_SAMPLES = 256
_READ_AT_ONCE = 32
_BATCH_SHARE = (0.01, 0.9)
"""Range of the foreground share of the images that are overfitted, where enough images qualify."""


@dataclass(frozen=True)
class SampleFacts:
    """Facts about the samples that were read.

    Attributes:
        indices: Their indices in the cache.
        lowest: Smallest value of all targets.
        highest: Largest value of all targets.
        num_levels: Number of distinct values among all targets, up to 1000 counted per read.
        shares: `(N,) float64`, share of pixels above 0 in each target.
        borders: `(N,) float64`, the same share among the pixels on the image border.
        thumbs: Small copies of the samples.
    """

    indices: list[int]
    lowest: float
    highest: float
    num_levels: int
    shares: npt.NDArray[np.float64]
    borders: npt.NDArray[np.float64]
    thumbs: Thumbnails


@dataclass
class Evidence:
    """The pipeline and what was measured of it; anything slow is computed once.

    Attributes:
        pipeline: The pipeline under test.
        deadline: Value of `time.perf_counter()`, in seconds, after which nothing slow is started.
    """

    pipeline: Pipeline
    deadline: float
    _batch: Batch | None = field(default=None, init=False)

    @cached_property
    def facts(self) -> SampleFacts:
        """Facts about up to `MAX_SAMPLES` evenly spaced training samples."""
        pipeline = self.pipeline
        places = pipeline.cache.source.indices("train")
        chosen = np.unique(np.linspace(0, len(places) - 1, min(len(places), MAX_SAMPLES)).round().astype(int))
        indices = [places[place] for place in chosen]
        images, masks, levels = [], [], set[float]()
        for first in range(0, len(indices), _READ_AT_ONCE):
            batch = pipeline.read(indices[first : first + _READ_AT_ONCE])
            images.append(batch.images.float().numpy())
            masks.append(batch.targets[:, 0].float().numpy())
            levels |= set(np.unique(masks[-1])[:1000].tolist())
        targets = np.concatenate(masks)
        inside = targets > 0
        frame = np.ones(targets.shape[1:], bool)
        frame[1:-1, 1:-1] = False
        height_width = pipeline.cache.source.original_hw[indices].astype(np.float32)
        return SampleFacts(
            indices=indices,
            lowest=float(targets.min()),
            highest=float(targets.max()),
            num_levels=len(levels),
            shares=inside.mean(axis=(1, 2)),
            borders=inside[:, frame].mean(axis=1),
            thumbs=thumbnails(np.concatenate(images), targets, height_width[:, 1] / height_width[:, 0]),
        )

    @property
    def batch(self) -> Batch:
        """Up to `BATCH_SIZE` samples, preferring those with both foreground and background."""
        if self._batch is None:
            facts = self.facts
            low, high = _BATCH_SHARE
            fitting = np.flatnonzero((facts.shares >= low) & (facts.shares <= high))
            others = np.setdiff1d(np.argsort(-facts.shares * (facts.shares < 1), kind="stable"), fitting)
            count = min(BATCH_SIZE, len(facts.indices))
            if len(fitting) >= count:
                chosen = fitting[np.linspace(0, len(fitting) - 1, count).round().astype(int)]
            else:
                chosen = np.concatenate([fitting, others[: count - len(fitting)]])
            self._batch = self.pipeline.read([facts.indices[place] for place in chosen])
        return self._batch

    def logits(self, images: Tensor) -> Tensor:
        """The model's logits in eval mode, `(N, C, H, W) float32` on the CPU."""
        with evaluating(self.pipeline.model), torch.inference_mode():
            return forward(self.pipeline.model, images.to(self.pipeline.step.device)).cpu()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode and restore its mode on exit."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def shown(names: Sequence[str], count: int = 3) -> str:
    """The first `count` names, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


Probe = Callable[[Evidence], Iterator[Finding]]
"""Examines the evidence and yields what is wrong."""
