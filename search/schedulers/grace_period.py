"""The options of schedulers that judge from some epoch on, and their limits in a search."""

from typing import Any

from search.config.asked import Asked
from search.config.problems import Problem
from search.schedulers.rule import KEY
from segcore.component import Option

GRACE_PERIOD = Option("grace_period", int, 2, "epochs that every trial gets; the first rung.", ge=1)
REDUCTION_FACTOR = Option("reduction_factor", int, 3, "one of so many trials passes a rung.", ge=2)


def longest_grace_period(asked: Asked) -> int:
    """The last epoch at which a trial can be stopped before its end."""
    return max(1, asked.epochs - 1)


def grace_period_problems(options: Any, asked: Asked) -> list[Problem]:
    """A grace period that lasts as long as a trial."""
    found, epochs = options.grace_period, asked.epochs
    if "grace_period" not in asked.given or found < epochs or (epochs == 1 and found == 1):
        return []
    valid = f"valid: 1 to {epochs - 1}, or scheduler name none" if epochs > 1 else "valid: 1, or scheduler name none"
    message = f"found {found}, but a trial has only train.epochs={epochs} and none could be stopped before its end"
    return [Problem(f"{KEY}.grace_period", f"{message}; {valid}")]
