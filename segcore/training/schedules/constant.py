"""The constant schedule: always the peak."""

from collections.abc import Callable

from segcore.component import Component
from segcore.registries import Horizon, ScheduleShape


def constant(horizon: Horizon) -> Callable[[int], float]:
    """The peak, from the first step to the last."""
    return lambda step: 1.0


def constant_twin(step: int, horizon: Horizon) -> float:
    """Independent implementation of `constant`."""
    return 1.0


COMPONENT = Component("constant", "The peak throughout.", ScheduleShape(constant, constant_twin), order=10)
