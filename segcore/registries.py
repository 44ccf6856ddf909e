"""The kinds of components that a training config chooses by name, and the registry of each.

A kind says what a component of it consists of. The components are the `COMPONENT` of each module in the package that
the registry names. The config's types are derived from the registries, so this module must not import the config, nor
the packages that fill the registries. Each callable below takes the component's own options as keyword arguments.

A twin is an independent implementation of the same formula, in numpy and from the docstring. The check that a run is
what its config says compares what was built with the twins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcore.component import Registry

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LossTerm:
    """One term of the loss mix; `loss.<name>` is its weight.

    Attributes:
        loss: From logits and targets `(N, C, H, W) float32` and its options to a scalar.
        twin: The same from logits and targets `(N, H, W) float64` of one class.
        default_weight: Its weight where the config does not set it; 0 leaves it out.
    """

    loss: Callable[..., torch.Tensor]
    twin: Callable[..., float]
    default_weight: float = 0.0


@dataclass(frozen=True)
class OptimizerRule:
    """An optimizer.

    Attributes:
        build: From parameter groups, `lr`, `weight_decay`, `can_fuse` (whether all parameters allow fused kernels) and
            its options to the optimizer.
        twin: From weights `(P,) float64`, the gradients of some steps, `lr`, `weight_decay` and its options to the
            weights after these steps.
        class_name: Name of the class that `build` returns.
        momentum: From its options to the expected momentum of a parameter group: `[0.9, "nesterov"]`, or the betas.
        num_states: From its options to the number of float32 values it keeps per parameter.
    """

    build: Callable[..., torch.optim.Optimizer]
    twin: Callable[..., Floats]
    class_name: str
    momentum: Callable[..., Sequence[float | str]]
    num_states: Callable[..., int]


@dataclass(frozen=True)
class Horizon:
    """How long a run is, in optimizer steps."""

    total_steps: int
    steps_per_epoch: int


@dataclass(frozen=True)
class Waiting:
    """The state of a schedule that follows the metric.

    Attributes:
        factor: Multiplies the schedule's learning rate, in [0, 1].
        best_metric: The best metric so far, larger is better.
        num_bad_epochs: Epochs since the best one, or since the factor was last reduced.
    """

    factor: float = 1.0
    best_metric: float = float("-inf")
    num_bad_epochs: int = 0


@dataclass(frozen=True)
class ScheduleShape:
    """A learning-rate schedule: a share of the peak for each optimizer step.

    Attributes:
        factor: From the horizon and its options to a function from steps taken to the share of the next step.
        twin: From the steps taken, the horizon and its options to that share.
        judge: From `Waiting`, an epoch's metric (larger is better) and its options to the next `Waiting`, for a
            schedule that follows the metric; None for the others.
        judge_twin: From its options to the expected behaviour of `judge`: tolerated epochs without a new best, the
            share of the peak after the first reduction, and the smallest share.
    """

    factor: Callable[..., Callable[[int], float]]
    twin: Callable[..., float]
    judge: Callable[..., Waiting] | None = None
    judge_twin: Callable[..., tuple[int, float, float]] | None = None


@dataclass(frozen=True)
class Architecture:
    """A model.

    Attributes:
        build: From the model section, whether to load pretrained weights, and its options to the model, a
            `segcore.models.unet.SegmentationModel`.
        want: From the model section, the live model and its options to the expected facts, under the keys of
            `segcore.applied.found.read_model`, without those that all models share.
    """

    build: Callable[..., Any]
    want: Callable[..., Mapping[str, Any]]


@dataclass(frozen=True)
class Layout:
    """A layout of images and masks on disk.

    Attributes:
        short: What it looks like, in a few words, for the config's help.
        form: What it looks for, for the message that nothing was found; `{option}` stands for an option's value.
        detect: From `data.root`, an existing folder (or a file, with `file_of`), and its options to whether the data
            has this layout.
        pair: From the root, the `Problems` to add to and its options to the pairs.
        file_of: From `data.root` to the file that lists the pairs; None for a layout of folders.
    """

    short: str
    form: str
    detect: Callable[..., bool]
    pair: Callable[..., list[Any]]
    file_of: Callable[[Path], Path] | None = None


LOSSES: Registry[LossTerm] = Registry.of_package("loss", "loss", "segcore.losses.terms")
OPTIMIZERS: Registry[OptimizerRule] = Registry.of_package("optimizer", "optimizer.name", "segcore.training.optimizers")
ARCHITECTURES: Registry[Architecture] = Registry.of_package(
    "architecture", "model.arch", "segcore.models.architectures"
)
LAYOUTS: Registry[Layout] = Registry.of_package("data layout", "data.layout", "segcore.data.pairs.layouts")
SCHEDULES: Registry[ScheduleShape] = Registry.of_package("schedule", "lr_scheduler.name", "segcore.training.schedules")
