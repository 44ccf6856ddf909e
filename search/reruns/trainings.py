"""Trainings made again beside a search, as Ray trials: with other seeds, or with some settings of another trial.

A training is identified by its config, seed included, so one that exists already is not made twice. They live in the
run's folder `reruns/`, with a journal and checkpoints like the search's, so one that was interrupted is resumed.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ray import tune
from ray.tune.experiment import Trial
from rich.console import Console

from search.interrupts import terminate_as_interrupt
from search.reruns.searcher import Rerun, RerunSearcher
from search.runs.journal import (
    EventLog,
    epochs_by_trial,
    errors_by_trial,
    is_finished,
    read_events,
    retried_trials,
)
from search.runs.paths import (
    RunPaths,
    write_json,
)
from search.runs.rerun_records import KnownTraining, read_trainings
from search.space.search import Search
from search.tracking.wandb import WandbCallback
from search.tracking.wandb_run import Destination
from search.tune.cluster.nodes import alive_nodes
from search.tune.cluster.resources import plan_resources
from search.tune.cluster.watch import memory_kills_end_one_trial
from search.tune.journal_callback import JournalCallback
from search.tune.packing.share import gpu_share
from search.tune.progress import ProgressCallback
from search.tune.specs import SpecMaker, attempt_dirname, resources_of
from segcore.checkpoint.files import delete_checkpoint, drop_state, drop_weights
from segcore.checkpoint.state import read_images
from segcore.config import TrainConfig
from segcore.data.pairs.samples import Sample
from segcore.data.pairs.splits import halves
from segcore.errors import TrainingError
from segcore.objective import Objective
from segcore.scores.image_counts import ImageCounts
from segcore.scores.scorer import scorer_of
from segcore.scores.seed_noise import FloatArray
from segcore.spec import RaySpec, TrialReport, TrialSpec, number_of
from segcore.trainable import train_trial
from segcore.training.cost import LATENCY

log = logging.getLogger("segsearch")


@dataclass(frozen=True)
class Outcome:
    """The result of a training: its best epoch's metrics and counts per image, or the error it ended with."""

    number: int
    metrics: dict[str, float]
    images: ImageCounts | None = None
    error: str | None = None


def want(paths: RunPaths, trainings: Iterable[tuple[str, TrainConfig]]) -> list[Rerun]:
    """Numbers trainings, each with its label, and stores the list; known ones keep their number and label."""
    reruns = paths.reruns
    known = read_trainings(reruns)
    before, found = len(known), []
    for label, train in trainings:
        dumped = train.model_dump(mode="json")
        entry = next((entry for entry in known if entry.train == dumped), None)
        if entry is None:
            entry = KnownTraining(number=len(known), label=label, train=dumped)
            known.append(entry)
        found.append(Rerun(entry.number, entry.label, train))
    if len(known) > before:
        reruns.root.mkdir(parents=True, exist_ok=True)
        write_json(reruns.trainings, {"trainings": [entry.tree() for entry in known]})
    return found


def unfinished(paths: RunPaths, wanted: Sequence[Rerun], metric: str) -> list[Rerun]:
    """The trainings that have neither finished nor failed, each with its metric by epoch so far.

    Args:
        paths: The run.
        wanted: The trainings to look up.
        metric: The metric that each epoch's value is of.
    """
    events = read_events(paths.reruns.events)
    journal, errors = epochs_by_trial(events), errors_by_trial(events)
    left = {}
    for rerun in wanted:
        rows = journal.get(rerun.number, {})
        if rerun.number not in errors and not is_finished(rows):
            values = {epoch: float(row.metrics[metric]) for epoch, row in rows.items()}
            left[rerun.number] = Rerun(rerun.number, rerun.label, rerun.train, values)
    return list(left.values())


def run_again(
    search: Search,
    paths: RunPaths,
    cache_path: Path,
    wanted: Sequence[Rerun],
    console: Console,
    *,
    keep_weights: bool,
    trainable: Callable[[RaySpec], None] = train_trial,
) -> bool:
    """Runs the trainings of `wanted` that are not done yet; Ray must be up.

    Args:
        search: The run's.
        paths: The run; the trainings go below `reruns/`.
        cache_path: The decoded samples.
        wanted: From `want`.
        console: Where progress is shown.
        keep_weights: Keep the best epoch's weights of what ends here; False: keep only the counts of its images.
        trainable: What trains; it takes the spec of `train_trial` and reports what that does.

    Returns:
        Whether all of them ended; False when it was interrupted and can be resumed.

    Raises:
        ResourceError: No node could ever run such a training.
    """
    reruns, config, objective = paths.reruns, search.config, search.objective
    left = unfinished(paths, wanted, objective.metric)
    if not left:
        return True
    resources = plan_resources(config, gpu_share(search, paths, cache_path))
    log.info("%s", resources)
    spec_maker = SpecMaker(
        reruns, reruns.next_session(), cache_path, objective.metric, resources,
        measure_latency=objective.second == LATENCY, retry_out_of_memory=config.resources.retry_out_of_memory,
        other_nodes=len(alive_nodes()) - 1,
    )  # fmt: skip
    alone = retried_trials(read_events(reruns.events))
    searcher = RerunSearcher(left, spec_maker, objective, alone=alone, whole_gpu=spec_maker.alone)
    progress = ProgressCallback(
        console, objective, num_samples=len(wanted), num_epochs=config.train.epochs,
        done=_ended(paths, wanted, left), best=_best(paths, wanted, objective),
        names={rerun.number: rerun.label for rerun in wanted},
    )  # fmt: skip
    events = EventLog(reruns.events)
    callbacks = [JournalCallback(events, searcher), _Tidy(reruns, keep_weights), progress, *_tracking(search, paths)]
    with terminate_as_interrupt(), memory_kills_end_one_trial():
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources_of),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                max_concurrent_trials=min(resources.max_concurrent, len(left)),
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=attempt_dirname,
            ),
            run_config=tune.RunConfig(
                name=spec_maker.session,
                storage_path=str(reruns.tune.resolve()),
                callbacks=callbacks,
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        )
        progress.start()
        try:
            tuner.fit()
        finally:
            progress.stop()
    events.close()
    return not unfinished(paths, wanted, objective.metric)


def outcomes(paths: RunPaths, wanted: Sequence[Rerun], objective: Objective) -> dict[int, Outcome]:
    """The result of each training that ended, by its number.

    Args:
        paths: The run.
        wanted: The trainings to look up.
        objective: What decides each training's best epoch.
    """
    events = read_events(paths.reruns.events)
    journal, errors = epochs_by_trial(events), errors_by_trial(events)
    found = {}
    for number in dict.fromkeys(rerun.number for rerun in wanted):
        rows = journal.get(number, {})
        if is_finished(rows):
            values = {epoch: float(row.metrics[objective.metric]) for epoch, row in rows.items()}
            best = rows[objective.best_epoch(values) or max(rows)]
            images = images_of(paths.reruns, number)
            error = "what its images came to cannot be read" if images is None else None
            found[number] = Outcome(number, dict(best.metrics), images, error)
        elif number in errors:
            found[number] = Outcome(number, {}, None, f"{errors[number].kind}: {errors[number].message}")
    return found


def image_scores(
    metric: str, threshold: float | Literal["auto"], done: Sequence[Outcome], val: Sequence[Sample], seed: int
) -> FloatArray:
    """Scores `(S, N)` of each of N validation images in S trainings, whose mean is the metric.

    With `threshold: auto` they are cross-fitted: the threshold of one half of the images is chosen on the other half,
    as it is for a model's own score. For `val/loss`, which has no value per image, `(S, 1)`.

    Args:
        metric: The run's.
        threshold: What the trainings were configured with.
        done: Trainings that finished.
        val: The validation samples, in the order of the cache.
        seed: Of the halves.
    """
    scorer = scorer_of(metric)
    if not scorer.has_images:
        return np.array([[outcome.metrics[metric]] for outcome in done])
    half_of = val_halves(val, seed) if threshold == "auto" else None
    images = [outcome.images for outcome in done if outcome.images is not None]
    return np.array([counts.values(scorer.name, threshold, half_of) for counts in images])


def val_halves(val: Sequence[Sample], seed: int) -> list[int] | None:
    """The half that each validation image is in; None where there is but one group, which cannot be halved."""
    half_of = halves(val, seed)
    return half_of if len(set(half_of)) == 2 else None


def image_groups(metric: str, val: Sequence[Sample]) -> list[str] | None:
    """The group of each validation image; None for a metric without values per image."""
    return [sample.group or sample.name for sample in val] if scorer_of(metric).has_images else None


def tidy(paths: RunPaths, keep: Iterable[int]) -> None:
    """Deletes the weights of all ended trainings except those to keep; the counts of their images stay."""
    kept = set(keep)
    journal = epochs_by_trial(read_events(paths.reruns.events))
    for number, folders in paths.reruns.checkpoints().items():
        if number not in kept and is_finished(journal.get(number, {})):
            for folder in folders[:1]:
                drop_weights(folder)


def images_of(paths: RunPaths, number: int) -> ImageCounts | None:
    """The counts of a training's validation images at its best epoch; None where no checkpoint has them."""
    for folder in paths.trial_checkpoints(number):
        try:
            return read_images(folder)
        except TrainingError:
            continue
    return None


def _ended(paths: RunPaths, wanted: Sequence[Rerun], left: Sequence[Rerun]) -> dict[str, int]:
    errors = errors_by_trial(read_events(paths.reruns.events))
    numbers = {rerun.number for rerun in wanted} - {rerun.number for rerun in left}
    return dict(Counter("failed" if number in errors else "complete" for number in numbers))


def _best(paths: RunPaths, wanted: Sequence[Rerun], objective: Objective) -> tuple[float, int] | None:
    """The best value so far, and the training that has it."""
    journal, metric = epochs_by_trial(read_events(paths.reruns.events)), objective.metric
    numbers = {rerun.number for rerun in wanted} & journal.keys()
    values = [(float(row.metrics[metric]), number) for number in numbers for row in journal[number].values()]
    return max(values, key=lambda value: objective.sign * value[0], default=None)


def _tracking(search: Search, paths: RunPaths) -> list[tune.Callback]:
    tracking = search.config.tracking.wandb
    if tracking.mode == "disabled":
        return []
    to = Destination.of(tracking, paths.root, "rerun")
    callback = WandbCallback(
        to, search.objective, config_of=_wandb_config, run_id_of=_wandb_id, checkpoints=paths.reruns
    )
    return [callback]


def _wandb_config(trial: Trial) -> Mapping[str, object]:
    spec = TrialSpec.from_ray(trial.config)
    return {"training": spec.label, **spec.train.model_dump(mode="json")}


def _wandb_id(trial: Trial) -> str:
    return f"rerun-{number_of(trial):05d}"


def _name(trial: Trial) -> str:
    return str(TrialSpec.from_ray(trial.config).label).replace(", ", "_").replace(" ", "_")


class _Tidy(tune.Callback):  # type: ignore[misc]
    """Deletes what is no longer needed of an ended training."""

    def __init__(self, reruns: RunPaths, keep_weights: bool) -> None:
        self._reruns = reruns
        self._keep_weights = keep_weights

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Deletes older checkpoints and what only a resume needs; the last report has arrived.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            **info: Whatever else Ray passes; not used.
        """
        last = TrialReport.last_of(trial)
        if last is None or not last.finished:
            return
        newest, *older = self._reruns.trial_checkpoints(number_of(trial))
        for folder in older:
            delete_checkpoint(folder)
        drop_state(newest)
        if not self._keep_weights:
            drop_weights(newest)
