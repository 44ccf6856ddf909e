"""The plateau schedule, which follows the metric."""

from dataclasses import replace

from segcore.component import Component, Option
from segcore.registries import ScheduleShape, Waiting
from segcore.training.schedules.constant import constant, constant_twin
from segcore.training.schedules.options import MIN_LR_FACTOR


def judge(waiting: Waiting, metric: float, *, patience: int, factor: float, min_lr_factor: float) -> Waiting:
    """Multiply the learning rate by `factor` after more than `patience` epochs without a new best.

    Args:
        waiting: The state before this epoch.
        metric: The epoch's metric, larger is better; NaN is never a new best.
        patience: Tolerated epochs without a new best, 0 or more.
        factor: Multiplies the learning rate, in (0, 1).
        min_lr_factor: Floor as a share of the peak, in [0, 1].
    """
    if metric > waiting.best_metric:
        return replace(waiting, best_metric=metric, num_bad_epochs=0)
    if waiting.num_bad_epochs < patience:
        return replace(waiting, num_bad_epochs=waiting.num_bad_epochs + 1)
    return replace(waiting, factor=max(min_lr_factor, waiting.factor * factor), num_bad_epochs=0)


def judge_twin(*, patience: int, factor: float, min_lr_factor: float) -> tuple[int, float, float]:
    """What `judge` is expected to do: its patience, the first reduced share of the peak, and the smallest share.

    Args:
        patience: Tolerated epochs without a new best, 0 or more.
        factor: Multiplies the learning rate, in (0, 1).
        min_lr_factor: Floor as a share of the peak, in [0, 1].
    """
    return patience, max(min_lr_factor, factor), min_lr_factor


COMPONENT = Component(
    "plateau",
    "The peak, times `factor` after each run of more than `patience` epochs without a new best.",
    ScheduleShape(
        lambda horizon, **_: constant(horizon),
        lambda step, horizon, **_: constant_twin(step, horizon),
        judge,
        judge_twin,
    ),
    options=(
        Option("patience", int, 2, "epochs without improvement.", ge=0, order=10),
        Option("factor", float, 0.1, "multiplies lr.", gt=0.0, lt=1.0, order=10),
        MIN_LR_FACTOR,
    ),
    order=20,
)
