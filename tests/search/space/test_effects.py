# ruff: noqa: E501
"""Searched keys that do nothing: what is refused, and the table held against the builders that read the keys."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from search.space.effects import IGNORED_BY, idle_nodes, ignored_keys
from search.space.parse import apply, parse_space
from search.space.tree import flatten
from segcore.config import (
    AugmentConfig,
    LossConfig,
    LRSchedulerConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from segcore.data.augment.policy import build_augmentation
from segcore.errors import ConfigError
from segcore.losses.mix import build_loss
from segcore.models.build import build_model
from segcore.registries import OPTIMIZERS, SCHEDULES
from segcore.training.groups import build_optimizer
from segcore.training.schedule import build_lr_scheduler

BASE = TrainConfig()


def rates(config: LRSchedulerConfig) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = build_lr_scheduler(optimizer, config, epochs=20, steps_per_epoch=4)
    found = []
    for _ in range(20):
        for _ in range(4):
            found.append(schedule.lr)
            schedule.step()
        schedule.end_epoch(0.5)  # never better: plateau acts
    return found


def steps(config: OptimizerConfig, model: nn.Module) -> list[torch.Tensor]:
    model = copy.deepcopy(model)
    optimizer = build_optimizer(model, config)  # type: ignore[arg-type]
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def ignored(build: Callable[[Any], Any], one: Any, other: Any) -> bool:
    found, again = build(one), build(other)
    if isinstance(found, list) and found and isinstance(found[0], torch.Tensor):
        return all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    return bool(found == again)


def in_table(selector: str, value: Any, section: str) -> set[str]:
    keys = IGNORED_BY[selector].get(value, ())
    return {key.partition(".")[2] for key in keys if key.startswith(f"{section}.")}


@pytest.mark.parametrize("name", SCHEDULES.names)
def test_the_table_says_what_each_schedule_ignores(name: str) -> None:
    others = {
        "patience": 5, "factor": 0.7, "warmup_epochs": 4.0, "min_lr_factor": 0.3, "pct_start": 0.6, "power": 2.0,
    }  # fmt: skip
    assert set(others) == set(LRSchedulerConfig.model_fields) - {"name"}
    own = LRSchedulerConfig(name=name)  # type: ignore[arg-type]
    found = {key for key, value in others.items() if ignored(rates, own, own.model_copy(update={key: value}))}
    assert found == in_table("lr_scheduler.name", name, "lr_scheduler")


@pytest.mark.parametrize("name", OPTIMIZERS.names)
def test_the_table_says_what_each_optimizer_ignores(name: str) -> None:
    model = build_model(ModelConfig(base_channels=4, depth=1))
    others = {"lr": 0.1, "weight_decay": 0.5, "momentum": 0.1, "encoder_lr_factor": 0.5}
    assert set(others) == set(OptimizerConfig.model_fields) - {"name"}
    own = OptimizerConfig(name=name)  # type: ignore[arg-type]
    found = {
        key
        for key, value in others.items()
        if ignored(lambda config: steps(config, model), own, own.model_copy(update={key: value}))
    }
    assert found == in_table("optimizer.name", name, "optimizer") | in_table("model.encoder", "none", "optimizer")


@pytest.mark.parametrize("policy", ["none", "flip", "light", "medium", "heavy"])
def test_the_table_says_what_each_policy_ignores(policy: str) -> None:
    others = {"probability": 0.9, "vertical_flip": True, "scale": 0.7, "rotate": 90.0, "color": 0.7}
    assert set(others) == set(AugmentConfig.model_fields) - {"policy"}
    own = AugmentConfig(policy=policy)  # type: ignore[arg-type]
    found = {
        key
        for key, value in others.items()
        if ignored(lambda c: build_augmentation(c).describe(), own, own.model_copy(update={key: value}))
    }
    assert found == in_table("augment.policy", policy, "augment")


@pytest.mark.parametrize("term", ["bce", "focal", "tversky"])
def test_a_loss_term_of_weight_zero_ignores_its_own_settings(term: str) -> None:
    logits = torch.linspace(-3, 3, 32).reshape(2, 1, 4, 4)
    target = (torch.arange(32).reshape(2, 1, 4, 4) % 3 == 0).float()
    others = {"bce_pos_weight": 3.0, "focal_gamma": 0.5, "focal_alpha": 0.9, "tversky_alpha": 0.9, "tversky_beta": 0.1}
    with_it = LossConfig(bce=1.0, dice=1.0, focal=1.0, tversky=1.0)
    without = with_it.model_copy(update={term: 0.0})
    found = {
        weight: {
            key
            for key, value in others.items()
            if ignored(lambda c: float(build_loss(c)(logits, target)), own, own.model_copy(update={key: value}))
        }
        for weight, own in ((1.0, with_it), (0.0, without))
    }
    assert found == {1.0: set(), 0.0: in_table(f"loss.{term}", 0.0, "loss")}


def test_an_encoder_of_timms_ignores_the_plain_encoders_size() -> None:
    def shapes(config: ModelConfig) -> list[tuple[int, ...]]:
        return [tuple(parameter.shape) for parameter in build_model(config).parameters()]

    others = {"base_channels": 16, "depth": 2}
    for encoder, row in (("none", "none"), ("timm:resnet10t", "timm")):
        own = ModelConfig(encoder=encoder, base_channels=8, depth=3)
        found = {key for key, value in others.items() if ignored(shapes, own, own.model_copy(update={key: value}))}
        assert found == in_table("model.encoder", row, "model")


TIMM = {"model.encoder": "timm:resnet18"}
IDLE: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"lr_scheduler": {"choice": {"plateau": {}, "cosine": {"patience": {"int": [1, 5]}}}}},
     "space.lr_scheduler.choice.cosine.patience: has no effect, as lr_scheduler.name is cosine wherever it is set"),
    ({}, {"lr_scheduler": {"choice": {"cosine": {"patience": 3}}}}, "space.lr_scheduler.choice.cosine.patience: has no"),
    ({}, {"lr_scheduler.patience": {"int": [1, 5]}}, "space.lr_scheduler.patience: has no effect, as lr_scheduler.name is cosine"),
    ({}, {"lr_scheduler.patience": {"int": [1, 5]}, "lr_scheduler": {"choice": ["cosine", "onecycle"]}},
     "lr_scheduler.name is cosine or onecycle wherever"),
    ({}, {"optimizer.momentum": {"uniform": [0, 0.9]}}, "as optimizer.name is adamw"),
    ({}, {"optimizer.encoder_lr_factor": {"uniform": [0, 1]}}, "as model.encoder is none"),
    (TIMM, {"model.depth": {"int": [2, 4]}}, "space.model.depth: has no effect, as model.encoder is timm:resnet18"),
    ({}, {"augment": {"choice": {"flip": {"scale": {"uniform": [0, 0.4]}}, "light": {}}}}, "as augment.policy is flip"),
    ({}, {"loss.focal_gamma": {"uniform": [1, 3]}}, "space.loss.focal_gamma: has no effect, as loss.focal is 0.0"),
    ({}, {"model.arch": {"choice": {"unet": {"optimizer": {"choice": {"sgd": {"lr_scheduler": {"choice": {"onecycle": {"power": 2}}}}}}}}}},
     "as lr_scheduler.name is onecycle"),
    ({}, {"optimizer": {"choice": {"sgd": {"lr_scheduler.name": "plateau"}, "adamw": {"lr_scheduler.patience": {"int": [1, 3]}}}}},
     "space.optimizer.choice.adamw.lr_scheduler.patience: has no effect, as lr_scheduler.name is cosine"),
]  # fmt: skip


@pytest.mark.parametrize(("own", "raw", "message"), IDLE)
def test_a_key_that_can_never_have_an_effect_is_refused(own: dict[str, Any], raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match="has no effect") as caught:
        parse_space(raw, apply(BASE, own))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        {"lr_scheduler": {"choice": {"plateau": {"patience": {"int": [1, 5]}}}}},
        {"lr_scheduler": {"choice": {"plateau": {"optimizer": {"choice": {"sgd": {"momentum": 0.5}}}}}}},
        {"loss.focal": {"uniform": [0, 1]}, "loss.focal_gamma": {"uniform": [1, 3]}},
        {"optimizer": {"choice": {"sgd": {"lr_scheduler.name": "plateau", "lr_scheduler.patience": {"int": [1, 3]}}}}},
    ],
)
def test_a_key_that_always_has_an_effect_is_not(raw: dict[str, Any]) -> None:
    assert idle_nodes(parse_space(raw, BASE).nodes, BASE) == []


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"optimizer": {"choice": ["adamw", "sgd"]}, "optimizer.momentum": {"uniform": [0, 0.9]}}, "optimizer.name = adamw"),
        ({"loss.focal": {"choice": [0, 1]}, "loss.focal_gamma": {"uniform": [1, 3]}}, "loss.focal = 0.0"),
        (
            {"augment": {"choice": {"flip": {"lr_scheduler.name": "plateau"}, "none": {}}}, "lr_scheduler.patience": {"int": [1, 3]}},
            "lr_scheduler.name = cosine",
        ),
    ],
)  # fmt: skip
def test_a_key_that_some_trials_ignore_is_allowed_but_known(raw: dict[str, Any], message: str) -> None:
    (idle,) = idle_nodes(parse_space(raw, BASE).nodes, BASE)
    assert idle.message == f"has no effect in trials with {message}; give it to the branches that use it"


def test_what_training_ignores_follows_from_the_settings() -> None:
    plain = {"optimizer.encoder_lr_factor", "optimizer.momentum", "loss.focal_gamma", "loss.focal_alpha"}
    ignored = ignored_keys(flatten(BASE))
    assert plain <= ignored
    assert ignored.isdisjoint({"model.depth", "loss.bce_pos_weight", "lr_scheduler.warmup_epochs"})
    timm = {"model.encoder": "timm:resnet18", "optimizer.name": "sgd", "loss.focal": 1.0, "loss.bce": 0.0}
    ignored = ignored_keys(flatten(apply(BASE, timm)))
    assert ignored.isdisjoint(plain)
    assert {"model.depth", "loss.bce_pos_weight"} <= ignored
