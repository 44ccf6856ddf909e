"""No scheduler: every trial runs to its last epoch."""

from search.schedulers.rule import SchedulerRule
from segcore.component import Component

COMPONENT = Component(
    "none",
    "stops nothing",
    SchedulerRule(
        does="stops nobody",
        when="every trial's whole curve is wanted",
        judge=lambda options, setting: None,
        weighs_cost=True,
    ),
    order=90,
)
