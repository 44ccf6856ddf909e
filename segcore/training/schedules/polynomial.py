"""The polynomial schedule: a power of the remaining share of the run."""

import math
from collections.abc import Callable

from segcore.component import Component, Option
from segcore.registries import Horizon, ScheduleShape
from segcore.training.schedules.options import MIN_LR_FACTOR, WARMUP_EPOCHS
from segcore.training.schedules.warm_up import left_after_warm_up, warm_up_then


def polynomial(horizon: Horizon, *, warmup_epochs: float, min_lr_factor: float, power: float) -> Callable[[int], float]:
    """A linear warm-up, then m + (1 - m) (1 - p)^power with p from 0 to 1 and m = min_lr_factor.

    Args:
        horizon: Length of the run.
        warmup_epochs: Length of the warm-up in epochs, 0 or more.
        min_lr_factor: Floor as a share of the peak, in [0, 1].
        power: Exponent, above 0.

    References:
        Chen et al., "DeepLab", 2016, arXiv:1606.00915.
    """

    def falling(progress: float) -> float:
        return min_lr_factor + (1.0 - min_lr_factor) * math.pow(1.0 - progress, power)

    return warm_up_then(falling, horizon, warmup_epochs)


def polynomial_twin(step: int, horizon: Horizon, *, warmup_epochs: float, min_lr_factor: float, power: float) -> float:
    """Independent implementation of `polynomial`.

    Args:
        step: Optimizer steps taken, in [0, total_steps].
        horizon: Length of the run.
        warmup_epochs: Length of the warm-up in epochs, 0 or more.
        min_lr_factor: Floor as a share of the peak, in [0, 1].
        power: Exponent, above 0.
    """
    risen, left = left_after_warm_up(step, horizon, warmup_epochs)
    return float(risen * (min_lr_factor + (1.0 - min_lr_factor) * left**power))


COMPONENT = Component(
    "polynomial",
    "A linear warm-up, then a power of what is left of the run, down to the floor.",
    ScheduleShape(polynomial, polynomial_twin),
    options=(WARMUP_EPOCHS, MIN_LR_FACTOR, Option("power", float, 0.9, "exponent.", gt=0.0, order=50)),
    order=50,
)
