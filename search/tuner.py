"""The Ray Tune part of a run: resources, one `Tuner` over the persistent study, and going on after a stop."""

import importlib.util
import logging
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import ray
from optuna.trial import TrialState
from ray import tune
from ray.tune.experiment import Trial

from search.callbacks.journal import JournalCallback
from search.config import SearchConfig
from search.errors import ResourceError
from search.events import EventLog, read_events
from search.paths import RunPaths, trial_dirname
from search.population import Forks, Population, Snapshots
from search.results import Tables, build_tables, write_tables
from search.sampler import build_sampler
from search.schedulers import build_scheduler, decision_epochs
from search.space import Space, parse_space
from search.study import StudySearcher, end_running, history_of, open_study, reconcile
from segcore.config import TrainConfig
from segcore.trainable import train_trial

log = logging.getLogger("segsearch")


@dataclass(frozen=True)
class TrialResources:
    """What one trial gets, and how many run side by side."""

    cpus: float
    gpus: float
    max_concurrent: int

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.cpus:g} CPU{gpus} a trial, {self.max_concurrent} side by side"


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Ray for the length of a run: the cluster at `address`, an instance that is already up, or one of our own.

    Only an instance that was started here is shut down.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if ray.is_initialized():
        yield
        return
    try:
        context = ray.init(
            address=address,
            include_dashboard=importlib.util.find_spec("aiohttp_cors") is not None if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"resources.address={address!r}" if address else "this machine"
        raise ResourceError(f"Ray cannot be reached or started at {where}: {error}") from error
    if context.dashboard_url:
        log.info("Ray dashboard: http://%s", context.dashboard_url)
    try:
        yield
    finally:
        ray.shutdown()


def plan_resources(config: SearchConfig) -> TrialResources:
    """What each trial gets on the nodes that Ray has now.

    `auto`: a quarter of a GPU where there is one, else none; and the node's CPUs shared evenly, one each without a GPU,
    because two trials of one thread get more done than one of two.

    Raises:
        ResourceError: No node could ever run such a trial; Ray itself would wait for ever.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = config.resources.gpus_per_trial
    if gpus == "auto":
        gpus = 0.25 if any(node.get("GPU", 0) for node in nodes) else 0.0
    cpus = config.resources.cpus_per_trial
    if cpus == "auto":
        cpus = 1.0
        if gpus:
            per_slot = (node.get("CPU", 1) / (node["GPU"] / gpus) for node in nodes if node.get("GPU", 0) >= gpus)
            cpus = float(max(1, math.floor(min(per_slot, default=1.0))))
    fitting = [min(_fits(node.get("CPU", 0), cpus), _fits(node.get("GPU", 0), gpus)) for node in nodes]
    slots = sum(fitting)
    if slots < 1:
        have = "; ".join(f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in nodes) or "no nodes"
        keys = [f"resources.{name}_per_trial" for name, amount in (("cpus", cpus), ("gpus", gpus)) if amount]
        raise ResourceError(
            f"no node can run a trial that asks for {cpus:g} CPU and {gpus:g} GPU; the nodes have: {have}. "
            f"Lower {' or '.join(keys)}, or set them to auto"
        )
    wanted = config.search.max_concurrent
    most = slots if wanted == "auto" else min(int(wanted), slots)
    return TrialResources(float(cpus), float(gpus), int(min(most, config.search.num_samples)))


def run_search(
    config: SearchConfig, paths: RunPaths, cache_path: Path, callbacks: Sequence[tune.Callback] = ()
) -> bool:
    """Runs what is left of a search, from nothing or after a stop, and writes the tables.

    Args:
        config: The run's config.
        paths: The run's folder; `study.db` and `events.jsonl` there say what is done already.
        cache_path: The decoded samples.
        callbacks: Further driver-side callbacks; they are told after the journal.

    Returns:
        Whether the search came to its end; False when it was interrupted and can be resumed.

    Raises:
        ResourceError: No node could ever run a trial.
    """
    base = config.train_config()
    space = parse_space(config.space, base)
    metric, mode = config.search.metric, config.search.mode
    study = open_study(paths.storage_url, paths.name, mode=mode, sampler=None)
    requeue = reconcile(study, read_events(paths.events), metric=metric, mode=mode)
    asked = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    study.sampler = build_sampler(
        config.search.sampler,
        seed=config.search.seed,
        num_samples=config.search.num_samples,
        num_existing=len(asked),
    )
    remaining = config.search.num_samples - len(asked) + len(requeue)
    if not study.get_trials(deepcopy=False):
        defaults = space.defaults(base)
        if defaults is not None:
            study.enqueue_trial(space.to_params(defaults), user_attrs={"origin": "config"})
    if remaining <= 0:
        save_tables(study, paths, metric=metric, mode=mode)
        return True
    if asked:
        new = remaining - len(requeue)
        log.info("going on: %d trials ended, %d go on, %d are new", len(asked) - len(requeue), len(requeue), new)

    resources = plan_resources(config)
    log.info("%s", resources)
    options = config.search.scheduler
    if options.name == "pbt" and resources.max_concurrent < options.population:
        log.warning(
            "search.scheduler.population=%d, but only %d trials run side by side: members are compared with those that "
            "were at the same epoch before them, so the first ones run to their end unjudged",
            options.population, resources.max_concurrent,
        )  # fmt: skip
    searcher = StudySearcher(
        study,
        space,
        SpecMaker(paths, cache_path, metric, resources, decision_epochs(options, base.train.epochs)),
        base=base,
        metric=metric,
        mode=mode,
        num_samples=config.search.num_samples,
        requeue=requeue,
        forks=_forks(config, space, paths),
    )
    scheduler = build_scheduler(
        options,
        metric=metric,
        mode=mode,
        max_epochs=base.train.epochs,
        seed=config.search.seed,
        history=history_of(study),
        unfinished=[trial.number for trial in requeue],
        snapshots=Snapshots(paths),
    )
    events = EventLog(paths.events)
    started = time.monotonic()
    with terminate_as_interrupt() as interrupted:
        tuner = tune.Tuner(
            tune.with_resources(train_trial, {"cpu": resources.cpus, "gpu": resources.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=remaining,
                max_concurrent_trials=resources.max_concurrent,
                time_budget_s=config.search.time_budget_s,
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=paths.next_session(),
                storage_path=str(paths.tune.resolve()),
                callbacks=[JournalCallback(events), *callbacks],
                checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        )
        tuner.fit()
    events.close()
    budget = config.search.time_budget_s
    out_of_time = budget is not None and time.monotonic() - started >= budget
    if out_of_time and not interrupted:
        log.info(
            "search.time_budget_s=%g is used up; %d running trials end here", budget, end_running(study, mode=mode)
        )
    save_tables(study, paths, metric=metric, mode=mode)
    trials = study.get_trials(deepcopy=False)
    running = any(trial.state == TrialState.RUNNING for trial in trials)
    return out_of_time or not (interrupted or running or len(trials) < config.search.num_samples)


def save_tables(study: optuna.Study, paths: RunPaths, *, metric: str, mode: str) -> Tables:
    """Writes `trials.parquet` and `epochs.parquet` as they stand."""
    tables = build_tables(study.get_trials(deepcopy=False), read_events(paths.events), metric=metric, mode=mode)
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


def _forks(config: SearchConfig, space: Space, paths: RunPaths) -> Forks | None:
    options, search = config.search.scheduler, config.search
    if options.name != "pbt":
        return None
    return Forks(
        Population.of(options, config.train.epochs), space, Snapshots(paths), mode=search.mode, seed=search.seed
    )


def _fits(have: float, need: float) -> int:
    return math.floor(have / need + 1e-9) if need else 2**31


def _trial_name(trial: Trial) -> str:
    return trial_dirname(int(trial.config["number"]))


@dataclass(frozen=True)
class SpecMaker:
    """Makes a trial's spec for `train_trial`; an object, because Ray pickles the searcher that holds it."""

    paths: RunPaths
    cache_path: Path
    metric: str
    resources: TrialResources
    save_at: tuple[int, ...] = ()

    def __call__(self, number: int, train: TrainConfig) -> dict[str, Any]:
        """The spec of trial `number`, with the checkpoints that it may go on from."""
        return {
            "number": number,
            "train": train.model_dump(mode="json"),
            "cache": str(self.cache_path),
            "metric": self.metric,
            "num_cpus": self.resources.cpus,
            "gpu_fraction": self.resources.gpus,
            "checkpoints": [str(path) for path in self.paths.trial_checkpoints(number)],
            "save_at": list(self.save_at),
            "fork_from": str(start) if (start := self.paths.fork_start(number)).is_dir() else None,
        }
