"""From a search's best trial to the sealed model in `best/`, with the score that it earns."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.config.tree import SearchConfig
from search.runs.journal import applied_by_trial, read_events
from search.runs.paths import RunPaths, read_json
from search.runs.tables import best_trial
from segcore.checkpoint.state import BestModel, read_best
from segcore.config import TrainConfig
from segcore.data.pairs.leaks import leak_counts
from segcore.data.pairs.samples import DatasetIndex
from segcore.data.pixels.cache_file import SampleCache
from segcore.errors import BundleError, TrainingError
from segcore.objective import Objective
from segcore.scores.crossfit import CrossFit, optimism_of_threshold, optimism_on_test
from segcore.scores.scoring import score_images, summarize
from segcore.sealed.bundle import Bundle, load_bundle, write_bundle
from segcore.sealed.card import update_card, verify_bundle
from segcore.task import task_of

log = logging.getLogger("segsearch")


def seal_search(
    config: SearchConfig,
    paths: RunPaths,
    trials: list[dict[str, Any]],
    train_config_of: dict[int, TrainConfig],
    index: DatasetIndex,
    cache: SampleCache,
    confirmation: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Seals the confirmed winner, or else the best checkpointed epoch of all trials, and returns its card.

    Raises:
        TrainingError: No trial reported, or no checkpoint can be read.
    """
    if confirmation is not None:
        number = confirmation["winner"]
        model = confirmed_model(paths, confirmation)
        if model is not None:
            origin = {**_origin(paths, number, model), "trials": len(trials)}
            return seal(
                paths.best, model.best, model.train or train_config_of[number], index, cache, origin,
                chosen_on=config.search.metric, applied=applied_of(model.paths, model.number),
                confirmed=_confirmed(confirmation),
            )  # fmt: skip
        log.warning("trial %d was confirmed but left no readable checkpoint; taking the search's best trial", number)
    candidates = list(trials)
    while (winner := best_trial(candidates, config.search.objective)) is not None:
        number = winner["number"]
        best = newest_readable(paths, number)
        if best is not None:
            origin = {"run": paths.name, "trial": number, "epoch": best.epoch, "trials": len(trials)}
            return seal(
                paths.best, best, train_config_of[number], index, cache, origin,
                chosen_on=config.search.metric, applied=applied_of(paths, number),
            )  # fmt: skip
        log.warning("trial %d has the best value but no readable checkpoint; taking the next best trial", number)
        candidates.remove(winner)
    failures = [f"trial {row['number']}: {row['error']}" for row in trials if row["error"]]
    why = "; ".join(failures[:3]) or "no trial reached the end of its first epoch"
    raise TrainingError(f"no trial of {paths.name!r} left a model behind: {why}")


@dataclass(frozen=True)
class TrainedModel:
    """A model that could be sealed: its best epoch, and whose it is.

    Attributes:
        best: Its best epoch.
        paths: The run that it was trained in, or that run's `reruns`.
        number: Its number there.
        train: What it was trained with, of one that was trained again.
    """

    best: BestModel
    paths: RunPaths
    number: int
    train: TrainConfig | None = None

    @property
    def seed(self) -> int | None:
        """The seed of one that was trained again."""
        return None if self.train is None else self.train.train.seed


def confirmed_model(paths: RunPaths, confirmation: Mapping[str, Any]) -> TrainedModel | None:
    """Of the winner's trainings, the search's own and those with other seeds, the one with the best value on val."""
    objective = Objective(confirmation["metric"], confirmation["mode"])
    row = next(row for row in confirmation["candidates"] if row["trial"] == confirmation["winner"])
    found = []
    if (own := newest_readable(paths, row["trial"])) is not None:
        found.append(TrainedModel(own, paths, row["trial"]))
    for _, number in row["reruns"]:
        if (best := newest_readable(paths.reruns, number)) is not None:
            train = TrainConfig.model_validate(read_json(paths.reruns.trainings)["trainings"][number]["train"])
            found.append(TrainedModel(best, paths.reruns, number, train))
    return max(found, key=lambda model: objective.sign * model.best.metrics[objective.metric], default=None)


def _origin(paths: RunPaths, number: int, model: TrainedModel) -> dict[str, Any]:
    again = {} if model.seed is None else {"seed": model.seed, "rerun": model.number}
    return {"run": paths.name, "trial": number, "epoch": model.best.epoch, **again}


def _confirmed(confirmation: Mapping[str, Any]) -> dict[str, Any]:
    """What the card says of the confirmation: the mean over seeds, which is what such a training comes to."""
    row = next(row for row in confirmation["candidates"] if row["trial"] == confirmation["winner"])
    keys = ("metric", "seeds", "num_images", "confidence", "seed_sd", "tied", "reason")
    return {**{key: confirmation[key] for key in keys}, "mean": row["mean"], "interval": row["interval"]}


def still_sealed(
    config: SearchConfig,
    paths: RunPaths,
    trials: list[dict[str, Any]],
    confirmation: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """The card of `best/` where it holds, whole and scored, what `seal_search` would seal; else None."""
    try:
        card = verify_bundle(paths.best)
    except BundleError:
        return None
    if confirmation is not None and (model := confirmed_model(paths, confirmation)) is not None:
        origin = _origin(paths, confirmation["winner"], model)
        is_same = _sealed_origin(card) == origin and card.get("confirmed") == _confirmed(confirmation)
        return card if is_same and "scores" in card else None
    winner = best_trial(trials, config.search.objective)
    best = newest_readable(paths, winner["number"]) if winner else None
    if winner is None or best is None or "scores" not in card:
        return None
    origin = {"run": paths.name, "trial": winner["number"], "epoch": best.epoch}
    return card if _sealed_origin(card) == origin else None


def _sealed_origin(card: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in card["origin"].items() if key != "trials"}


def newest_readable(paths: RunPaths, number: int) -> BestModel | None:
    """The best epoch that a trial's newest whole checkpoint holds."""
    for folder in paths.trial_checkpoints(number):
        try:
            return read_best(folder)
        except TrainingError:
            continue
    return None


def applied_of(paths: RunPaths, number: int) -> dict[str, Any] | None:
    """What was read back of a trial before it trained; None for one of an older version."""
    proofs = applied_by_trial(read_events(paths.events)).get(number)
    return dict(proofs[-1].applied) if proofs else None


def seal(
    folder: Path,
    best: BestModel,
    train: TrainConfig,
    index: DatasetIndex,
    cache: SampleCache,
    origin: dict[str, Any],
    *,
    chosen_on: str,
    applied: dict[str, Any] | None = None,
    confirmed: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes the bundle, loads it back as a stranger would, scores it from the image files, and completes its card.

    The score on `val` chose the epoch, the threshold and the winner, so it flatters; where there is a `test` split, it
    is opened here, once, and is the score to quote. `applied` is what was read back of the run before it trained,
    `confirmed` what its settings came to with other seeds.
    """
    auto = train.threshold == "auto"
    card: dict[str, Any] = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "origin": origin,
        "task": task_of(train).record(),
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
            "leaks": leak_counts(cache),
        },
        "validation_when_trained": best.metrics,
        **({"applied": applied} if applied else {}),
        **({"confirmed": confirmed} if confirmed else {}),
    }
    write_bundle(folder, best.weights, train, card)
    bundle = load_bundle(folder)
    card["input"]["mean"] = [round(value, 6) for value in bundle.model.mean.flatten().tolist()]
    card["input"]["std"] = [round(value, 6) for value in bundle.model.std.flatten().tolist()]
    chose = [
        "epoch",
        *(["threshold"] if auto else []),
        *(["winner"] if "trial" in origin else []),
        *(["seed"] if confirmed else []),
    ]
    scored = score_splits(bundle, index, chose)
    update_card(folder, {**scored, "input": card["input"], "chosen_on": chosen_on})
    return load_bundle(folder).card


def score_splits(bundle: Bundle, index: DatasetIndex, chose: list[str]) -> dict[str, Any]:
    """What the card says of val and, where there is one, of test: `scores`, and `optimism`, how much val's flatters.

    Val chose what `chose` names. Test chose nothing. Without a test split, the part of the threshold is undone by
    choosing it on one half of val and scoring it on the other: `scores.val.cross_fitted`.
    """
    val, test = index.split("val"), index.split("test")
    halves = CrossFit(val, bundle.config.data.seed) if "threshold" in chose and not test else None
    rows = score_images(bundle, val, on_probs=halves.update if halves else None)
    scores: dict[str, Any] = {"val": {**summarize(rows), "chose": chose}}
    if test:
        test_rows = score_images(bundle, test)
        scores["test"] = {**summarize(test_rows), "chose": []}
        return {"scores": scores, "optimism": optimism_on_test(rows, test_rows)}
    fitted = halves.result() if halves else None
    if fitted is None:
        return {"scores": scores}
    scores["val"]["cross_fitted"], ious = fitted
    return {"scores": scores, "optimism": optimism_of_threshold(rows, ious)}
