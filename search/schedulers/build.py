"""Builds the parts of the scheduler that a config chose: judge, promotions, population, decision epochs."""

from typing import Any

from search.config.choices import SCHEDULERS
from search.config.tree import SchedulerConfig
from search.schedulers.population import Population
from search.schedulers.rule import Judge, SchedulerRule
from search.schedulers.rungs import Promotions
from search.schedulers.setting import Setting


def build_judge(options: SchedulerConfig, setting: Setting) -> Judge | None:
    """The scheduler of that name, which knows the setting's history; None for one that never stops a trial."""
    return _rule(options).judge(options, setting)


def build_promotions(options: SchedulerConfig, setting: Setting) -> Promotions | None:
    """Which trials wait at which rung, where the scheduler pauses trials instead of stopping them; else None."""
    return _rule(options).promotions(options, setting)


def population_of(options: SchedulerConfig, max_epochs: int) -> Population | None:
    """The population that forks are made in; None for a scheduler without forks."""
    rule = _rule(options)
    return rule.population(options, max_epochs) if rule.population is not None else None


def decision_epochs(options: SchedulerConfig, max_epochs: int) -> tuple[int, ...]:
    """Epochs below the last at which trials are judged; a checkpoint is saved there.

    Empty for a scheduler that judges at every epoch, or at none.
    """
    return _rule(options).decision_epochs(options, max_epochs)


def _rule(options: SchedulerConfig) -> SchedulerRule:
    rule: Any = SCHEDULERS[options.name].build
    assert isinstance(rule, SchedulerRule)
    return rule
