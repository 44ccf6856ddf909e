"""The one-cycle schedule: up to the peak, then down."""

import math
from collections.abc import Callable

from segcore.component import Component, Option
from segcore.registries import Horizon, ScheduleShape
from segcore.training.schedules.options import MIN_LR_FACTOR

ONECYCLE_START_FACTOR = 1.0 / 25.0
"""Learning rate of the first step, as a share of the peak."""


def onecycle(horizon: Horizon, *, pct_start: float, min_lr_factor: float) -> Callable[[int], float]:
    """A half cosine from 1/25 to 1 over the first `pct_start` of the run, then one down to the floor.

    Momentum is not cycled.

    Args:
        horizon: Length of the run.
        pct_start: Share of the run spent rising, in (0, 1).
        min_lr_factor: Floor as a share of the peak, in [0, 1].

    References:
        Smith and Topin, "Super-Convergence", 2018, arXiv:1708.07120.
    """
    peak = pct_start * horizon.total_steps

    def factor(step: int) -> float:
        if step < peak:
            return _cosine_between(ONECYCLE_START_FACTOR, 1.0, step / peak)
        return _cosine_between(1.0, min_lr_factor, (step - peak) / (horizon.total_steps - peak))

    return factor


def _cosine_between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * progress)) / 2.0


def onecycle_twin(step: int, horizon: Horizon, *, pct_start: float, min_lr_factor: float) -> float:
    """Independent implementation of `onecycle`, with the half-angle cosine.

    Args:
        step: Optimizer steps taken, in [0, total_steps].
        horizon: Length of the run.
        pct_start: Share of the run spent rising, in (0, 1).
        min_lr_factor: Floor as a share of the peak, in [0, 1].
    """
    total = horizon.total_steps
    top = pct_start * total
    if step < top:
        return 1.0 - (1.0 - 1.0 / 25.0) * math.cos(math.pi * step / top / 2.0) ** 2
    return min_lr_factor + (1.0 - min_lr_factor) * math.cos(math.pi * (step - top) / (total - top) / 2.0) ** 2


COMPONENT = Component(
    "onecycle",
    "A half cosine from 1/25 up to the peak, then one down to the floor.",
    ScheduleShape(onecycle, onecycle_twin),
    options=(MIN_LR_FACTOR, Option("pct_start", float, 0.3, "share spent rising.", gt=0.0, lt=1.0, order=40)),
    order=40,
)
