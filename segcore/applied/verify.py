"""The check that a run is what its config says: live objects are read back and compared before the first step.

`read_applied` describes what was built without looking at the config; `verify_applied` compares that with the config.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from segcore.applied.found import (
    Facts,
    read_augmentation,
    read_loop,
    read_loss,
    read_model,
    read_optimizer,
    read_schedule,
    read_steps,
    slack_of,
)
from segcore.applied.wanted import (
    ANYTHING,
    share_at,
    want_augmentation,
    want_loop,
    want_loss,
    want_model,
    want_optimizer,
    want_schedule,
    want_steps,
)
from segcore.errors import AppliedConfigError
from segcore.registries import SCHEDULES

if TYPE_CHECKING:
    import torch

    from segcore.config import AugmentConfig, OptimizerConfig, TrainConfig
    from segcore.data.loader import Loader
    from segcore.training.step import TrainStep

__all__ = ["compact", "read_applied", "verify_applied", "verify_epoch"]

CompileMode = bool | Literal["auto"]
_MEASURED = ("augment.probability", "augment.scale", "augment.rotate", "augment.color")
_MOST_TOLD = 4


def read_applied(
    step: TrainStep,
    train_loader: Loader,
    val_loader: Loader | None,
    hw: tuple[int, int],
    compile_mode: CompileMode,
) -> Facts:
    """Describe what a run is made of, as flat facts (see `Facts`).

    Args:
        step: The live training step with its model, loss, optimizer and schedule.
        train_loader: The loader of the training split.
        val_loader: The loader of the validation split; None reads nothing about it.
        hw: Height and width of the decoded images, in pixels.
        compile_mode: True, False or "auto", as `compile_mode` in `segcore.training.loop` returns it.
    """
    return {
        "data.image_size": list(hw),
        **read_model(step.model),
        **read_optimizer(step.optimizer, step.model),
        **read_schedule(step.lr_schedule, step.optimizer, len(train_loader)),
        **read_loss(step.loss_fn),
        **read_augmentation(step, train_loader),
        **read_loop(step, train_loader, val_loader),
        "train.compile": compile_mode,
    }


def verify_applied(
    config: TrainConfig,
    step: TrainStep,
    train_loader: Loader,
    val_loader: Loader,
    hw: tuple[int, int],
    compile_mode: CompileMode,
) -> Facts:
    """Read back what was built, compare it with what the config asks for, and return what was found.

    Args:
        config: What the run should be.
        step: The live training step with its model, loss, optimizer and schedule.
        train_loader: The loader of the training split.
        val_loader: The loader of the validation split.
        hw: Height and width of the decoded images, in pixels.
        compile_mode: True, False or "auto", as `compile_mode` in `segcore.training.loop` returns it.

    Raises:
        AppliedConfigError: Something differs; names the keys, what was wanted and what was found.
    """
    found = read_applied(step, train_loader, val_loader, hw, compile_mode)
    is_cuda, loop = step.device.type == "cuda", config.train
    count = len(train_loader.indices)
    steps_per_epoch = max(1, count // loop.batch_size)
    wanted = {
        "data.image_size": list(config.data.image_hw),
        **want_model(config.model, step.model),
        **want_optimizer(config.optimizer, step.model),
        **want_schedule(config.lr_scheduler, loop.epochs, steps_per_epoch, step.lr_schedule.state_dict()),
        **want_loss(config.loss),
        **want_augmentation(config.augment, loop.augment_on, is_cuda),
        **want_loop(config, step.model, step.device),
        "train.compile": loop.compile is True or (is_cuda and not loop.deterministic and loop.compile),
    }
    wrong = [
        f"{key}: the config asks for {_shown(wanted.get(key))}, what was built has {_shown(found.get(key))}"
        for key in dict.fromkeys((*wanted, *found))
        if not _agree(key, wanted.get(key), found.get(key), config.augment)
    ]
    wrong = wrong or list(_wrong_steps(config.optimizer, step.optimizer))
    if wrong:
        more = f"; and {len(wrong) - _MOST_TOLD} more" if len(wrong) > _MOST_TOLD else ""
        raise AppliedConfigError("; ".join(wrong[:_MOST_TOLD]) + more)
    return found


def compact(found: Facts) -> Facts:
    """The facts as they are stored: without None, floats rounded to six significant digits."""

    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(item) for item in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    return {key: short(value) for key, value in found.items() if value is not None}


def verify_epoch(config: TrainConfig, metrics: dict[str, float], num_steps: int, steps_per_epoch: int) -> None:
    """Compare what an epoch reports with the config: the threshold used for scoring, and the learning rate.

    Args:
        config: The run's config.
        metrics: The epoch's metrics, taken before a plateau schedule acted on them.
        num_steps: Optimizer steps taken so far: completed epochs times `steps_per_epoch`.
        steps_per_epoch: Optimizer steps per epoch, at least 1.

    Raises:
        AppliedConfigError: Something differs.
    """
    wanted = metrics["val/threshold_auto"] if config.threshold == "auto" else config.threshold
    if metrics["val/threshold"] != wanted:
        raise AppliedConfigError(
            f"threshold: the config asks for {config.threshold}, which is {_shown(wanted)} here, "
            f"and the epoch was scored at {_shown(metrics['val/threshold'])}"
        )
    if SCHEDULES[config.lr_scheduler.name].build.judge is not None:
        return  # its learning rate depends on the validation metric
    share = share_at(config.lr_scheduler, num_steps, config.train.epochs * steps_per_epoch, steps_per_epoch)
    if not _close(metrics["lr"], config.optimizer.lr * share):
        raise AppliedConfigError(
            f"lr_scheduler: after {num_steps} steps the config asks for a learning rate of "
            f"{_shown(config.optimizer.lr * share)}, and {_shown(metrics['lr'])} is in force"
        )


def _wrong_steps(config: OptimizerConfig, optimizer: torch.optim.Optimizer) -> Iterator[str]:
    """Yield how an optimizer's steps differ from its twin's although its class and settings match the config."""
    for index, group in enumerate(optimizer.param_groups):
        wanted, found = want_steps(config, group["weight_decay"]), read_steps(optimizer, group)
        if not all(map(_close, wanted, found)):
            name = group.get("name", index)
            yield (
                f"optimizer, three steps of {name}: the config asks for {_shown(wanted)}, "
                f"what was built takes {_shown(found)}"
            )


def _agree(key: str, wanted: Any, found: Any, augment: AugmentConfig) -> bool:
    if wanted == ANYTHING:
        return found is not None
    if key in _MEASURED and isinstance(wanted, float) and isinstance(found, float) and augment.probability > 0:
        spread, unseen = slack_of(augment.probability)
        if key == "augment.probability":
            return abs(found - wanted) <= spread
        return wanted * (1.0 - unseen) - 1e-6 <= found <= wanted * (1.0 + 1e-6) + 1e-6
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(_close, wanted, found))
    return _close(wanted, found)


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool) or not (_is_number(a) and _is_number(b)):
        return bool(a == b)
    return math.isclose(a, b, rel_tol=2e-5, abs_tol=1e-12) or a == b


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return "nothing" if value is None else str(value)
