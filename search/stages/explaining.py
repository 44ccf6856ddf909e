"""What each change from the config's own values to the winner's is worth: the trainings for it, and `ledger.json`."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from search.commands import run_command
from search.config.load import load_config
from search.config.tree import ConfirmConfig, SearchConfig
from search.errors import RunError
from search.reruns.ledger import CellOutcomes, build_ledger
from search.reruns.ledger_plan import Plan, make_plan
from search.reruns.searcher import Rerun
from search.reruns.trainings import (
    image_groups,
    outcomes,
    run_again,
    unfinished,
    val_halves,
    want,
)
from search.runs.folder import held, stored_config
from search.runs.paths import RunPaths, write_json
from search.runs.reading import Run
from search.runs.records import read_run
from search.runs.rerun_records import Ledger
from search.runs.trials import Trials
from search.space.search import Search
from search.stages.checking import require_encoders, same_data
from search.stages.confirming import other_seeds, wanted_confirmation, with_seed
from search.stages.work import Work
from search.study.importance import importances
from search.study.lives import read_lives
from search.tune.cluster.session import RaySession
from segcore.errors import ConfigError

log = logging.getLogger("segsearch")

Cells = dict[str, dict[int, Rerun]]
"""The trainings of a ledger, by cell and seed."""


def explain(
    paths: RunPaths, console: Console, *, num_seeds: int | None = None, begin: Sequence[str] = ()
) -> Ledger | None:
    """Trains what the ledger still needs, writes `ledger.json`, and returns its record.

    None when it was interrupted; the same call then continues.

    Args:
        paths: A search of which at least one trial reported.
        console: Where progress is shown.
        num_seeds: Trainings of each config; default: as many as the run confirms with, else 3.
        begin: `key=value` of searched keys, to begin elsewhere than at the config's own values.

    Raises:
        RunError: It is not a search, it has no trial yet, its data has changed, or it is being worked on.
        ConfigError: `begin` names a key that is not searched, or an invalid value.
    """
    if read_run(paths).kind != "search":
        raise RunError(f"{paths.name!r} is one training run, not a search; there is no winner to explain")
    config = stored_config(paths)
    if config.search.scheduler.makes_forks:
        raise RunError(
            f"{paths.name!r} was searched with {config.search.scheduler.name}, whose trials change their settings "
            "while they train: what one of these settings is worth cannot be told by training with it from the start"
        )
    trials = Run(paths).trials
    winner = winner_of(config, paths, trials)
    plan = _plan(paths, trials, winner, begin)
    again = _same_command(paths, num_seeds, begin)
    work = Work(paths, Search.of(config), *same_data(config, paths, console), console)
    seeds = other_seeds(config, num_seeds or (config.search.confirm or ConfirmConfig()).seeds)
    with held(paths):
        cells = _cells(paths, plan, seeds)
        if not _train(work, cells, again):
            log.warning("interrupted; nothing is lost. Continue with: %s", again)
            return None
        record = _record(work, plan, cells, seeds)
        record = record.but(begin=list(begin), notes=[*record.notes, *_notes(config, paths, seeds)])
        write_json(paths.ledger, record.tree())
    return record


def _same_command(paths: RunPaths, num_seeds: int | None, begin: Sequence[str]) -> str:
    seeds = [] if num_seeds is None else ["--seeds", str(num_seeds)]
    return run_command("explain", paths.root, *seeds, *(word for change in begin for word in ("--from", change)))


def winner_of(config: SearchConfig, paths: RunPaths, trials: Trials) -> int:
    """The trial that was confirmed, or else has the best value.

    Args:
        config: The run's config.
        paths: The run.
        trials: Its trials.

    Raises:
        RunError: No trial has one.
    """
    confirmation = wanted_confirmation(config, paths)
    if confirmation is not None:
        return confirmation.winner
    best = trials.best()
    if best is None:
        resume = run_command("resume", paths.root)
        raise RunError(f"no trial of {paths.name!r} has come to a value yet; continue with: {resume}")
    return best.number


def _notes(config: SearchConfig, paths: RunPaths, seeds: Sequence[int]) -> list[str]:
    """Remarks about the winner's own trainings."""
    confirmation = wanted_confirmation(config, paths)
    if confirmation is None or len(confirmation.candidates) < 2 or not set(seeds) & set(confirmation.seeds):
        return []
    count = len(confirmation.candidates)
    return [f"the winner's trainings also chose it among {count} candidates, which flatters its own mean a little"]


def _plan(paths: RunPaths, trials: Trials, winner: int, begin: Sequence[str]) -> Plan:
    params = {life.number: dict(life.params) for life in read_lives(paths).values() if life.params is not None}
    search = Search.of(_beginning(paths, begin, params[winner]))
    return make_plan(search.base, search.space, winner, params, trials)


def _beginning(paths: RunPaths, begin: Sequence[str], winning: Mapping[str, Any]) -> SearchConfig:
    """The config's own values, or those that `begin` names; everything that is not searched is as in the trials."""
    fixed = [change for change in begin if change.partition("=")[0].strip() not in winning]
    if fixed:
        raise ConfigError(
            f"--from {', '.join(fixed)}: only what the search gave to the winner can begin elsewhere; valid: "
            f"{', '.join(sorted(winning))}, each as KEY=VALUE"
        )
    return load_config(paths.config, begin)


def _cells(paths: RunPaths, plan: Plan, seeds: Sequence[int]) -> Cells:
    """Numbers every training of the plan; those that the confirmation made are among them already."""
    return {
        cell: dict(
            zip(seeds, want(paths, [(f"{cell}, seed {seed}", with_seed(train, seed)) for seed in seeds]), strict=True)
        )
        for cell, train in plan.cells.items()
    }


def _train(work: Work, cells: Cells, again: str) -> bool:
    wanted = [rerun for by_seed in cells.values() for rerun in by_seed.values()]
    left = unfinished(work.paths, wanted, work.search.objective.metric)
    num_seeds = len(next(iter(cells.values())))
    log.info(
        "explaining: %d configs with %d seeds each, %d of these %d trainings are still to be made",
        len(cells), num_seeds, len(left), len(wanted),
    )  # fmt: skip
    if not left:
        return True
    require_encoders(rerun.train for rerun in left)
    with RaySession.open(work.config.resources.address) as session, session.watched(work.paths.log, again):
        return run_again(work.search, work.paths, work.cache_path, wanted, work.console, keep_weights=False)


def _record(work: Work, plan: Plan, cells: Cells, seeds: Sequence[int]) -> Ledger:
    objective = work.search.objective
    metric = objective.metric
    found = outcomes(work.paths, [rerun for by_seed in cells.values() for rerun in by_seed.values()], objective)
    ended = {cell: {seed: found[rerun.number] for seed, rerun in by_seed.items()} for cell, by_seed in cells.items()}
    images = {
        cell: {seed: outcome.images for seed, outcome in by_seed.items() if outcome.images is not None}
        for cell, by_seed in ended.items()
    }
    values = {
        cell: {seed: outcome.metrics[metric] for seed, outcome in by_seed.items() if outcome.error is None}
        for cell, by_seed in ended.items()
    }
    failed = {
        cell: {seed: outcome.error for seed, outcome in by_seed.items() if outcome.error is not None}
        for cell, by_seed in ended.items()
    }
    run = Run(work.paths)
    return build_ledger(
        plan, CellOutcomes(images, values, failed), objective, seeds=seeds, groups=image_groups(metric, work.val),
        half_of=val_halves(work.val, work.config.data.seed), importance=importances(run.frozen, run.trials),
    )  # fmt: skip
