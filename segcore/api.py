"""What `import segcore` offers to scripts and notebooks: one training run, without a run folder and without Ray.

Layer 5.
"""

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch

from segcore.config import TrainConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import open_cache
from segcore.errors import ConfigError
from segcore.models.build import build_model
from segcore.sealed.card import Card, Threshold
from segcore.sealed.model import Model
from segcore.sealed.predictor import Predictor
from segcore.task import task_of
from segcore.training.device import choose_device
from segcore.training.loop import fit as training

log = logging.getLogger("segsearch")


@dataclass(frozen=True)
class Epoch:
    """One epoch of a training.

    Attributes:
        number: From 1.
        metrics: `train/loss`, `lr`, `val/iou`, `val/dice`, `val/threshold` and more, by key.
        is_best: Whether it was better than all earlier epochs.
    """

    number: int
    metrics: Mapping[str, float]
    is_best: bool


@dataclass(frozen=True)
class Fitted:
    """What `fit` returns.

    Attributes:
        model: The model with the weights and the threshold of the best epoch.
        epochs: All epochs, in order.
    """

    model: Model
    epochs: tuple[Epoch, ...]

    @property
    def best(self) -> Epoch:
        """The epoch whose weights the model has."""
        return next(epoch for epoch in reversed(self.epochs) if epoch.is_best)


def fit(
    config: TrainConfig | Mapping[str, Any],
    data: str | os.PathLike[str] | None = None,
    *,
    metric: str = "val/iou",
    device: torch.device | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Fitted:
    """Train one model; print nothing and write no file except the cache of decoded images.

    Args:
        config: A `TrainConfig`, or its sections as a mapping, e.g. `{"train": {"epochs": 5}}`.
        data: Folder of the images and masks; None takes `data.root` of the config.
        metric: The key that decides which epoch is the best.
        device: The device to train on; by default the GPU when there is one.
        on_epoch: Called after each epoch; an exception that it raises ends the training.

    Raises:
        ConfigError: A value is not valid; the message names its key.
        DataError: The data cannot be used; the message lists everything that is wrong.
        TrainingError: The loss became NaN or infinite.
    """
    config = _checked(config)
    if data is not None:
        root = {"root": os.fspath(data)}
        config = config.model_copy(update={"data": config.data.model_copy(update=root)})
    device = device or choose_device()
    index = discover(config.data)
    cache_path = build_cache(index, config.data)
    epochs: list[Epoch] = []
    best = None
    cuda = [device] if device.type == "cuda" else []
    with open_cache(cache_path) as cache, torch.random.fork_rng(devices=cuda):
        for warning in (*index.warnings, *cache.warnings):
            log.warning("data: %s", warning)
        num_cpus = len(os.sched_getaffinity(0))
        with closing(training(config, cache, metric=metric, num_cpus=num_cpus, device=device)) as results:
            for result in results:
                epochs.append(Epoch(result.epoch, dict(result.metrics), result.is_best))
                best = result.state.best
                if on_epoch is not None:
                    on_epoch(epochs[-1])
        hw = cache.hw
        network = build_model(config.model, load_pretrained=False)
    assert best is not None, "a config has at least one epoch"
    network.load_state_dict(best.weights)
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    threshold = best.metrics["val/threshold"]
    card = Card().but(threshold=Threshold(value=threshold, chosen_by="val" if config.threshold == "auto" else "config"))
    return Fitted(Model(Predictor(network, task_of(config), hw, device), threshold, config, card), tuple(epochs))


def _checked(config: TrainConfig | Mapping[str, Any]) -> TrainConfig:
    if isinstance(config, TrainConfig):
        return config
    try:
        return TrainConfig.model_validate(config)
    except ValueError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in getattr(error, "errors", list)()
        ]
        raise ConfigError("\n".join(problems) or str(error)) from error
