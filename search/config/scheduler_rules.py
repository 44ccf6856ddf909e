"""What a scheduler's options must be, given the length of a trial, the number of trials, and the space.

Each scheduler states its own rules: `search.schedulers.rules`.
"""

from typing import Any

from search.config.asked import Asked
from search.config.choices import SCHEDULERS
from search.config.problems import Problem
from search.config.tree import SchedulerConfig, SearchConfig
from search.space.tree import Space
from segcore.component import Component

KEY = "search.scheduler"


def scheduler_problems(config: SearchConfig, space: Space) -> list[Problem]:
    """Every option that the file sets and that the scheduler does not use, or that cannot work in this search.

    An option that the file leaves out is adapted instead: see `fitted_scheduler`.
    """
    options = config.search.scheduler
    problems = [*_unused(options), *SCHEDULERS[options.name].build.problems(options, _asked(config, space))]
    return problems + _second_metric_problems(config)


def fitted_scheduler(config: SearchConfig) -> SchedulerConfig:
    """The scheduler's options, those that the file does not set adapted to a short search."""
    options = config.search.scheduler
    limits = SCHEDULERS[options.name].build.limits(options, _asked(config, Space()))
    return options.model_copy(update={key: most for key, most in limits.items() if getattr(options, key) > most})


def _asked(config: SearchConfig, space: Space) -> Asked:
    options = config.search.scheduler
    unused = SCHEDULERS.unused_by(options.name)
    given = frozenset(key for key in options.model_fields_set if key not in unused)
    return Asked(given, config.train.epochs, config.search.num_samples, space)


def _unused(options: SchedulerConfig) -> list[Problem]:
    used = [option.name for option in SCHEDULERS[options.name].options]
    rule = f"uses {', '.join(used)}" if used else "has no options"
    return [
        Problem(
            f"{KEY}.{key}",
            f"belongs to {' and '.join(SCHEDULERS.readers(key))}, but the scheduler is {options.name}, which {rule}; "
            f"leave it out, or replace the whole map, e.g. --set '{KEY}={{name: {options.name}}}'",
        )
        for key in SCHEDULERS.unused_by(options.name)
        if key in options.model_fields_set
    ]


def _second_metric_problems(config: SearchConfig) -> list[Problem]:
    """Only schedulers that weigh a cost, or stop no trial, suit a search with a second metric."""
    options, second = config.search.scheduler, config.search.second_metric
    rule = SCHEDULERS[options.name].build
    option = rule.weighs_cost_if
    if second is None or (rule.weighs_cost and (not option or getattr(options, option))):
        return []
    key, found = (option, f"{option}: false") if option else ("name", options.name)
    valid = ", ".join(_as_chosen(scheduler) for scheduler in SCHEDULERS if scheduler.build.weighs_cost)
    message = (
        f"found {found}, which stops trials by search.metric alone, so that a cheap model would seldom be trained to "
        f"its end, but search.second_metric is {second}; valid: {valid}, or second_metric: null"
    )
    return [Problem(f"{KEY}.{key}", message)]


def _as_chosen(scheduler: Component[Any]) -> str:
    option = scheduler.build.weighs_cost_if
    return f"{scheduler.name} with {option}: true" if option else scheduler.name
