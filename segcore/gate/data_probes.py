"""Probes of images and masks, before any model sees them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from segcore.gate.alignment import (
    Thumbnails,
    moved,
    moves,
    own_fits,
    pair_fits,
    standing_out,
)
from segcore.gate.evidence import Evidence, Probe
from segcore.gate.report import Finding
from segcore.gate.turn_probe import probe_turns

_MIN_SAMPLES = 12
"""With fewer pairs, nothing reliable can be said about whether images and masks belong together."""
_OWN_PAIR = 3.0
_MOVED_PAIR = 5.0
_MOVED_FIT = 1.15


def probe_mask_values(evidence: Evidence) -> Iterator[Finding]:
    """Masks must hold the labels of the task: 0 and 1."""
    facts, values = evidence.facts, [label.value for label in evidence.pipeline.task.labels]
    if facts.lowest >= min(values) and facts.highest <= max(values) and facts.num_levels <= len(values):
        return
    numbers = {"lowest": facts.lowest, "highest": facts.highest, "levels": facts.num_levels}
    if facts.highest == 255.0 and facts.lowest == 0.0:
        yield Finding(
            "masks_0_255", "error", "the masks reach the loss as 0 and 255 instead of 0 and 1", numbers,
            "divide them by 255, or compare them with 0, where they are read",
        )  # fmt: skip
        return
    yield Finding(
        "mask_values", "error", "the masks reach the loss with other values than 0 and 1", numbers,
        "compare them with the foreground's value where they are read",
    )  # fmt: skip


def probe_constant_target(evidence: Evidence) -> Iterator[Finding]:
    """Masks must hold foreground and background, and must not all be the same."""
    facts = evidence.facts
    shares = facts.shares
    if shares.max() == 0.0 or shares.min() == 1.0:
        what = "empty" if shares.max() == 0.0 else "full"
        yield Finding(
            "constant_target", "error", f"every mask is {what}, so there is nothing to learn",
            {"masks": len(shares), "foreground share": float(shares.mean())},
            "look at the files below data.root: which value or colour is the foreground?",
        )  # fmt: skip
        return
    masks = facts.thumbs.masks
    if len(masks) >= _MIN_SAMPLES and bool((masks == masks[0]).all()):
        yield Finding(
            "constant_target", "warning", "all masks are the same, whatever their image shows",
            {"masks": len(masks), "foreground share": float(shares.mean())},
            "see whether each image under data.root has got its own mask",
        )  # fmt: skip


def probe_inverted(evidence: Evidence) -> Iterator[Finding]:
    """What touches the image border nearly everywhere should be the background."""
    shares, borders = evidence.facts.shares, evidence.facts.borders
    if len(shares) < _MIN_SAMPLES or shares.mean() <= 0.5 or borders.mean() <= max(0.6, shares.mean()):
        return
    whole_frame = float((borders >= 0.95).mean())
    is_certain = whole_frame >= 0.6 and borders.mean() >= 0.9 and shares.min() >= 0.3
    yield Finding(
        "inverted_masks", "error" if is_certain else "warning",
        f"foreground and background {'are' if is_certain else 'may be'} swapped: the masks' foreground surrounds their "
        "background",
        {
            "foreground share": float(shares.mean()), "share of the frame": float(borders.mean()),
            "images framed by it": whole_frame,
        },
        "invert the masks below data.root, unless what surrounds is what you look for (then set search.gate: false)"
        if is_certain else "look at the picture: the white of the masks should be what you look for",
    )  # fmt: skip


def probe_pairing(evidence: Evidence) -> Iterator[Finding]:
    """Masks must fit their own image better than other images, and better than when they are moved."""
    turned = list(probe_turns(evidence))
    yield from turned
    if any(finding.severity == "error" for finding in turned):
        return
    thumbs = evidence.facts.thumbs
    distinct = {mask.tobytes() for mask in thumbs.masks}
    if len(distinct) < _MIN_SAMPLES:
        return
    fits = pair_fits(thumbs)
    own = np.diagonal(fits)
    own_stands_out = standing_out(fits)

    if (mismatch := _undone_by_a_move(thumbs, own, own_stands_out)) is not None:
        yield mismatch
        return
    if own_stands_out >= _OWN_PAIR:
        return
    num_repaired = _better_partners(fits)
    is_certain = num_repaired >= 0.25 * len(own)
    yield Finding(
        "shuffled_masks", "error" if is_certain else "warning",
        "the masks do not belong to the images that they are paired with"
        if is_certain else "the masks fit other images as well as their own: they may be shuffled, or mere noise",
        {
            "fit with the own image": float(own.mean()), "with others": _others(fits), "deviations": own_stands_out,
            "masks that fit another image": num_repaired, "samples": len(own),
        },
        "compare the names of images and masks (data.layout, data.mask_suffix, or the CSV's rows)",
    )  # fmt: skip


def _undone_by_a_move(thumbs: Thumbnails, own: npt.NDArray[np.floating], own_stands_out: float) -> Finding | None:
    """The finding for a single move of all masks that makes them fit much better; None where no move does."""
    best: tuple[float, str, float] | None = None
    for name, move in moves().items():
        fits = own_fits(thumbs, moved(thumbs, move))
        gains = fits - own
        deviations = float(gains.mean() / max(gains.std() / np.sqrt(len(gains)), 1e-6))
        if deviations > _MOVED_PAIR and fits.mean() > max(_MOVED_FIT * own.mean(), best[0] if best else 0.0):
            best = float(fits.mean()), name, deviations
    if best is None:
        return None
    fit, name, deviations = best
    after = replace(thumbs, masks=moved(thumbs, moves()[name]))
    if standing_out(pair_fits(after)) <= max(_MOVED_PAIR, own_stands_out):
        return None
    return Finding(
        "geometry_mismatch", "error",
        f"images and masks are not resized or turned alike: {name} makes the masks fit their images",
        {"fit": float(own.mean()), "fit after that": fit, "deviations": deviations, "samples": len(own)},
        "treat image and mask alike wherever one is resized, cropped, padded, flipped or turned "
        "(data.image_size, and what made the files below data.root)",
    )  # fmt: skip


def probe_augmented_validation(evidence: Evidence) -> Iterator[Finding]:
    """Validation must give the same bytes in each pass, and they must be those of the files."""
    samples = evidence.pipeline.cache.source
    num_changed = num_altered = num_seen = 0
    first, second = evidence.pipeline.val_pass(1), evidence.pipeline.val_pass(2)
    for one, other in zip(first, second, strict=True):
        same = (one.images == other.images).flatten(1).all(1) & (one.targets == other.targets).flatten(1).all(1)
        num_changed += int((~same).sum())
        num_seen += len(one)
        for place, index in enumerate(one.indices.tolist()):
            image = torch.from_numpy(samples.image(index).copy()).permute(2, 0, 1)
            is_comparable = one.images.dtype == torch.uint8 and one.images[place].shape == image.shape
            num_altered += int(is_comparable and not torch.equal(one.images[place], image))
    if num_changed or num_altered:
        yield Finding(
            "augmentation_left_on", "error", "validation images are augmented, so scores depend on chance",
            {"images": num_seen, "differ between two passes": num_changed, "differ from their file": num_altered},
            "augment training alone: build the validation loader with augment=None",
        )  # fmt: skip


def _better_partners(fits: np.ndarray) -> int:
    """Number of images that fit another image's mask best, by far, where that mask fits this image best too."""
    by_row = (fits - fits.mean(axis=1, keepdims=True)) / np.maximum(fits.std(axis=1, keepdims=True), 1e-6)
    by_column = (fits - fits.mean(axis=0)) / np.maximum(fits.std(axis=0), 1e-6)
    both = np.minimum(by_row, by_column)
    rows, best = np.arange(len(fits)), both.argmax(axis=1)
    mutual = both.argmax(axis=0)[best] == rows
    return int((mutual & (best != rows) & (both[rows, best] > _partner_limit(len(fits)))).sum())


def _partner_limit(size: int) -> float:
    """Standard deviations that the best of `size` random pairs rarely exceeds."""
    return float(np.sqrt(2 * np.log(size)) + 0.5)


def _others(fits: np.ndarray) -> float:
    return float((fits.sum() - np.trace(fits)) / (fits.size - len(fits)))


DATA_PROBES: dict[str, Probe] = {
    "mask values": probe_mask_values,
    "constant target": probe_constant_target,
    "inverted masks": probe_inverted,
    "pairing and geometry": probe_pairing,
    "augmented validation": probe_augmented_validation,
}
"""Probes by what they examine, in the order in which they run."""
