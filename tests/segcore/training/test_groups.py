import copy

import pytest
import torch

from segcore.config import ModelConfig, OptimizerConfig
from segcore.models.build import build_model
from segcore.registries import OPTIMIZERS
from segcore.training.groups import build_optimizer

TIMM = ModelConfig(encoder="timm:mobilenetv3_small_050", decoder_channels=(8, 8, 8, 8, 8))
PLAIN = ModelConfig(base_channels=2, depth=1)


def _optimizer(name="adamw", model=PLAIN, **settings):
    return build_optimizer(build_model(model), OptimizerConfig(name=name, **settings))


def _train(optimizer, model, schedule=None, steps=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=generator)
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()


def test_groups_hold_every_parameter_once_and_decay_only_kernels():
    model = build_model(TIMM)
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.01, weight_decay=0.2, encoder_lr_factor=0.5))
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert list(groups) == ["encoder/decay", "encoder/no_decay", "decoder/decay", "decoder/no_decay"]
    members = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in model.parameters())
    assert {name: group["lr"] for name, group in groups.items()} == {
        "encoder/decay": 0.005,
        "encoder/no_decay": 0.005,
        "decoder/decay": 0.01,
        "decoder/no_decay": 0.01,
    }
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        "encoder/decay": 0.2,
        "encoder/no_decay": 0.0,
        "decoder/decay": 0.2,
        "decoder/no_decay": 0.0,
    }
    assert all(p.ndim > 1 for name in ("encoder/decay", "decoder/decay") for p in groups[name]["params"])
    assert any(p is model.segmentation_head.weight for p in groups["decoder/decay"]["params"])


@pytest.mark.slow
def test_a_factor_of_0_freezes_a_timm_encoder():
    model = build_model(TIMM)
    optimizer = build_optimizer(model, OptimizerConfig(encoder_lr_factor=0.0))
    assert model.is_encoder_frozen
    assert [group["name"] for group in optimizer.param_groups] == ["decoder/decay", "decoder/no_decay"]
    before = copy.deepcopy(model.encoder.state_dict())
    model.train()
    _train(optimizer, model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.encoder.state_dict().items())


def test_the_plain_encoder_is_never_scaled_or_frozen():
    model = build_model(PLAIN)
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.01, encoder_lr_factor=0.0))
    assert not model.is_encoder_frozen
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}


@pytest.mark.parametrize("name", OPTIMIZERS.names)
def test_first_step_by_hand(name):
    """One decayed weight w = 2 with gradient 3, lr 0.1, decay 0.5."""
    model = build_model(PLAIN)
    weight = model.segmentation_head.weight
    optimizer = build_optimizer(model, OptimizerConfig(name=name, lr=0.1, weight_decay=0.5, momentum=0.9))
    with torch.no_grad():
        weight.fill_(2.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weight.grad.fill_(3.0)
    optimizer.step()
    mu, mu_next = (0.9 * (1 - 0.5 * 0.96 ** (step * 0.004)) for step in (1, 2))
    expected = {
        # Decoupled decay, then m / sqrt(v) = 1 after bias correction.
        "adamw": 2.0 * (1 - 0.1 * 0.5) - 0.1,
        # Gradient 3 + 0.5 * 2 = 4; Nesterov's first step is g + momentum * g.
        "sgd": 2.0 - 0.1 * (4.0 + 0.9 * 4.0),
        # m = 0.1 g; the step is ((1 - mu_1) g / (1 - mu_1) + mu_2 m / (1 - mu_1 mu_2)) / |g|.
        "nadam": 2.0 * (1 - 0.1 * 0.5) - 0.1 * (1.0 + mu_next * 0.1 / (1 - mu * mu_next)),
    }[name]
    assert weight.flatten()[0].item() == pytest.approx(expected, rel=1e-5)
