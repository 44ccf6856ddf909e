"""The Ray Tune part of a run: resources, one `Tuner` over the persistent study, and going on after a stop."""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
from optuna.trial import TrialState
from ray import tune

from search.config.tree import SearchConfig, SearchSettings
from search.runs.folder import stage_seconds, update_run
from search.runs.journal import (
    OUT_OF_MEMORY,
    EventLog,
    read_events,
    retried_trials,
    waiting_alone,
)
from search.runs.lives import lives_of
from search.runs.paths import RunPaths
from search.runs.records import StoppedBy
from search.runs.tables import Tables, build_tables, write_tables
from search.sampling.proposer import Proposer
from search.schedulers.build import build_promotions, decision_epochs, population_of
from search.schedulers.forks import Forks, Snapshots
from search.schedulers.setting import Setting
from search.space.enqueue import enqueued_points
from search.space.search import Search
from search.space.tree import Space
from search.study.endings import end_running
from search.study.lives import with_study
from search.study.mirror import catch_up, end_outside, open_mirror
from search.study.observations import costs_of, history_of, observations
from search.study.recording import point_in
from search.study.spaces import Spaces
from search.study.storage import close_study
from search.tune.checkpoint_budget import CheckpointBudget
from search.tune.cluster import plan_resources
from search.tune.journal_callback import JournalCallback
from search.tune.packing.share import gpu_share
from search.tune.ray_scheduler import build_scheduler
from search.tune.ray_watch import memory_kills_end_one_trial
from search.tune.retries import Retries
from search.tune.searcher import StudySearcher
from search.tune.specs import SpecMaker, attempt_dirname, resources_of
from search.tune.stopping import SearchStopper
from segcore.config import TrainConfig
from segcore.objective import Objective
from segcore.trainable import train_trial
from segcore.training.cost import LATENCY

log = logging.getLogger("segsearch")


def run_search(
    config: SearchConfig,
    paths: RunPaths,
    cache_path: Path,
    callbacks: Sequence[tune.Callback] = (),
    trainable: Callable[[dict[str, Any]], None] = train_trial,
) -> bool:
    """Runs what is left of a search, from nothing or after a stop, and writes the tables.

    Args:
        config: The run's config.
        paths: The run's folder; `study.db` and `events.jsonl` there say what is done already.
        cache_path: The decoded samples.
        callbacks: Further driver-side callbacks; they are told after the journal.
        trainable: What trains a trial; it takes the spec of `train_trial` and reports what that does.

    Returns:
        Whether the search came to its end; False when it was interrupted and can be resumed.

    Raises:
        ResourceError: No node could ever run a trial.
    """
    base = config.train_config()
    objective = config.search.objective
    events = EventLog(paths.events)
    spaces = Spaces.of(config.space, base, paths)
    space = spaces.present
    study = open_mirror(paths, spaces, objective, events)
    requeue = catch_up(study, lives_of(read_events(paths.events)), objective, events)
    requeue = end_outside(study, requeue, objective, events)
    asked = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    remaining = config.search.num_samples - len(asked) + len(requeue)
    if remaining <= 0:
        save_tables(study, paths, objective)
        close_study(study)
        return True
    stopper = SearchStopper(config.search, lives_of(read_events(paths.events)).values(), stage_seconds(paths, "search"))
    if stopper.stop_all():
        _end_by_rule(stopper, study, paths, config.search)
        close_study(study)
        return True
    options = config.search.scheduler
    setting = Setting(
        objective,
        base.train.epochs,
        config.search.seed,
        history=history_of(study),
        unfinished=frozenset(trial.number for trial in requeue),
        costs=costs_of(study),
        snapshots=Snapshots(paths),
    )
    promotions = build_promotions(options, setting)
    if promotions is not None:
        requeue = [trial for trial in requeue if trial.number not in promotions.waiting]
    setting = replace(setting, unfinished=frozenset(trial.number for trial in requeue), promotions=promotions)
    if asked:
        paused = len(promotions.waiting) if promotions else 0
        ended = len(asked) - len(requeue) - paused
        log.info(
            "going on: %d trials ended, %d go on, %d wait at a rung, %d are new",
            ended, len(requeue), paused, config.search.num_samples - len(asked),
        )  # fmt: skip

    resources = plan_resources(config, gpu_share(Search(config, base, space, objective), paths, cache_path))
    log.info("%s", resources)
    population = population_of(options, base.train.epochs)
    if population is not None and resources.max_concurrent < population.size:
        log.warning(
            "search.scheduler.population=%d, but only %d trials run side by side: members are compared with those that "
            "were at the same epoch before them, so the first ones run to their end unjudged",
            population.size, resources.max_concurrent,
        )  # fmt: skip
    session = paths.next_session()
    spec_maker = SpecMaker(
        paths,
        session,
        cache_path,
        objective.metric,
        resources,
        decision_epochs(options, base.train.epochs),
        measure_latency=objective.second == LATENCY,
        retry_out_of_memory=config.resources.retry_out_of_memory,
    )
    forks = None
    if population is not None:
        forks = Forks(population, space, Snapshots(paths), objective, seed=config.search.seed)
    searcher = StudySearcher(
        study,
        space,
        spec_maker,
        build_proposer(config, study, space, base),
        base=base,
        objective=objective,
        events=events,
        num_samples=config.search.num_samples,
        retries=Retries(requeue, retried_trials(read_events(paths.events)), spec_maker.alone),
        promotions=promotions,
        forks=forks,
    )
    limit_gb = config.resources.checkpoints_gb
    budget = CheckpointBudget(paths, study, events, objective, limit_gb=limit_gb)
    with terminate_as_interrupt() as interrupted, memory_kills_end_one_trial():
        tuner = tune.Tuner(
            tune.with_resources(trainable, resources_of),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=build_scheduler(options, setting),
                num_samples=-1,  # the searcher says when it is done: a trial that lost its worker comes again
                max_concurrent_trials=resources.max_concurrent,
                reuse_actors=True,
                trial_name_creator=attempt_dirname,
                trial_dirname_creator=attempt_dirname,
            ),
            run_config=tune.RunConfig(
                name=session,
                storage_path=str(paths.tune.resolve()),
                stop=stopper,
                callbacks=[JournalCallback(events, searcher), stopper, budget, *callbacks],
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        )
        tuner.fit()
    events.close()
    searcher.flush()
    by_rule = stopper.stopped_by is not None and not interrupted and _is_unfinished(study, config)
    if by_rule:
        _end_by_rule(stopper, study, paths, config.search)
    else:
        save_tables(study, paths, objective)
    is_whole = by_rule or not (interrupted or _is_unfinished(study, config))
    budget.settle()
    close_study(study)
    return is_whole


def _is_unfinished(study: optuna.Study, config: SearchConfig) -> bool:
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return TrialState.RUNNING in states or len(states) < config.search.num_samples


def _end_by_rule(stopper: SearchStopper, study: optuna.Study, paths: RunPaths, search: SearchSettings) -> None:
    """Ends what was running when a stopping rule was met, says which rule, and writes the tables."""
    if stopper.stopped_by is None:
        return
    events = EventLog(paths.events)
    for number, event in waiting_alone(read_events(paths.events)).items():
        events.error(number, OUT_OF_MEMORY, event.message)
    catch_up(study, lives_of(read_events(paths.events)), search.objective, events)
    num_ended = end_running(study, events, search.objective)
    events.close()
    stop = stopper.stopped_by
    log.info("stopped by search.%s: %s; running trials that end here: %d", stop.rule, stop.detail, num_ended)
    update_run(paths, stopped_by=StoppedBy(rule=stop.rule, detail=stop.detail))
    save_tables(study, paths, search.objective)


def save_tables(study: optuna.Study, paths: RunPaths, objective: Objective) -> Tables:
    """Writes `trials.parquet` and `epochs.parquet` as they stand."""
    lives = with_study(lives_of(read_events(paths.events)), study.get_trials(deepcopy=False))
    tables = build_tables(lives.values(), objective)
    write_tables(tables, paths.trials, paths.epochs)
    return tables


@contextmanager
def terminate_as_interrupt() -> Iterator[list[int]]:
    """Makes SIGTERM end the search the way Ctrl-C does, and notes either in the list that it yields."""
    seen: list[int] = []
    previous = signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        os.kill(os.getpid(), signal.SIGINT)

    try:
        signal.signal(signal.SIGTERM, note)
    except ValueError:  # not the main thread; then nobody's signals are ours
        yield seen
        return
    try:
        yield seen
    finally:
        signal.signal(signal.SIGTERM, previous)


def build_proposer(config: SearchConfig, study: optuna.Study, space: Space, base: TrainConfig) -> Proposer:
    """The config's sampler, told of every trial that the study holds and that is a point of the present space."""
    search = config.search
    own = space.defaults(base)
    first = [*([(own, "config")] if own else []), *((point, "enqueued") for point in enqueued_points(config, space))]
    proposer = Proposer(
        space,
        search.sampler,
        seed=search.seed,
        num_samples=search.num_samples,
        max_epochs=base.train.epochs,
        rungs=decision_epochs(search.scheduler, base.train.epochs),
        objective=search.objective,
        first=first,
    )
    for trial in observations(study):
        point = point_in(space, base, trial.params)
        if point is None:
            continue
        proposer.started(trial.number, point, trial.origin)
        if trial.cost is not None:
            proposer.cost(trial.number, trial.cost)
        for epoch, value in trial.values.items():
            proposer.reported(trial.number, epoch, value)
        if trial.state != TrialState.RUNNING:
            proposer.ended(trial.number, failed=trial.state == TrialState.FAIL)
    return proposer
