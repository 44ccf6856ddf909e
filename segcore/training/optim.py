"""Optimizers with their parameter groups, and learning-rate schedules in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from segcore.models.unet import SegmentationModel

if TYPE_CHECKING:
    from segcore.config import LRSchedulerConfig, OptimizerConfig

Factor = Callable[[int], float]
"""Maps the number of optimizer steps taken to the share of the peak learning rate for the next one."""

ONECYCLE_START_FACTOR = 1.0 / 25.0
"""Where `onecycle` starts, as a share of the peak."""


def _adamw(groups: list[dict[str, Any]], config: OptimizerConfig, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def _sgd(groups: list[dict[str, Any]], config: OptimizerConfig, fused: bool) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        fused=fused,
    )


def _nadam(groups: list[dict[str, Any]], config: OptimizerConfig, fused: bool) -> torch.optim.Optimizer:
    # NAdam has no fused form.
    return torch.optim.NAdam(groups, lr=config.lr, weight_decay=config.weight_decay, decoupled_weight_decay=True)


OPTIMIZERS: dict[str, Callable[[list[dict[str, Any]], OptimizerConfig, bool], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "sgd": _sgd,
    "nadam": _nadam,
}


def build_optimizer(model: SegmentationModel, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the optimizer of a config over up to four groups: encoder and decoder, with and without decay.

    Every group carries `name`: `encoder/decay`, `encoder/no_decay`, `decoder/decay`, `decoder/no_decay`; the
    segmentation head belongs to the decoder. Norms and biases (parameters of one dimension) are not decayed.
    `encoder_lr_factor` concerns timm encoders: it scales their learning rate, and 0 freezes them with
    `model.freeze_encoder()` and leaves them out. The plain encoder trains at `lr` whatever the factor.
    adamw and nadam decay weights apart from the gradient; sgd with momentum is Nesterov's, its decay is L2.

    The model must be on its device already: the fused kernels are chosen where all parameters allow them.

    References:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, arXiv:1711.05101;
        Dozat, "Incorporating Nesterov Momentum into Adam", 2016.
    """
    factor = config.encoder_lr_factor if model.has_timm_encoder else 1.0
    if factor == 0.0:
        model.freeze_encoder()
    encoder = list(model.encoder_parameters())
    in_encoder = {id(parameter) for parameter in encoder}
    decoder = [parameter for parameter in model.parameters() if id(parameter) not in in_encoder]
    groups: list[dict[str, Any]] = []
    for part, parameters, lr in (("encoder", encoder, config.lr * factor), ("decoder", decoder, config.lr)):
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for kind, members, weight_decay in (
            ("decay", [p for p in trained if p.ndim > 1], config.weight_decay),
            ("no_decay", [p for p in trained if p.ndim <= 1], 0.0),
        ):
            if members:
                groups.append({"name": f"{part}/{kind}", "params": members, "lr": lr, "weight_decay": weight_decay})
    return OPTIMIZERS[config.name](groups, config, _can_fuse(model))


@dataclass(frozen=True)
class Horizon:
    """How long a run is, in optimizer steps."""

    total_steps: int
    steps_per_epoch: int


def _constant(config: LRSchedulerConfig, horizon: Horizon) -> Factor:
    return lambda step: 1.0


def _cosine(config: LRSchedulerConfig, horizon: Horizon) -> Factor:
    def falling(progress: float) -> float:
        return config.min_lr_factor + (1.0 - config.min_lr_factor) * (1.0 + math.cos(math.pi * progress)) / 2.0

    return _warm_up_then(falling, config, horizon)


def _polynomial(config: LRSchedulerConfig, horizon: Horizon) -> Factor:
    def falling(progress: float) -> float:
        return config.min_lr_factor + (1.0 - config.min_lr_factor) * math.pow(1.0 - progress, config.power)

    return _warm_up_then(falling, config, horizon)


def _onecycle(config: LRSchedulerConfig, horizon: Horizon) -> Factor:
    peak = config.pct_start * horizon.total_steps

    def factor(step: int) -> float:
        if step < peak:
            return _cosine_between(ONECYCLE_START_FACTOR, 1.0, step / peak)
        return _cosine_between(1.0, config.min_lr_factor, (step - peak) / (horizon.total_steps - peak))

    return factor


LR_SCHEDULERS: dict[str, Callable[[LRSchedulerConfig, Horizon], Factor]] = {
    "constant": _constant,
    "plateau": _constant,  # within an epoch; `LRSchedule.end_epoch` does the rest
    "cosine": _cosine,
    "onecycle": _onecycle,
    "polynomial": _polynomial,
}


class LRSchedule:
    """Sets the learning rate of every group: its peak times one factor of the steps taken.

    With T steps in the run, W = warmup_epochs in steps (never above T) and m = min_lr_factor, step s = 0 .. T-1 runs at

    - constant: 1
    - cosine: (s + 1) / W while s < W, then m + (1 - m) (1 + cos(pi p)) / 2 with p = (s - W) / (T - W)
    - polynomial: the same warm-up, then m + (1 - m) (1 - p)^power
    - onecycle: a half cosine from 1/25 to 1 over the first pct_start T steps, then one down to m; momentum stays
    - plateau: 1, times `factor` after each run of more than `patience` epochs whose metric was no new best, never
      below m. A NaN metric is no new best.

    The first learning rate is set on construction.

    References:
        Loshchilov and Hutter, "SGDR", 2017, arXiv:1608.03983;
        Smith and Topin, "Super-Convergence", 2018, arXiv:1708.07120;
        Chen et al., "DeepLab", 2016, arXiv:1606.00915 (polynomial).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: LRSchedulerConfig, horizon: Horizon) -> None:
        self._optimizer = optimizer
        self._config = config
        self._horizon = horizon
        self._factor = LR_SCHEDULERS[config.name](config, horizon)
        for group in optimizer.param_groups:
            group.setdefault("peak_lr", float(group["lr"]))  # kept in the optimizer's state dict
        self._num_steps = 0
        self._plateau_factor = 1.0
        self._best_metric = -math.inf
        self._num_bad_epochs = 0
        self._apply()

    def step(self) -> None:
        """Go on to the next step's learning rate; call once after each optimizer step."""
        self._num_steps += 1
        self._apply()

    def end_epoch(self, metric: float) -> None:
        """Note an epoch's metric, larger being better; only plateau acts on it."""
        if self._config.name != "plateau":
            return
        if metric > self._best_metric:
            self._best_metric = metric
            self._num_bad_epochs = 0
            return
        self._num_bad_epochs += 1
        if self._num_bad_epochs > self._config.patience:
            self._plateau_factor = max(self._config.min_lr_factor, self._plateau_factor * self._config.factor)
            self._num_bad_epochs = 0
            self._apply()

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._horizon.total_steps

    def factor_at(self, step: int) -> float:
        """Share of the peak learning rate that a step runs at, before what plateau has done."""
        return self._factor(min(step, self._horizon.total_steps))

    @property
    def last_lr(self) -> dict[str, float]:
        """The learning rate now in force, by group name."""
        return {
            str(group.get("name", index)): float(group["lr"])
            for index, group in enumerate(self._optimizer.param_groups)
        }

    @property
    def lr(self) -> float:
        """The learning rate now in force for decoder and head."""
        return float(self._optimizer.param_groups[-1]["lr"])

    def state_dict(self) -> dict[str, int | float]:
        """Return the schedule's place as plain numbers; settings and peaks come from the config."""
        return {
            "steps_per_epoch": self._horizon.steps_per_epoch,
            "num_steps": self._num_steps,
            "plateau_factor": self._plateau_factor,
            "best_metric": self._best_metric,
            "num_bad_epochs": self._num_bad_epochs,
        }

    def load_state_dict(self, state: dict[str, int | float]) -> None:
        """Go to a saved place and set the learning rates that belong there.

        The place is an epoch, whatever its number of steps was; what plateau has seen concerns plateau alone.
        """
        own_steps = self._horizon.steps_per_epoch
        self._num_steps = round(state["num_steps"] * own_steps / state.get("steps_per_epoch", own_steps))
        if self._config.name != "plateau":
            self._apply()
            return
        self._plateau_factor = float(state["plateau_factor"])
        self._best_metric = float(state["best_metric"])
        self._num_bad_epochs = int(state["num_bad_epochs"])
        self._apply()

    def _apply(self) -> None:
        factor = self._plateau_factor * self.factor_at(self._num_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def build_lr_scheduler(
    optimizer: torch.optim.Optimizer, config: LRSchedulerConfig, epochs: int, steps_per_epoch: int
) -> LRSchedule:
    """Build the schedule of a config for a run of `epochs` epochs of `steps_per_epoch` optimizer steps.

    The groups' learning rates on the first call are the peaks; they are kept in the groups as `peak_lr`, so that
    an optimizer whose state was loaded already gives the same schedule.

    Raises:
        ValueError: `epochs` or `steps_per_epoch` is below 1.
    """
    if epochs < 1 or steps_per_epoch < 1:
        raise ValueError(f"epochs and steps_per_epoch must be at least 1, found {epochs} and {steps_per_epoch}")
    return LRSchedule(optimizer, config, Horizon(epochs * steps_per_epoch, steps_per_epoch))


def _warm_up_then(falling: Callable[[float], float], config: LRSchedulerConfig, horizon: Horizon) -> Factor:
    warmup_steps = min(horizon.total_steps, round(config.warmup_epochs * horizon.steps_per_epoch))

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return falling((step - warmup_steps) / max(1, horizon.total_steps - warmup_steps))

    return factor


def _cosine_between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * progress)) / 2.0


def _can_fuse(model: nn.Module) -> bool:
    return all(p.device.type in ("cuda", "cpu") and p.is_floating_point() for p in model.parameters())
