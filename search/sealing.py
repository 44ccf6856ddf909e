"""From a search's best trial to the sealed model in `best/`, with the score that it earns."""

import logging
import time
from pathlib import Path
from typing import Any

from search.config import SearchConfig
from search.paths import RunPaths
from search.results import best_trial
from segcore.bundle import ImageScore, load_bundle, score_images, summarize, write_bundle
from segcore.card import update_card, verify_bundle
from segcore.checkpoint import BestModel, read_best
from segcore.config import TrainConfig
from segcore.data.cache import SampleCache
from segcore.data.discovery import DatasetIndex
from segcore.errors import BundleError, TrainingError

log = logging.getLogger("segsearch")


def seal_search(
    config: SearchConfig,
    paths: RunPaths,
    trials: list[dict[str, Any]],
    train_config_of: dict[int, TrainConfig],
    index: DatasetIndex,
    cache: SampleCache,
) -> dict[str, Any]:
    """Seals the best checkpointed epoch of all trials and returns its card.

    Raises:
        TrainingError: No trial reported, or no checkpoint can be read.
    """
    candidates = list(trials)
    while (winner := best_trial(candidates, config.search.mode)) is not None:
        number = winner["number"]
        best = newest_readable(paths, number)
        if best is not None:
            origin = {"run": paths.name, "trial": number, "epoch": best.epoch, "trials": len(trials)}
            return seal(paths.best, best, train_config_of[number], index, cache, origin, chosen_on=config.search.metric)
        log.warning("trial %d has the best value but no readable checkpoint; taking the next best trial", number)
        candidates.remove(winner)
    failures = [f"trial {row['number']}: {row['error']}" for row in trials if row["error"]]
    why = "; ".join(failures[:3]) or "no trial reached the end of its first epoch"
    raise TrainingError(f"no trial of {paths.name!r} left a model behind: {why}")


def still_sealed(config: SearchConfig, paths: RunPaths, trials: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The card of `best/` where it holds, whole and scored, what `seal_search` would seal; else None."""
    try:
        card = verify_bundle(paths.best)
    except BundleError:
        return None
    winner = best_trial(trials, config.search.mode)
    best = newest_readable(paths, winner["number"]) if winner else None
    if winner is None or best is None or "scores" not in card:
        return None
    sealed = {key: card["origin"].get(key) for key in ("run", "trial", "epoch")}
    return card if sealed == {"run": paths.name, "trial": winner["number"], "epoch": best.epoch} else None


def newest_readable(paths: RunPaths, number: int) -> BestModel | None:
    """The best epoch that a trial's newest whole checkpoint holds."""
    for folder in paths.trial_checkpoints(number):
        try:
            return read_best(folder)
        except TrainingError:
            continue
    return None


def seal(
    folder: Path,
    best: BestModel,
    train: TrainConfig,
    index: DatasetIndex,
    cache: SampleCache,
    origin: dict[str, Any],
    *,
    chosen_on: str,
) -> dict[str, Any]:
    """Writes the bundle, loads it back as a stranger would, scores it from the image files, and completes its card.

    The score on `val` chose the epoch, the threshold and the winner, so it flatters; where there is a `test` split, it
    is opened here, once, and is the score to quote.
    """
    auto = train.threshold == "auto"
    card: dict[str, Any] = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "origin": origin,
        "task": {"kind": "binary segmentation", "classes": ["foreground"], "output": "probability = sigmoid(logits)"},
        "threshold": {
            "value": best.metrics["val/threshold"],
            "chosen_by": "best mean IoU per image on val" if auto else "config",
            "auto_would_be": best.metrics["val/threshold_auto"],
            "val_iou_at_auto": best.metrics["val/iou_auto"],
            "gap_to_exact_optimum": best.metrics["val/threshold_gap"],
        },
        "input": {
            "image_size": list(train.data.image_hw),
            "color": "RGB, uint8, 0-255",
            "resize": "bilinear with antialiasing to image_size",
        },
        "data": {
            "fingerprint": cache.fingerprint,
            "layout": index.layout,
            "images": index.counts(),
        },
        "validation_when_trained": best.metrics,
    }
    write_bundle(folder, best.weights, train, card)
    bundle = load_bundle(folder)
    card["input"]["mean"] = [round(value, 6) for value in bundle.model.mean.flatten().tolist()]
    card["input"]["std"] = [round(value, 6) for value in bundle.model.std.flatten().tolist()]
    scores: dict[str, Any] = {}
    for split in ("val", "test"):
        samples = index.split(split)
        if samples:
            rows = score_images(bundle, ((s.name, s.image, s.mask) for s in samples))
            scores[split] = {**summarize(rows), "worst_images": worst(rows)}
    scores["val"]["chose"] = ["epoch", *(["threshold"] if auto else []), *(["winner"] if "trial" in origin else [])]
    if "test" in scores:
        scores["test"]["chose"] = []
    update_card(folder, {"scores": scores, "input": card["input"], "chosen_on": chosen_on})
    return load_bundle(folder).card


def worst(rows: list[ImageScore], count: int = 5) -> list[dict[str, Any]]:
    """The images with the lowest IoU."""
    return [{"name": row.name, "iou": row.iou} for row in sorted(rows, key=lambda row: row.iou)[:count]]


def headline(card: dict[str, Any]) -> str:
    """One line: the score to quote, its interval, and on what it was earned."""
    split = "test" if "test" in card["scores"] else "val"
    score = card["scores"][split]
    low, high = score["iou_interval"]
    note = "chose nothing" if split == "test" else "also chose " + ", ".join(score["chose"])
    return (
        f"IoU {score['iou']:.4f} (95% interval {low:.4f}-{high:.4f}), Dice {score['dice']:.4f} "
        f"on {score['num_images']} {split} images, which {note}; threshold {card['threshold']['value']:.4f}"
    )
