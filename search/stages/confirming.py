"""The stage after a search in which its best trials are trained again with other seeds, and one of them wins."""

import logging
from collections.abc import Mapping, Sequence

from search.config.tree import SearchConfig
from search.reruns.decision import (
    COSTS,
    Candidate,
    decide,
)
from search.reruns.searcher import Rerun
from search.reruns.trainings import (
    Outcome,
    image_groups,
    image_scores,
    outcomes,
    run_again,
    tidy,
    want,
)
from search.runs.paths import RunPaths, write_json
from search.runs.rerun_records import Confirmation, ConfirmedTrial, read_confirmation
from search.runs.rows import TrialRow
from search.runs.trials import Trials
from search.stages.work import Work
from segcore.config import TrainConfig
from segcore.objective import Objective

log = logging.getLogger("segsearch")


def is_wanted(config: SearchConfig) -> bool:
    """Whether the config asks for a confirmation and its scheduler allows one.

    `pbt` does not: a trial's settings change while it trains, so training from scratch with its last settings is a
    different training.
    """
    return config.search.confirm is not None and not config.search.scheduler.makes_forks


def confirm(work: Work, trials: Trials, configs: Mapping[int, TrainConfig]) -> bool:
    """Trains those of the best trials again that are still missing, and writes `confirm.json`; Ray must be up.

    Args:
        work: The run.
        trials: Its trials.
        configs: What each ran with.

    Returns:
        Whether it finished; False when it was interrupted and can be resumed.
    """
    config, paths, objective = work.config, work.paths, work.search.objective
    settings = config.search.confirm
    assert settings is not None
    top = trials.top(settings.top_k)
    if not top:
        return True
    seeds = other_seeds(config, settings.seeds)
    wanted = {row.number: _trainings(paths, row.number, configs, seeds) for row in top}
    everything = [rerun for by_seed in wanted.values() for rerun in by_seed.values()]
    numbers = ", ".join(str(row.number) for row in top)
    log.info("confirming: the best trials, %s, each with %d other seeds", numbers, len(seeds))
    if not run_again(work.search, paths, work.cache_path, everything, work.console, keep_weights=True):
        return False
    found = outcomes(paths, everything, objective)
    candidates = [_candidate(work, row, configs[row.number], wanted[row.number], found) for row in top]
    if all(len(candidate.values) < 2 for candidate in candidates):
        errors = {outcome.error for outcome in found.values() if outcome.error}
        log.warning("nothing could be confirmed, so the best value of the search wins: %s", "; ".join(sorted(errors)))
        paths.confirmation.unlink(missing_ok=True)
        return True
    groups = image_groups(objective.metric, work.val)
    record = decide(candidates, groups, objective, seeds, top_k=settings.top_k)
    write_json(paths.confirmation, record.tree())
    log.info("confirmed: %s", record.reason)
    tidy(paths, [_best_rerun(row, objective) for row in record.candidates])
    return True


def wanted_confirmation(config: SearchConfig, paths: RunPaths) -> Confirmation | None:
    """What was confirmed, if the config still asks for it."""
    return read_confirmation(paths) if is_wanted(config) else None


def other_seeds(config: SearchConfig, count: int) -> list[int]:
    """Seeds that no trial of the search has."""
    return [config.train.seed + offset for offset in range(1, count + 1)]


def with_seed(train: TrainConfig, seed: int) -> TrainConfig:
    """The same training with another seed."""
    return train.model_copy(update={"train": train.train.model_copy(update={"seed": seed})})


def _trainings(
    paths: RunPaths, number: int, configs: Mapping[int, TrainConfig], seeds: Sequence[int]
) -> dict[int, Rerun]:
    trainings = [(f"trial {number}, seed {seed}", with_seed(configs[number], seed)) for seed in seeds]
    return dict(zip(seeds, want(paths, trainings), strict=True))


def _candidate(
    work: Work, row: TrialRow, train: TrainConfig, reruns: Mapping[int, Rerun], found: Mapping[int, Outcome]
) -> Candidate:
    by_seed = {seed: found[rerun.number] for seed, rerun in reruns.items()}
    done = {seed: outcome for seed, outcome in by_seed.items() if outcome.error is None}
    scores = image_scores(
        work.search.objective.metric, train.threshold, list(done.values()), work.val, work.config.data.seed
    )
    first = next((outcome.metrics for outcome in done.values()), {})
    return Candidate(
        trial=row.number,
        searched=row.value,
        values=dict(zip(done, scores.mean(1).tolist() if done else (), strict=True)),
        scores=scores,
        costs={name: first.get(name, row.metrics.get(name)) for name in COSTS},
        settings=row.params,
        failed={seed: outcome.error for seed, outcome in by_seed.items() if outcome.error is not None},
        reruns={seed: rerun.number for seed, rerun in reruns.items() if seed in done},
    )


def _best_rerun(row: ConfirmedTrial, objective: Objective) -> int:
    """The number of a candidate's best training."""
    numbers = dict(row.reruns)
    return numbers[max(row.values, key=lambda pair: objective.sign * pair[1])[0]]
