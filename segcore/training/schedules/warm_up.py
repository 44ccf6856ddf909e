"""The linear warm-up that some schedules begin with."""

from collections.abc import Callable

from segcore.registries import Horizon


def warm_up_then(falling: Callable[[float], float], horizon: Horizon, warmup_epochs: float) -> Callable[[int], float]:
    """Rise to 1 in equal steps, then fall; return a function from steps taken to the share of the peak.

    Args:
        falling: From progress after the warm-up, in [0, 1], to the share of the peak.
        horizon: Length of the run.
        warmup_epochs: Length of the warm-up in epochs, 0 or more; cut off at the end of the run.
    """
    warmup_steps = min(horizon.total_steps, round(warmup_epochs * horizon.steps_per_epoch))

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return falling((step - warmup_steps) / max(1, horizon.total_steps - warmup_steps))

    return factor


def left_after_warm_up(step: int, horizon: Horizon, warmup_epochs: float) -> tuple[float, float]:
    """For twins: the completed share of the warm-up, and the remaining share of the fall, each 1 outside its phase.

    Args:
        step: Optimizer steps taken, in [0, total_steps].
        horizon: Length of the run.
        warmup_epochs: Length of the warm-up in epochs, 0 or more.
    """
    warm_up = min(horizon.total_steps, round(warmup_epochs * horizon.steps_per_epoch))
    if step < warm_up:
        return (step + 1) / warm_up, 1.0
    return 1.0, 1.0 - (step - warm_up) / max(1, horizon.total_steps - warm_up)
