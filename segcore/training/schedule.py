"""The learning rate of a training run: follows the schedule, and saves and restores its position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from segcore.registries import SCHEDULES, Horizon, Waiting

if TYPE_CHECKING:
    from segcore.config import LRSchedulerConfig


class LRSchedule:
    """Sets the learning rate of every group: its peak times a factor that depends on the steps taken.

    The factor is that of the config's schedule, in closed form. A schedule that follows the metric has a second factor,
    which changes at the end of an epoch. The first learning rate is set on construction.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: LRSchedulerConfig, horizon: Horizon) -> None:
        chosen = SCHEDULES[config.name]
        self._optimizer = optimizer
        self._horizon = horizon
        self._settings = chosen.arguments(config)
        self._factor = chosen.build.factor(horizon, **self._settings)
        self._judge = chosen.build.judge
        for group in optimizer.param_groups:
            group.setdefault("peak_lr", float(group["lr"]))  # kept in the optimizer's state dict
        self._num_steps = 0
        self._waiting = Waiting()
        self._apply()

    def step(self) -> None:
        """Set the next step's learning rate; call once after each optimizer step."""
        self._num_steps += 1
        self._apply()

    def end_epoch(self, metric: float) -> None:
        """Record an epoch's metric (larger is better); only a schedule that follows the metric acts on it."""
        if self._judge is None:
            return
        before, self._waiting = self._waiting, self._judge(self._waiting, metric, **self._settings)
        if self._waiting.factor != before.factor:
            self._apply()

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._horizon.total_steps

    def factor_at(self, step: int) -> float:
        """Share of the peak learning rate that a step runs at, without the factor that follows the metric."""
        return self._factor(min(step, self._horizon.total_steps))

    @property
    def last_lr(self) -> dict[str, float]:
        """The current learning rate, by group name."""
        return {
            str(group.get("name", index)): float(group["lr"])
            for index, group in enumerate(self._optimizer.param_groups)
        }

    @property
    def lr(self) -> float:
        """The current learning rate of decoder and head."""
        return float(self._optimizer.param_groups[-1]["lr"])

    def state_dict(self) -> dict[str, int | float]:
        """Return the schedule's position as plain numbers; settings and peaks come from the config."""
        return {
            "steps_per_epoch": self._horizon.steps_per_epoch,
            "num_steps": self._num_steps,
            "plateau_factor": self._waiting.factor,
            "best_metric": self._waiting.best_metric,
            "num_bad_epochs": self._waiting.num_bad_epochs,
        }

    def load_state_dict(self, state: dict[str, int | float]) -> None:
        """Restore a saved position and set the learning rates that belong to it.

        The position counts in epochs, so a saved state with other steps per epoch is rescaled. The state that follows
        the metric is restored only where this schedule follows the metric.
        """
        own_steps = self._horizon.steps_per_epoch
        self._num_steps = round(state["num_steps"] * own_steps / state.get("steps_per_epoch", own_steps))
        if self._judge is not None:
            self._waiting = Waiting(
                float(state["plateau_factor"]), float(state["best_metric"]), int(state["num_bad_epochs"])
            )
        self._apply()

    def _apply(self) -> None:
        factor = self._waiting.factor * self.factor_at(self._num_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def build_lr_scheduler(
    optimizer: torch.optim.Optimizer, config: LRSchedulerConfig, epochs: int, steps_per_epoch: int
) -> LRSchedule:
    """Build the schedule of a config for a run of `epochs` epochs of `steps_per_epoch` optimizer steps.

    The groups' learning rates on the first call are the peaks; they are kept in the groups as `peak_lr`, so that
    an optimizer whose state was already loaded gives the same schedule.

    Args:
        optimizer: The optimizer whose learning rates are set.
        config: Which schedule, and its options.
        epochs: Epochs of the run, at least 1.
        steps_per_epoch: Optimizer steps per epoch, at least 1.

    Raises:
        ValueError: `epochs` or `steps_per_epoch` is below 1.
    """
    if epochs < 1 or steps_per_epoch < 1:
        raise ValueError(f"epochs and steps_per_epoch must be at least 1, found {epochs} and {steps_per_epoch}")
    return LRSchedule(optimizer, config, Horizon(epochs * steps_per_epoch, steps_per_epoch))
