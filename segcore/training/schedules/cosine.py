"""Half a cosine."""

import math
from collections.abc import Callable

from segcore.component import Component
from segcore.registries import Horizon, ScheduleShape
from segcore.training.schedules.options import MIN_LR_FACTOR, WARMUP_EPOCHS
from segcore.training.schedules.warm_up import left_after_warm_up, warm_up_then


def cosine(horizon: Horizon, *, warmup_epochs: float, min_lr_factor: float) -> Callable[[int], float]:
    """A linear warm-up, then half a cosine from 1 down to the floor.

    With T steps in the run, W = warmup_epochs in steps and m = min_lr_factor, step s runs at (s + 1) / W while s < W,
    then at m + (1 - m) (1 + cos(pi p)) / 2 with p = (s - W) / (T - W).

    Args:
        horizon: Length of the run.
        warmup_epochs: Length of the warm-up in epochs, 0 or more.
        min_lr_factor: Floor as a share of the peak, in [0, 1].

    References:
        Loshchilov and Hutter, "SGDR", 2017, arXiv:1608.03983.
    """

    def falling(progress: float) -> float:
        return min_lr_factor + (1.0 - min_lr_factor) * (1.0 + math.cos(math.pi * progress)) / 2.0

    return warm_up_then(falling, horizon, warmup_epochs)


def cosine_twin(step: int, horizon: Horizon, *, warmup_epochs: float, min_lr_factor: float) -> float:
    """Independent implementation of `cosine`, with the half-angle sine.

    Args:
        step: Optimizer steps taken, in [0, total_steps].
        horizon: Length of the run.
        warmup_epochs: Length of the warm-up in epochs, 0 or more.
        min_lr_factor: Floor as a share of the peak, in [0, 1].
    """
    risen, left = left_after_warm_up(step, horizon, warmup_epochs)
    return risen * (min_lr_factor + (1.0 - min_lr_factor) * math.sin(math.pi * left / 2.0) ** 2)


COMPONENT = Component(
    "cosine",
    "A linear warm-up, then half a cosine down to the floor.",
    ScheduleShape(cosine, cosine_twin),
    options=(WARMUP_EPOCHS, MIN_LR_FACTOR),
    order=30,
)
