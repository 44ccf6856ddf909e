"""Asynchronous successive halving in brackets, so that trials that learn slowly at first get a chance."""

from collections.abc import Mapping
from typing import Any

from search.config.asked import Asked
from search.config.problems import Problem
from search.schedulers.grace_period import (
    GRACE_PERIOD,
    REDUCTION_FACTOR,
    grace_period_problems,
    longest_grace_period,
)
from search.schedulers.halving import Halving
from search.schedulers.rule import KEY, SchedulerRule
from search.schedulers.rungs import rungs
from segcore.component import Component, Option

BRACKETS = Option(
    "brackets",
    int,
    3,
    "groups of trials, each with a first rung reduction_factor times later than the last.",
    ge=1,
)


def _most_brackets(grace_period: int, reduction_factor: int, epochs: int) -> int:
    """How many brackets have a rung before a trial's end; at least 1."""
    return max(1, len(rungs(grace_period, reduction_factor, epochs)))


def _limits(options: Any, asked: Asked) -> Mapping[str, int]:
    longest = longest_grace_period(asked)
    grace_period = min(options.grace_period, longest)
    return {
        "grace_period": longest,
        "brackets": _most_brackets(grace_period, options.reduction_factor, asked.epochs),
    }


def _problems(options: Any, asked: Asked) -> list[Problem]:
    problems = grace_period_problems(options, asked)
    most = _most_brackets(options.grace_period, options.reduction_factor, asked.epochs)
    if problems or "brackets" not in asked.given or options.brackets <= most:
        return problems
    first = options.grace_period * options.reduction_factor ** (options.brackets - 1)
    message = (
        f"found {options.brackets}, whose last bracket would have its first rung at "
        f"grace_period * reduction_factor ** {options.brackets - 1} = {first} of train.epochs={asked.epochs}; "
        f"valid: 1 to {most}"
    )
    return [Problem(f"{KEY}.brackets", message)]


RULE = SchedulerRule(
    does="`asha` without waiting, in `brackets`: each has its first rung `reduction_factor` times later, and gets "
    "fewer trials",
    when="some settings start slowly: warm-up, low learning rates, strong augmentation",
    judge=lambda options, setting: Halving(setting, options.grace_period, options.reduction_factor, options.brackets),
    decision_epochs=lambda options, max_epochs: rungs(options.grace_period, options.reduction_factor, max_epochs),
    limits=_limits,
    problems=_problems,
)
"""A trial's bracket follows from its number and the seed. This is the asynchronous form: in a synchronous one a bracket
waits until it is full, and with a searcher that hands out no more than `max_concurrent` trials it waits forever.

References:
    Li et al., Hyperband, JMLR 2018; Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020.
"""

COMPONENT = Component(
    "hyperband",
    "asha with several first rungs",
    RULE,
    (GRACE_PERIOD, REDUCTION_FACTOR, BRACKETS),
    order=20,
)
