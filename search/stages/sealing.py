"""From a search's best trial to the sealed model in `best/`, with its scores."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.reruns.fresh import FreshScore, fresh_score
from search.runs.journal import applied_by_trial, read_events
from search.runs.paths import RunPaths, read_json
from search.runs.rerun_records import Confirmation
from search.runs.trials import Trials
from search.show.quoting import FRESH_SEEDS
from search.stages.work import Work
from segcore.checkpoint.state import BestModel, read_best
from segcore.config import TrainConfig
from segcore.data.masks.rule import MaskRule
from segcore.data.pairs.leaks import leak_counts
from segcore.data.pairs.samples import DatasetIndex
from segcore.data.pixels.cache_file import SampleCache, open_cache
from segcore.errors import BundleError, TrainingError
from segcore.objective import Objective
from segcore.scores.crossfit import CrossFit, optimism, optimism_of_threshold, optimism_on_test
from segcore.scores.flatness import WITHIN, flat_range
from segcore.scores.scoring import score_images, summarize
from segcore.sealed.bundle import Bundle, load_bundle, write_bundle
from segcore.sealed.card import (
    Card,
    Confirmed,
    DataNote,
    InputNote,
    Optimism,
    Origin,
    SplitScores,
    Threshold,
    verify_bundle,
    write_card,
)
from segcore.task import task_of

log = logging.getLogger("segsearch")


def seal_search(
    work: Work,
    trials: Trials,
    train_config_of: dict[int, TrainConfig],
    confirmation: Confirmation | None = None,
) -> Card:
    """Seals the confirmed winner, or else the best checkpointed epoch of all trials, and returns its card.

    Args:
        work: The run.
        trials: Its trials.
        train_config_of: What each ran with.
        confirmation: The confirmation of the best trials, where the config asks for one.

    Raises:
        TrainingError: No trial reported, or no checkpoint can be read.
    """
    with open_cache(work.cache_path) as cache:
        return _seal_search(work, trials, train_config_of, cache, confirmation)


def _seal_search(
    work: Work,
    trials: Trials,
    train_config_of: dict[int, TrainConfig],
    cache: SampleCache,
    confirmation: Confirmation | None,
) -> Card:
    paths, index, objective = work.paths, work.index, work.search.objective
    if confirmation is not None:
        number = confirmation.winner
        model = confirmed_model(paths, confirmation)
        if model is not None:
            origin = _origin(paths, number, model).but(trials=len(trials))
            return seal(
                paths.best, model.best, model.train or train_config_of[number], index, cache, origin,
                chosen_on=objective.metric, applied=applied_of(model.paths, model.number),
                confirmed=_confirmed(confirmation),
                fresh=fresh_score(paths, confirmation, train_config_of, work.val, _claimed(trials, number)),
            )  # fmt: skip
        log.warning("trial %d was confirmed but left no readable checkpoint; taking the search's best trial", number)
    for number in trials.contenders():
        best = newest_readable(paths, number)
        if best is not None:
            origin = Origin(run=paths.name, trial=number, epoch=best.epoch, trials=len(trials))
            return seal(
                paths.best, best, train_config_of[number], index, cache, origin,
                chosen_on=objective.metric, applied=applied_of(paths, number),
            )  # fmt: skip
        log.warning("trial %d has the best value but no readable checkpoint; taking the next best trial", number)
    failures = [f"trial {row.number}: {row.error}" for row in trials if row.error]
    why = "; ".join(failures[:3]) or "no trial reached the end of its first epoch"
    raise TrainingError(f"no trial of {paths.name!r} left a model behind: {why}")


def _claimed(trials: Trials, number: int) -> float | None:
    """The IoU on val that the search saw of a trial."""
    row = trials.get(number)
    return None if row is None else row.metrics.get("val/iou")


@dataclass(frozen=True)
class TrainedModel:
    """A model that could be sealed: its best epoch, and which training it is from.

    Attributes:
        best: The best epoch of its training.
        paths: The run that it was trained in, or that run's `reruns`.
        number: Its number there.
        train: What it was trained with; only for one that was trained again.
    """

    best: BestModel
    paths: RunPaths
    number: int
    train: TrainConfig | None = None

    @property
    def seed(self) -> int | None:
        """The seed; only for one that was trained again."""
        return None if self.train is None else self.train.train.seed


def confirmed_model(paths: RunPaths, confirmation: Confirmation) -> TrainedModel | None:
    """The winner's training with the best value on val, among the search's own and those with other seeds."""
    objective = Objective(confirmation.metric, confirmation.mode)
    row = confirmation.winning
    found = []
    if (own := newest_readable(paths, row.trial)) is not None:
        found.append(TrainedModel(own, paths, row.trial))
    for _, number in row.reruns:
        if (best := newest_readable(paths.reruns, number)) is not None:
            train = TrainConfig.model_validate(read_json(paths.reruns.trainings)["trainings"][number]["train"])
            found.append(TrainedModel(best, paths.reruns, number, train))
    return max(found, key=lambda model: objective.sign * model.best.metrics[objective.metric], default=None)


def _origin(paths: RunPaths, number: int, model: TrainedModel) -> Origin:
    origin = Origin(run=paths.name, trial=number, epoch=model.best.epoch)
    return origin if model.seed is None else origin.but(seed=model.seed, rerun=model.number)


def _confirmed(confirmation: Confirmation) -> Confirmed:
    """What the card says of the confirmation: the mean over seeds, which is what to expect of such a training."""
    row = confirmation.winning
    return Confirmed(
        metric=confirmation.metric, seeds=confirmation.seeds, num_images=confirmation.num_images,
        confidence=confirmation.confidence, seed_sd=confirmation.seed_sd, tied=confirmation.tied,
        reason=confirmation.reason, mean=row.mean, interval=row.interval,
    )  # fmt: skip


def still_sealed(paths: RunPaths, trials: Trials, confirmation: Confirmation | None = None) -> Card | None:
    """The card of `best/` where it holds, whole and scored, what `seal_search` would seal; else None.

    Args:
        paths: The run.
        trials: Its trials.
        confirmation: The confirmation, where the config asks for one.
    """
    try:
        card = verify_bundle(paths.best)
    except BundleError:
        return None
    if confirmation is not None and (model := confirmed_model(paths, confirmation)) is not None:
        origin = _origin(paths, confirmation.winner, model)
        is_same = card.origin.but(trials=None) == origin and card.confirmed == _confirmed(confirmation)
        return card if is_same and card.scores else None
    winner = trials.best()
    best = newest_readable(paths, winner.number) if winner else None
    if winner is None or best is None or not card.scores:
        return None
    origin = Origin(run=paths.name, trial=winner.number, epoch=best.epoch)
    return card if card.origin.but(trials=None) == origin else None


def newest_readable(paths: RunPaths, number: int) -> BestModel | None:
    """The best epoch that a trial's newest whole checkpoint holds."""
    for folder in paths.trial_checkpoints(number):
        try:
            return read_best(folder)
        except TrainingError:
            continue
    return None


def applied_of(paths: RunPaths, number: int) -> dict[str, Any] | None:
    """What was read back of a trial before it trained; None for a trial of an older version."""
    proofs = applied_by_trial(read_events(paths.events)).get(number)
    return dict(proofs[-1].applied) if proofs else None


def seal(
    folder: Path,
    best: BestModel,
    train: TrainConfig,
    index: DatasetIndex,
    cache: SampleCache,
    origin: Origin,
    *,
    chosen_on: str,
    applied: dict[str, Any] | None = None,
    confirmed: Confirmed | None = None,
    fresh: FreshScore | None = None,
) -> Card:
    """Writes the bundle, loads it back like any user, scores it from the image files, and completes its card.

    The score on `val` chose the epoch, the threshold, the winner and its seed, so it is optimistic; where there is a
    `test` split, it is used here, once, and gives the score to quote.

    Args:
        folder: Where the bundle goes.
        best: The epoch to seal.
        train: What it was trained with.
        index: The data's images and masks.
        cache: The decoded samples.
        origin: Which training it is.
        chosen_on: The metric that chose the epoch.
        applied: What was read back of the training before it began.
        confirmed: The mean over seeds of its settings, if they were confirmed.
        fresh: What trainings of its settings with fresh seeds score, if they were confirmed.
    """
    auto = train.threshold == "auto"
    card = Card().but(
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        origin=origin,
        task=task_of(train).record(),
        threshold=Threshold(
            value=best.metrics["val/threshold"],
            chosen_by="best mean IoU per image on val" if auto else "config",
            auto_would_be=best.metrics["val/threshold_auto"],
            val_iou_at_auto=best.metrics["val/iou_auto"],
            gap_to_exact_optimum=best.metrics["val/threshold_gap"],
            **_flatness(best),
        ),
        input=InputNote(
            image_size=train.data.image_hw,
            color="RGB, uint8, 0-255",
            resize="bilinear with antialiasing to image_size",
        ),
        data=DataNote(
            fingerprint=cache.fingerprint, layout=index.layout, images=index.counts(), leaks=leak_counts(cache)
        ),
        validation_when_trained=best.metrics,
        applied=applied or None,
        confirmed=confirmed,
    )
    write_bundle(folder, best.weights, train, card)
    bundle = load_bundle(folder)
    mean, std = (
        tuple(round(value, 6) for value in part.flatten().tolist()) for part in (bundle.model.mean, bundle.model.std)
    )
    chose = [
        "epoch",
        *(["threshold"] if auto else []),
        *(["winner", "seed"] if origin.trial is not None else []),
    ]
    scores, gap = score_splits(bundle, index, chose, cache.mask_rule, fresh)
    whole = bundle.card.but(scores=scores, optimism=gap, input=card.input.but(mean=mean, std=std), chosen_on=chosen_on)
    write_card(folder, whole)
    return load_bundle(folder).card


def _flatness(best: BestModel) -> dict[str, Any]:
    """What the card says of the curve around the threshold; nothing where the checkpoint holds no curve."""
    thresholds, iou = best.curve.get("threshold"), best.curve.get("iou")
    if not thresholds or not iou:
        return {}
    return {"flat": flat_range(thresholds, iou, best.metrics["val/threshold"]), "flat_within": WITHIN}


def score_splits(
    bundle: Bundle, index: DatasetIndex, chose: list[str], rule: MaskRule, fresh: FreshScore | None = None
) -> tuple[dict[str, SplitScores], Optimism | None]:
    """What the card says of val and, where there is one, of test; and how optimistic what was claimed on val is.

    What `chose` names was chosen on val; nothing was chosen on test. Without a test split, the mean over fresh seeds is
    the score to quote, which undoes the choice of epoch, threshold, winner and seed. Where nothing was confirmed, the
    optimism due to the threshold alone is removed by choosing it on one half of val and scoring it on the other:
    `cross_fitted` of val's scores.

    Args:
        bundle: The sealed model.
        index: The data's images and masks.
        chose: What was chosen on val.
        rule: What the data's masks mean.
        fresh: What trainings of the same settings with fresh seeds score.
    """
    val, test = index.split("val"), index.split("test")
    halves = CrossFit(val, bundle.config.data.seed, bundle.task) if "threshold" in chose and not test else None
    rows = score_images(bundle, val, rule, on_probs=halves.update if halves else None)
    own = summarize(rows).but(chose=chose, fresh_seeds=fresh.score if fresh else None)
    if test:
        test_rows = score_images(bundle, test, rule)
        scores = {"val": own, "test": summarize(test_rows).but(chose=[])}
        return scores, optimism_on_test(rows, test_rows, fresh.claim if fresh else None)
    fitted = halves.result() if halves else None
    own = own.but(cross_fitted=fitted[0]) if fitted else own
    if fresh is not None:
        gap = optimism(fresh.claim.value, FRESH_SEEDS, fresh.score.iou, fresh.gap_interval, claimed_by="search")
        return {"val": own}, gap
    return {"val": own}, optimism_of_threshold(rows, fitted[1]) if fitted else None
