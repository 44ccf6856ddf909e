"""The whole job, stage by stage: data, cache, search, seal, export. `run` and `resume` are the same stages.

Each stage finds out from the run's folder what is done already, so a second command continues where the first one was
interrupted.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from search.commands import run_command
from search.config.tree import SearchConfig
from search.errors import NothingToSearchError
from search.runs.folder import (
    absolute_paths,
    create_run,
    held,
    record_interruption,
    stored_config,
    timed,
    update_run,
    working_on,
)
from search.runs.paths import RunPaths
from search.runs.reading import Run
from search.runs.records import read_run
from search.show.quoting import headline, origin_text, quote
from search.space.search import Search
from search.stages.checking import fingerprint_of
from search.stages.checks.check import Check, Kind, Moment, Preparation, go_through
from search.stages.checks.check import Outcome as CheckOutcome
from search.stages.checks.listing import CHECKS
from search.stages.exporting import (
    EXIT_DONE,
    export_run,
    targets_without_model,
)
from search.stages.extending import begin_extension, plan_extension
from search.stages.gating import keep
from search.stages.repairing import repair
from search.stages.work import Work
from search.study.lives import read_lives
from search.tune.progress import ProgressCallback
from segcore.config import TrainConfig
from segcore.data.pixels.cache_file import open_cache
from segcore.sealed.card import Card, Origin

if TYPE_CHECKING:
    from search.tune.cluster.session import RaySession
    from segcore.gate.report import GateReport

log = logging.getLogger("segsearch")

EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Outcome:
    """How a job ended: the exit code, and the card of the sealed model when there is one."""

    exit_code: int
    paths: RunPaths
    card: Card | None = None


def run(config: SearchConfig, console: Console) -> Outcome:
    """Starts a search and takes it to the exported model.

    The data is read before the run's folder is made, so that a wrong path leaves nothing behind.
    """
    if not config.space:
        raise NothingToSearchError(
            f"space: {config.name} searches nothing, so all trials would be the same; name keys to search, e.g. "
            "--set 'space.optimizer.lr={loguniform: [1e-4, 1e-2]}', or train it once"
        )
    job = _prepare(config, "search", console)
    with _ray(config) as session:
        return _search_and_seal(_begin(job), session)


def train(config: SearchConfig, console: Console) -> Outcome:
    """One training run of the config as it stands, sealed and exported like a search's winner."""
    return _train_and_seal(_begin(_prepare(config, "train", console)))


def _prepare(config: SearchConfig, kind: Kind, console: Console) -> Preparation:
    """Does everything that can fail before training, before the run's folder is made."""
    job = Preparation(Search.of(absolute_paths(config)), kind, console)
    go_through(CHECKS, job)
    return job


def _begin(job: Preparation) -> Work:
    index, cache_path = job.data()
    paths = create_run(job.search.config, job.kind)
    update_run(paths, data_fingerprint=fingerprint_of(cache_path))
    if job.gate is not None:
        keep(job.gate, paths)
    return Work(paths, job.search, index, cache_path, job.console)


def _ray(config: SearchConfig) -> "RaySession":
    """The Ray of a search. It is there before the run's folder is made: what keeps it from starting leaves none."""
    from search.tune.cluster.session import RaySession

    return RaySession.open(config.resources.address)


def check(
    config: SearchConfig,
    console: Console,
    tell: Callable[[Check, CheckOutcome], None],
    show_gate: Callable[["GateReport"], Path | None],
) -> None:
    """Goes through everything that `run` checks, or `train` where nothing is searched, and trains nothing.

    Args:
        config: Of the run to come.
        console: Where progress is shown.
        tell: Called after each check.
        show_gate: Shows what the gate found; returns the picture's path.

    Raises:
        SegsearchError: With all that is wrong.
    """
    kind: Kind = "search" if config.space else "train"
    go_through(CHECKS, Preparation(Search.of(absolute_paths(config)), kind, console, show_gate=show_gate), tell)


def _take_up(search: Search, paths: RunPaths, moment: Moment, console: Console) -> Work:
    """Checks a run that exists before it is worked on again."""
    job = Preparation(search, read_run(paths).kind, console, moment, paths)
    go_through(CHECKS, job)
    return Work(paths, search, *job.data(), console)


def resume(paths: RunPaths, console: Console) -> Outcome:
    """Resumes a run that was stopped, whatever stopped it.

    Raises:
        RunError: Another process works on it, or the data has changed.
    """
    with held(paths):  # a run that is being worked on is not repaired, and needs no Ray of ours
        is_damaged = repair(paths)
    record = read_run(paths)
    if record.status == "done" and not is_damaged:
        log.info("%s is done already; nothing to resume", paths.name)
        return Outcome(EXIT_DONE, paths)
    work = _take_up(Search.of(stored_config(paths)), paths, "resume", console)
    if record.kind == "train":
        return _train_and_seal(work)
    with _ray(work.config) as session:
        return _search_and_seal(work, session)


def extend(paths: RunPaths, num_more: int, overrides: Sequence[str], console: Console) -> Outcome:
    """Gives a search more trials, in a changed space if wanted, and takes it to the exported model again.

    Args:
        paths: A search that has ended or was stopped.
        num_more: Trials to add to those that were begun.
        overrides: `key=value` changes of the config.
        console: Where progress is shown.

    Raises:
        RunError: It is not a search, it is being worked on, or the data has changed.
        ConfigError: A change that an extension may not make, or a rule that would end it at once.
    """
    extension = plan_extension(paths, num_more, overrides)
    work = _take_up(extension.search, paths, "extend", console)
    with _ray(work.config) as session:
        begin_extension(paths, extension)
        return _search_and_seal(work, session)


def _search_and_seal(work: Work, session: "RaySession") -> Outcome:
    from search.stages.confirming import wanted_confirmation
    from search.stages.sealing import seal_search, still_sealed

    config, paths = work.config, work.paths
    again = run_command("resume", paths.root)
    with working_on(paths):
        log.info("run %s in %s", paths.name, paths.root)
        with session.watched(paths.log, again, lambda: record_interruption(paths)):
            is_whole = _search(work) and _confirm(work)
        if not is_whole:
            update_run(paths, status="interrupted")
            log.warning("interrupted; nothing is lost. Continue with: %s", again)
            return Outcome(EXIT_INTERRUPTED, paths)

        session.close()  # what its workers hold of a GPU is needed now
        trials, confirmation = Run(paths).trials, wanted_confirmation(config, paths)
        configs = trial_configs(work.search, paths)
        update_run(paths, trials=len(trials))
        with timed(paths, "seal"):
            unchanged = still_sealed(paths, trials, confirmation)
            card = unchanged or seal_search(work, trials, configs, confirmation)
        what = origin_text(card.origin)
        log.info("the best is still %s; %s is as it was" if unchanged else "sealed %s in %s", what, paths.best)
        log.info("%s", headline(card))
        if unchanged:
            exit_code = export_run(config, paths, work.console, targets_without_model(config, paths))
        else:
            _track_summary(work, card)
            exit_code = export_run(config, paths, work.console)
    make_report(paths)
    return Outcome(exit_code, paths, card)


def _train_and_seal(work: Work) -> Outcome:
    from search.stages.sealing import applied_of, seal
    from search.stages.training_run import train_run

    config, paths = work.config, work.paths
    try:
        with working_on(paths):
            log.info("run %s in %s", paths.name, paths.root)
            best = train_run(work)
            origin = Origin(run=paths.name, epoch=best.epoch)
            with timed(paths, "seal"), open_cache(work.cache_path) as cache:
                card = seal(
                    paths.best, best, work.search.base, work.index, cache, origin,
                    chosen_on=config.search.metric, applied=applied_of(paths, 0),
                )  # fmt: skip
            log.info("sealed epoch %d in %s", best.epoch, paths.best)
            log.info("%s", headline(card))
            exit_code = export_run(config, paths, work.console)
    except KeyboardInterrupt:
        log.warning("interrupted; nothing is lost. Continue with: %s", run_command("resume", paths.root))
        return Outcome(EXIT_INTERRUPTED, paths)
    make_report(paths)
    return Outcome(exit_code, paths, card)


def make_report(paths: RunPaths) -> None:
    """Writes the run's page. The run is done by then, so a failure here is only reported."""
    try:
        from search.report.build import write_report

        log.info("report: %s", write_report(paths))
    except Exception as error:
        first_line = (str(error).splitlines() or [""])[0]
        what = f"{type(error).__name__}: {first_line}"
        again = run_command("report", paths.root)
        log.warning("the report could not be made (%s); try again with: %s", what, again)


def _search(work: Work) -> bool:
    from search.tracking.wandb import WandbCallback
    from search.tracking.wandb_run import Destination
    from search.tune.search import run_search

    config, paths, objective = work.config, work.paths, work.search.objective
    done, best = _so_far(paths)
    progress = ProgressCallback(
        work.console, objective, num_samples=config.search.num_samples, num_epochs=config.train.epochs, done=done,
        best=best,
    )  # fmt: skip
    callbacks: list[Any] = [progress]
    tracking = config.tracking.wandb
    if tracking.mode != "disabled":
        callbacks.append(WandbCallback(Destination.of(tracking, paths.root), objective))
    with timed(paths, "search"):
        progress.start()
        try:
            return run_search(work.search, paths, work.cache_path, callbacks)
        finally:
            progress.stop()


def _confirm(work: Work) -> bool:
    """Trains the best trials again with other seeds, if the config asks for it; False when it was interrupted."""
    from search.stages.confirming import confirm, is_wanted

    config, paths = work.config, work.paths
    if not is_wanted(config):
        if config.search.confirm is not None:
            log.info(
                "search.confirm: with %s there is no training that could be made again, so nothing is confirmed",
                config.search.scheduler.name,
            )
        paths.confirmation.unlink(missing_ok=True)
        return True
    with timed(paths, "confirm"):
        return confirm(work, Run(paths).trials, trial_configs(work.search, paths))


def _track_summary(work: Work, card: Card) -> None:
    """Logs the sealed model's scores as a separate run in the search's group."""
    tracking = work.config.tracking.wandb
    if tracking.mode == "disabled":
        return
    from search.tracking.wandb import log_run_summary
    from search.tracking.wandb_run import Destination

    found = quote(card)
    quoted = {} if found is None else {
        "on": found.name, "iou": found.score.iou, "dice": found.score.dice,
        "iou_low": found.score.iou_interval[0], "iou_high": found.score.iou_interval[1],
    }  # fmt: skip
    scores = {
        "quoted": quoted,
        "scores": {split: scores.tree() for split, scores in card.scores.items()},
        "threshold": card.threshold.value if card.threshold else None,
        "origin": card.origin.tree(),
        **({"confirmed": card.confirmed.tree()} if card.confirmed else {}),
    }
    log_run_summary(Destination.of(tracking, work.paths.root), scores, card.config)


def _so_far(paths: RunPaths) -> tuple[dict[str, int], tuple[float, int] | None]:
    """Trials that earlier sessions ended, by state, and the best of them."""
    trials = Run(paths).trials
    best = trials.best()
    counts = {state: count for state, count in trials.states().items() if state != "running"}
    return counts, None if best is None or best.value is None else (best.value, best.number)


def trial_configs(search: Search, paths: RunPaths) -> dict[int, TrainConfig]:
    """The config that each trial ran with, by its number."""
    lives = read_lives(paths).values()
    return {life.number: search.trained_with(life.params) for life in lives if life.params is not None}
