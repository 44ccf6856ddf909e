"""What one Ray session of a search is made of: searcher, scheduler, resources of each trial, and callbacks."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
from ray import tune

from search.runs.journal import read_events, retried_trials
from search.sampling.proposals import build_proposer
from search.schedulers.build import build_promotions, decision_epochs, population_of
from search.schedulers.forks import Forks, Snapshots
from search.schedulers.setting import Setting
from search.space.search import Search
from search.study.observations import costs_of, curves_of
from search.tune.checkpoint_budget import CheckpointBudget
from search.tune.cluster.nodes import alive_nodes
from search.tune.cluster.resources import TrialResources, plan_resources
from search.tune.journal_callback import JournalCallback
from search.tune.packing.share import gpu_share
from search.tune.ray_scheduler import build_scheduler
from search.tune.retries import Retries
from search.tune.searcher import StudySearcher
from search.tune.specs import SpecMaker, attempt_dirname, resources_of
from search.tune.standing import Standing
from search.tune.stopping import SearchStopper
from segcore.training.cost import LATENCY

log = logging.getLogger("segsearch")


@dataclass(frozen=True)
class Session:
    """The parts of a session.

    Attributes:
        standing: What the session began with.
        name: Of the session's folder.
        setting: What the scheduler is built from.
        resources: What each trial gets.
        searcher: Chooses the next trial.
        budget: Decides which checkpoints are kept.
    """

    standing: Standing
    name: str
    setting: Setting
    resources: TrialResources
    searcher: StudySearcher
    budget: CheckpointBudget

    @classmethod
    def begin(cls, standing: Standing, cache_path: Path) -> "Session":
        """Makes the parts of the next session.

        Args:
            standing: How far the search has come.
            cache_path: The decoded samples.

        Raises:
            ResourceError: No node could ever run a trial.
        """
        search, paths, study = standing.search, standing.paths, standing.study
        config = search.config
        setting, requeue = _setting(standing)
        _say_what_is_left(standing, setting, len(requeue))
        resources = plan_resources(config, gpu_share(search, paths, cache_path))
        log.info("%s", resources)
        name = paths.next_session()
        spec_maker = SpecMaker(
            paths,
            name,
            cache_path,
            search.objective.metric,
            resources,
            decision_epochs(config.search.scheduler, setting.max_epochs),
            measure_latency=search.objective.second == LATENCY,
            retry_out_of_memory=config.resources.retry_out_of_memory,
            other_nodes=len(alive_nodes()) - 1,
        )
        searcher = StudySearcher(
            study,
            search,
            spec_maker,
            build_proposer(search, study),
            standing.events,
            retries=Retries(requeue, retried_trials(read_events(paths.events)), spec_maker.alone),
            promotions=setting.promotions,
            forks=_forks(search, Snapshots(paths), resources.max_concurrent),
        )
        limit_gb = config.resources.checkpoints_gb
        budget = CheckpointBudget(paths, study, standing.events, search.objective, limit_gb=limit_gb)
        return cls(standing, name, setting, resources, searcher, budget)

    @property
    def waiting(self) -> frozenset[int]:
        """The trials that wait at a rung now."""
        return self.setting.promotions.waiting if self.setting.promotions else frozenset()

    def tuner(
        self, stopper: SearchStopper, callbacks: Sequence[tune.Callback], trainable: Callable[[dict[str, Any]], None]
    ) -> tune.Tuner:
        """Ray's `Tuner` over these parts.

        Args:
            stopper: The rules by which the search may end before its last trial.
            callbacks: Called after the journal, the stopper and the budget.
            trainable: What trains a trial; it takes a `TrialSpec` and reports a `TrialReport` per epoch.
        """
        journal = JournalCallback(self.standing.events, self.searcher)
        return tune.Tuner(
            tune.with_resources(trainable, resources_of),
            tune_config=tune.TuneConfig(
                search_alg=self.searcher,
                scheduler=build_scheduler(self.standing.search.config.search.scheduler, self.setting),
                num_samples=-1,  # the searcher says when it is done: a trial that lost its worker starts again
                max_concurrent_trials=self.resources.max_concurrent,
                reuse_actors=True,
                trial_name_creator=attempt_dirname,
                trial_dirname_creator=attempt_dirname,
            ),
            run_config=tune.RunConfig(
                name=self.name,
                storage_path=str(self.standing.paths.tune.resolve()),
                stop=stopper,
                callbacks=[journal, stopper, self.budget, *callbacks],
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        )


def waiting_at_rungs(standing: Standing) -> frozenset[int]:
    """The unfinished trials of earlier sessions that wait at a rung."""
    promotions = _setting(standing)[0].promotions
    return promotions.waiting if promotions else frozenset()


def _setting(standing: Standing) -> tuple[Setting, list[FrozenTrial]]:
    """What the scheduler is built from, and the unfinished trials that do not wait at a rung."""
    search, requeue = standing.search, list(standing.unfinished)
    setting = Setting(
        search.objective,
        search.base.train.epochs,
        search.config.search.seed,
        history=curves_of(standing.study),
        unfinished=frozenset(trial.number for trial in requeue),
        costs=costs_of(standing.study),
        snapshots=Snapshots(standing.paths),
    )
    promotions = build_promotions(search.config.search.scheduler, setting)
    if promotions is not None:
        requeue = [trial for trial in requeue if trial.number not in promotions.waiting]
    numbers = frozenset(trial.number for trial in requeue)
    return replace(setting, unfinished=numbers, promotions=promotions), requeue


def _say_what_is_left(standing: Standing, setting: Setting, num_requeued: int) -> None:
    if not standing.num_asked:
        return
    paused = len(setting.promotions.waiting) if setting.promotions else 0
    log.info(
        "resuming: %d trials ended, %d continue, %d wait at a rung, %d are new",
        standing.num_asked - num_requeued - paused, num_requeued, paused, standing.num_new,
    )  # fmt: skip


def _forks(search: Search, snapshots: Snapshots, max_concurrent: int) -> Forks | None:
    """What enqueues forks; None where the scheduler has no population."""
    settings = search.config.search
    population = population_of(settings.scheduler, search.base.train.epochs)
    if population is None:
        return None
    if max_concurrent < population.size:
        log.warning(
            "search.scheduler.population=%d, but only %d trials run side by side: members are compared with those that "
            "were at the same epoch before them, so the first ones run to their end unjudged",
            population.size, max_concurrent,
        )  # fmt: skip
    return Forks(population, search.space, snapshots, search.objective, seed=settings.seed)
