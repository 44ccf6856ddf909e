"""Was each mask turned like its image, where an EXIF orientation turned the image and sizes do not tell?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from segcore.gate.alignment import FloatArray, Thumbnails, own_fits, thumbnails
from segcore.gate.evidence import Evidence, shown
from segcore.gate.report import Finding

MAX_TURNED = 128
_FEWEST = 3
"""With fewer images nothing is said; with fewer than five, nothing is certain."""
_FEWEST_CERTAIN = 5
_CLEAR_GAIN = 0.05
"""A fit that is better by less than this, of about 0.5 to 1.2, says nothing."""
_CHANCE_WARNED, _CHANCE_CERTAIN = 1e-3, 1e-4
_FEWEST_COMPARED = 12
_MOST = 0.8


def probe_turns(evidence: Evidence) -> Iterator[Finding]:
    """Masks of images that an EXIF orientation turned must fit better as they are than turned too.

    How often turning a mask improves its fit by chance is measured on the images without an orientation.
    """
    source = evidence.pipeline.cache.source
    turns = source.unproven_turns
    if len(turns) < _FEWEST:
        return
    indices = [list(turns)[place] for place in _spread(len(turns), MAX_TURNED)]
    gains = _gains(_thumbnails(evidence, indices), [turns[i] for i in indices])
    better = gains > _CLEAR_GAIN
    num_better = int(better.sum())
    chance = _tail(len(gains), num_better, _rate_by_chance(evidence, list(turns.values())))
    if num_better < _FEWEST or chance > _CHANCE_WARNED:
        return
    is_certain = chance <= _CHANCE_CERTAIN and num_better >= max(_FEWEST_CERTAIN, _MOST * len(gains))
    names = [source.names[index] for index, is_better in zip(indices, better, strict=True) if is_better]
    yield Finding(
        "unturned_masks", "error" if is_certain else "warning",
        f"images were turned by their EXIF orientation, and their masks {'were' if is_certain else 'may be'} not: "
        "turned in the same way, the masks fit",
        {
            "images with an orientation": len(turns), "compared": len(gains), "fit better": num_better,
            "gain in fit": float(gains.mean()), "such as": shown(names),
        },
        "turn these masks too, or take the tag out of the images: exiftool -Orientation= FILES",
    )  # fmt: skip


def upright(mask: FloatArray, orientation: int) -> FloatArray:
    """Turn `(H, W)` stored pixels as an EXIF orientation of 1 to 8 says."""
    if orientation >= 5:
        mask = mask.T
    if orientation in {2, 3, 6, 7}:
        mask = mask[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        mask = mask[::-1]
    return mask


def _gains(thumbs: Thumbnails, orientations: list[int]) -> FloatArray:
    """How much better each mask fits when it is turned, `(N,) float32`."""
    turned = np.stack([upright(mask, turn) for mask, turn in zip(thumbs.masks, orientations, strict=True)])
    return own_fits(thumbs, np.ascontiguousarray(turned)) - own_fits(thumbs, thumbs.masks)


def _thumbnails(evidence: Evidence, indices: list[int]) -> Thumbnails:
    batch = evidence.pipeline.read(indices)
    height_width = evidence.pipeline.cache.source.original_hw[indices].astype(np.float32)
    aspects = height_width[:, 1] / height_width[:, 0]
    return thumbnails(batch.images.float().numpy(), batch.targets[:, 0].float().numpy(), aspects)


def _rate_by_chance(evidence: Evidence, orientations: list[int]) -> float:
    """How often turning a right mask improves its fit clearly; a half where there is nothing to compare with."""
    facts, turns = evidence.facts, evidence.pipeline.cache.source.unproven_turns
    places = [place for place, index in enumerate(facts.indices) if index not in turns]
    if len(places) < _FEWEST_COMPARED:
        return 0.5
    some = Thumbnails(
        facts.thumbs.edges[places], facts.thumbs.channels[:, places], facts.thumbs.masks[places],
        facts.thumbs.aspects[places],
    )  # fmt: skip
    gains = _gains(some, [orientations[place % len(orientations)] for place in range(len(places))])
    return float(((gains > _CLEAR_GAIN).sum() + 1) / (len(places) + 2))


def _tail(num: int, least: int, rate: float) -> float:
    """Probability of at least `least` of `num`, each at a rate."""
    return sum(math.comb(num, k) * rate**k * (1 - rate) ** (num - k) for k in range(least, num + 1))


def _spread(num: int, most: int) -> npt.NDArray[np.int64]:
    """Up to `most` of `num` places, evenly spaced."""
    return np.unique(np.linspace(0, num - 1, min(num, most)).round().astype(np.int64))
