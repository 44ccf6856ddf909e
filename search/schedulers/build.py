"""The scheduler that a config chose, at work: its judge, who waits, its population, and when it decides."""

from typing import Any

from search.config.choices import SCHEDULERS
from search.config.tree import SchedulerConfig
from search.schedulers.population import Population
from search.schedulers.rule import Judge, SchedulerRule
from search.schedulers.rungs import Promotions
from search.schedulers.setting import Setting


def build_judge(options: SchedulerConfig, setting: Setting) -> Judge | None:
    """The scheduler of that name, as if it had seen the setting's history itself; None where it judges nobody."""
    return _rule(options).judge(options, setting)


def build_promotions(options: SchedulerConfig, setting: Setting) -> Promotions | None:
    """Who waits at which rung, where the scheduler pauses trials rather than stopping them; else None."""
    return _rule(options).promotions(options, setting)


def population_of(options: SchedulerConfig, max_epochs: int) -> Population | None:
    """The population that forks are made in; None for a scheduler without forks."""
    rule = _rule(options)
    return rule.population(options, max_epochs) if rule.population is not None else None


def decision_epochs(options: SchedulerConfig, max_epochs: int) -> tuple[int, ...]:
    """Epochs below the last at which trials are judged; a checkpoint there is worth its time.

    Empty for a scheduler that judges at every epoch, or at none.
    """
    return _rule(options).decision_epochs(options, max_epochs)


def _rule(options: SchedulerConfig) -> SchedulerRule:
    rule: Any = SCHEDULERS[options.name].build
    assert isinstance(rule, SchedulerRule)
    return rule
