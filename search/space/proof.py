"""The proof that every searched key changes something: what is built with one value is compared with another's.

`search.space.effects` knows from a table which settings make training ignore a key, and refuses such a space when it is
read. Here nothing is assumed: for each key, the objects of a run are built for two points that differ in that key
alone, on torch's meta device, which costs no memory and no data, and read back as in a trial. Where no pair differs,
the key does nothing, whatever the reason.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from search.space.domains import (
    Choice,
    Fixed,
    Node,
    Range,
    same_value,
)
from search.space.parse import apply
from search.space.tree import Space, all_nodes
from segcore.config import ModelConfig, TrainConfig
from segcore.errors import ConfigError
from segcore.params import Params

if TYPE_CHECKING:
    from segcore.applied.found import Facts
    from segcore.data.pixels.cache_file import SampleCache

NUM_POINTS = 200
_TRIES = 3
_NUM_SAMPLES = 4096
_UNSEEN = ("model.encoder_weights",)
"""Keys whose effect lies in numbers that are not built here: weights are read only by the run itself."""
_SMALL_MODEL = {"arch": "unet", "encoder": "none", "encoder_weights": "none", "base_channels": 1, "depth": 1,
                "decoder_channels": None}  # fmt: skip


def require_effects(space: Space, base: TrainConfig) -> None:
    """Refuses a space with a key that changes nothing.

    Raises:
        ConfigError: Names every such key.
    """
    idle = list(idle_keys(space, base))
    if idle:
        raise ConfigError(
            "\n".join(
                f"space.{key}: changes nothing in what a trial trains with ({values} give the same); take it out"
                for key, values in idle
            )
        )


def idle_keys(space: Space, base: TrainConfig) -> Iterator[tuple[str, str]]:
    """`(key, the values that were tried)` of each searched key for which no two values differ in what is built."""
    rng = np.random.default_rng(0)
    points = [space.sample_uniform(rng) for _ in range(NUM_POINTS)]
    known: dict[str, Facts] = {}
    names = dict.fromkeys(node.name for node, _ in all_nodes(space.nodes) if isinstance(node.domain, Range | Choice))
    for name in names:
        nodes = [node for node, _ in all_nodes(space.nodes) if node.name == name]
        tried = set()
        for node in nodes:
            if node.key in _UNSEEN:
                break
            pairs = itertools.islice(_pairs(node, points, base), _TRIES)
            found = False
            for one, other, values in pairs:
                tried.add(values)
                if _described(one, node.key, known) != _described(other, node.key, known):
                    found = True
                    break
            if found:
                break
        else:
            if tried:
                yield nodes[0].key, "; ".join(sorted(tried))


def _pairs(node: Node, points: list[Params], base: TrainConfig) -> Iterator[tuple[TrainConfig, TrainConfig, str]]:
    """Two configs that differ in one key alone, for points in which that key is set; invalid ones are skipped."""
    domain = node.domain
    for point in points:
        if isinstance(domain, Fixed) or node.key not in point or not domain.holds(point[node.key]):
            continue
        for value in _values(node):
            if same_value(value, point[node.key]):
                continue
            try:
                one, other = apply(base, point), apply(base, {**point, node.key: value})
            except ConfigError:
                continue
            yield one, other, f"{point[node.key]} and {value}"


def _values(node: Node) -> list[Any]:
    domain = node.domain
    if isinstance(domain, Choice):
        return [option.value for option in domain.options]
    return [domain.low, domain.high] if isinstance(domain, Range) else []


def _described(config: TrainConfig, key: str, known: dict[str, Facts]) -> Facts:
    """What a run of a config would be made of; with a small model where the key does not concern the model."""
    if not key.startswith("model.") and key != "optimizer.encoder_lr_factor":
        small = ModelConfig.model_validate({**config.model.model_dump(), **_SMALL_MODEL})
        config = config.model_copy(update={"model": small})
    text = config.model_dump_json()
    if text not in known:
        known[text] = describe(config)
    return known[text]


def describe(config: TrainConfig) -> Facts:
    """The facts of `segcore.applied.verify` of a config, built on the meta device, for samples that are not there."""
    import torch

    from segcore.applied.verify import read_applied
    from segcore.scores.threshold_curve import ThresholdCurve
    from segcore.training.evaluation import Evaluation, score
    from segcore.training.loop import build_train_loader, compile_mode
    from segcore.training.step import build_step

    device, cache = torch.device("meta"), _no_samples(config)
    loader = build_train_loader(config, cache, 1, device)
    with torch.random.fork_rng(devices=[]):
        try:
            with device:
                step = build_step(config, device, steps_per_epoch=len(loader), load_pretrained=False)
        except (NotImplementedError, RuntimeError):  # some encoders look at values while they are built
            step = build_step(config, torch.device("cpu"), steps_per_epoch=len(loader), load_pretrained=False)
        found = read_applied(step, loader, None, config.data.image_hw, compile_mode(config.train, _own_device()))
    curve = ThresholdCurve(thresholds=() if config.threshold == "auto" else (config.threshold,))
    curve.update(torch.linspace(0, 1, 64).reshape(1, 1, 8, 8), torch.ones(1, 1, 8, 8))
    return {**found, "threshold": score(Evaluation(0.0, curve.compute()), config.threshold)["val/threshold"]}


def _own_device() -> Any:
    from segcore.training.device import choose_device

    return choose_device()


class _NoSamples:
    """The part of a cache that building a loader needs."""

    def __init__(self, config: TrainConfig) -> None:
        self.hw = config.data.image_hw

    def indices(self, split: str) -> list[int]:
        """The indices of samples that are never read."""
        return list(range(_NUM_SAMPLES))


def _no_samples(config: TrainConfig) -> SampleCache:
    return _NoSamples(config)  # type: ignore[return-value]
