"""What every component of a training config must keep to, over all of them, and that a new one is one file."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_folders import write_pair
from places import ROOT
from torch import nn

from segcore.applied.found import read_model
from segcore.applied.wanted import want_model
from segcore.component import Registry
from segcore.config import LossConfig, LRSchedulerConfig, ModelConfig, OptimizerConfig, Section, TrainConfig
from segcore.losses.mix import build_loss
from segcore.models.build import build_model
from segcore.registries import ARCHITECTURES, LAYOUTS, LOSSES, OPTIMIZERS, SCHEDULES, Horizon, Waiting
from segcore.training.schedule import build_lr_scheduler

REGISTRIES = (LOSSES, OPTIMIZERS, SCHEDULES, ARCHITECTURES, LAYOUTS)
OTHER_VALUES: dict[str, Any] = {
    "bce_pos_weight": 3.0, "focal_gamma": 0.5, "focal_alpha": 0.8, "tversky_alpha": 0.2, "tversky_beta": 0.9,
    "smooth": 0.25, "momentum": 0.5, "patience": 1, "factor": 0.6, "warmup_epochs": 2.5, "min_lr_factor": 0.3,
    "pct_start": 0.7, "power": 2.0, "mask_suffix": "-m",
}  # fmt: skip
"""A value for each option that is not its default."""


def settings_of(registry: Registry[Any], name: str) -> Iterator[dict[str, Any]]:
    """The defaults, then each option changed by itself, under the builder's names."""
    options = registry[name].options
    defaults = {option.argument or option.name: option.default for option in options}
    yield defaults
    for option in options:
        yield {**defaults, option.argument or option.name: OTHER_VALUES[option.name]}


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.kind)
def test_options_are_keys_of_the_section_with_their_defaults(registry: Registry[Any]) -> None:
    section: Section = getattr(TrainConfig(), registry.key.partition(".")[0])
    assert len(registry.names) >= 3
    for component in registry:
        assert component.summary
        for option in component.options:
            assert getattr(section, option.name) == option.default
            assert OTHER_VALUES[option.name] != option.default


@pytest.mark.parametrize("name", LOSSES.names)
def test_a_loss_is_what_its_twin_says_whatever_its_options(name: str) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(3, 1, 5, 7, generator=generator, dtype=torch.float64)
    targets = (torch.rand(3, 1, 5, 7, generator=generator) > 0.7).double()
    targets[1], targets[2] = 0.0, 1.0
    values = []
    for settings in settings_of(LOSSES, name):
        values.append(float(LOSSES[name].build.loss(logits, targets, **settings)))
        twin = LOSSES[name].build.twin(logits.numpy()[:, 0], targets.numpy()[:, 0], **settings)
        assert values[-1] == pytest.approx(twin, rel=1e-9)
    assert len(set(values)) == len(values)  # every option counts


@pytest.mark.parametrize("name", LOSSES.names)
def test_a_loss_alone_is_the_mix(name: str) -> None:
    weights = {**dict.fromkeys(LOSSES.names, 0.0), name: 2.0}
    mix = build_loss(LossConfig(**weights))
    logits, targets = torch.linspace(-2, 2, 16).reshape(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    assert list(mix.losses) == [name]
    alone = LOSSES[name].build.loss(logits, targets, **LOSSES[name].arguments(LossConfig()))
    assert float(mix(logits, targets)) == pytest.approx(2 * float(alone))


@pytest.mark.parametrize("name", OPTIMIZERS.names)
def test_an_optimizer_steps_as_its_twin_says_and_keeps_as_much(name: str) -> None:
    rule, rng = OPTIMIZERS[name].build, np.random.default_rng(0)
    gradients = [rng.normal(size=6) for _ in range(7)]
    ends = []
    for settings in settings_of(OPTIMIZERS, name):
        for weight_decay in (0.0, 0.3):
            weights = nn.Parameter(torch.linspace(-1, 1, 6, dtype=torch.float64))
            start = weights.detach().numpy().copy()
            groups = [{"params": [weights], "lr": 0.05, "weight_decay": weight_decay}]
            built = rule.build(groups, lr=0.05, weight_decay=weight_decay, can_fuse=False, **settings)
            for gradient in gradients:
                weights.grad = torch.from_numpy(gradient)
                built.step()
            twin = rule.twin(start, gradients, lr=0.05, weight_decay=weight_decay, **settings)
            np.testing.assert_allclose(weights.detach().numpy(), twin, rtol=1e-6)
            ends.append(tuple(np.round(twin, 9)))
            kept = [value for value in built.state[weights].values() if torch.is_tensor(value) and value.numel() == 6]
            assert len(kept) == rule.num_states(**settings)
            assert type(built).__name__ == rule.class_name
    assert len(set(ends)) == len(ends)


def test_plain_sgd_keeps_nothing() -> None:
    assert OPTIMIZERS["sgd"].build.num_states(momentum=0.0) == 0
    assert OPTIMIZERS["sgd"].build.momentum(momentum=0.0) == (0.0, "plain")


@pytest.mark.parametrize("name", SCHEDULES.names)
@pytest.mark.parametrize("horizon", [Horizon(40, 4), Horizon(3, 1), Horizon(7, 5)], ids=str)
def test_a_schedule_is_what_its_twin_says_at_every_step(name: str, horizon: Horizon) -> None:
    for settings in settings_of(SCHEDULES, name):
        factor = SCHEDULES[name].build.factor(horizon, **settings)
        for step in range(horizon.total_steps):
            assert factor(step) == pytest.approx(SCHEDULES[name].build.twin(step, horizon, **settings), abs=1e-12)


@pytest.mark.parametrize("name", [schedule.name for schedule in SCHEDULES if schedule.build.judge is not None])
def test_a_schedule_that_follows_the_metric_waits_and_acts_as_its_twin_says(name: str) -> None:
    shape = SCHEDULES[name].build
    assert shape.judge is not None
    assert shape.judge_twin is not None
    for settings in settings_of(SCHEDULES, name):
        patience, factor, least = shape.judge_twin(**settings)
        waiting = shape.judge(Waiting(), 0.5, **settings)
        assert (waiting.factor, waiting.best_metric, waiting.num_bad_epochs) == (1.0, 0.5, 0)
        for _ in range(patience):
            waiting = shape.judge(waiting, 0.5, **settings)
            assert waiting.factor == 1.0
        waiting = shape.judge(waiting, float("nan"), **settings)
        assert waiting.factor == pytest.approx(factor)
        for _ in range(200):
            waiting = shape.judge(waiting, 0.0, **settings)
        assert waiting.factor == pytest.approx(least)


@pytest.mark.parametrize("name", SCHEDULES.names)
def test_a_schedule_of_a_run_sets_the_share_of_the_peak(name: str) -> None:
    config = LRSchedulerConfig(name=name)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule = build_lr_scheduler(optimizer, config, epochs=5, steps_per_epoch=3)
    shape, arguments = SCHEDULES[name].build, SCHEDULES[name].arguments(config)
    for step in range(15):
        assert schedule.lr == pytest.approx(0.5 * shape.twin(step, Horizon(15, 3), **arguments))
        schedule.step()


@pytest.mark.parametrize("name", ARCHITECTURES.names)
def test_an_architecture_is_seen_to_be_what_it_wants(name: str) -> None:
    config = ModelConfig(arch=name, base_channels=4, depth=2)
    model = build_model(config)
    assert model(torch.zeros(1, 3, 32, 48)).shape == (1, 1, 32, 48)
    found, wanted = read_model(model), want_model(config, model)
    assert found == wanted
    others = [other for other in ARCHITECTURES.names if other != name]
    assert all(want_model(config.model_copy(update={"arch": other}), model) != found for other in others)


@pytest.mark.parametrize("name", OPTIMIZERS.names)
def test_unread_options_are_idle(name: str) -> None:
    own = {option.name for option in OPTIMIZERS[name].options}
    idle = {key.partition(".")[2] for key in OPTIMIZERS.idle_with(name)}
    assert own | idle == set(OPTIMIZERS.options)
    assert not own & idle
    assert set(OPTIMIZERS.options) <= set(OptimizerConfig.model_fields)


def run(script: str, *arguments: str) -> Any:
    """What a fresh interpreter prints as its last line, which is JSON."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_declaring_needs_nothing_that_takes_long_to_load() -> None:
    script = (
        "import json, sys\n"
        "from segcore import registries\n"
        "kinds = [registries.LOSSES, registries.OPTIMIZERS, registries.SCHEDULES, registries.ARCHITECTURES,"
        " registries.LAYOUTS]\n"
        "assert all(kind.options is not None and kind.names for kind in kinds)\n"
        "heavy = ('torch', 'numpy', 'pydantic', 'timm', 'cv2', 'PIL', 'albumentations')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))\n"
    )
    assert run(script) == []


NEW_LOSS = """
from segcore.component import Component, Option
from segcore.registries import LossTerm

def l2_loss(logits, targets, *, gain):
    return gain * ((logits.sigmoid() - targets) ** 2).mean()

def l2_twin(logits, targets, *, gain):
    import numpy as np
    return float(gain * ((1 / (1 + np.exp(-logits)) - targets) ** 2).mean())

COMPONENT = Component(
    "brier", "Squared error of the probability.", LossTerm(l2_loss, l2_twin),
    options=(Option("brier_gain", float, 2.0, "Steepness.", gt=0.0, argument="gain"),),
)
"""

NEW_SCHEDULE = """
from segcore.component import Component, Option
from segcore.registries import ScheduleShape

COMPONENT = Component(
    "stairs", "Halves every so many epochs.",
    ScheduleShape(
        lambda horizon, *, stair_epochs: lambda step: 0.5 ** (step // (stair_epochs * horizon.steps_per_epoch)),
        lambda step, horizon, *, stair_epochs: 2.0 ** -(step // horizon.steps_per_epoch // stair_epochs),
    ),
    options=(Option("stair_epochs", int, 3, "epochs of a stair.", ge=1),),
)
"""

NEW_OPTIMIZER = """
from segcore.component import Component, Option
from segcore.registries import OptimizerRule

def build(groups, *, lr, weight_decay, can_fuse, spread):
    from torch.optim import RMSprop
    return RMSprop(groups, lr=lr, weight_decay=weight_decay, alpha=spread)

def twin(weights, gradients, *, lr, weight_decay, spread):
    import numpy as np
    square = np.zeros_like(weights)
    for gradient in gradients:
        gradient = gradient + weight_decay * weights
        square = spread * square + (1 - spread) * gradient ** 2
        weights = weights - lr * gradient / (np.sqrt(square) + 1e-8)
    return weights

COMPONENT = Component(
    "rmsprop", "RMSprop.",
    OptimizerRule(build, twin, "RMSprop", momentum=lambda spread: (0, "plain"), num_states=lambda spread: 1),
    options=(Option("spread", float, 0.99, "of the mean square.", ge=0.0, lt=1.0),),
)
"""

NEW_ARCHITECTURE = """
from segcore.component import Component
from segcore.registries import Architecture

def build(config, load_pretrained):
    from torch import nn
    from segcore.models.blocks import ConvBlock
    from segcore.models.encoders import build_encoder
    from segcore.models.unet import SegmentationModel

    class FirstFeature(nn.Module):
        def forward(self, features):
            return features[0]

    encoder = build_encoder(config, ConvBlock, load_pretrained)
    return SegmentationModel(
        encoder, FirstFeature(), width=encoder.channels[0], dropout=config.dropout, num_classes=config.num_classes
    )

def want(config, model):
    return {"model.arch": "FirstFeature", "model.arch, blocks of the encoder": "ConvBlock"}

COMPONENT = Component(
    "shallow", "The finest feature as it is.", Architecture(build, want),
    reads=("model.encoder", "model.encoder_weights", "model.base_channels", "model.depth", "model.dropout"),
)
"""

NEW_LAYOUT = """
from segcore.component import Component
from segcore.data.pairs.samples import Pair
from segcore.registries import Layout

def pair(root, problems):
    return [Pair(f.name, f / "photo.jpg", f / "truth.png", None, "") for f in sorted(root.iterdir()) if f.is_dir()]

COMPONENT = Component(
    "folder_each", "`NAME/photo.jpg` + `NAME/truth.png`",
    Layout("NAME/photo + truth", "NAME/photo.jpg + NAME/truth.png", lambda root: any(root.glob("*/truth.png")), pair),
)
"""

ONE_FILE_EACH = """
import importlib, json, sys
for name in ("losses.terms", "training.schedules", "training.optimizers", "models.architectures", "data.pairs.layouts"):
    importlib.import_module(f"segcore.{name}").__path__.append(f"{sys.argv[1]}/{name}")

import torch
from search.config.load import json_schema
from search.space.effects import IGNORED_BY
from segcore.config import TrainConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import open_cache
from segcore.training.loop import fit

config = TrainConfig.model_validate({
    "data": {"root": "synthetic", "image_size": 32, "synthetic": {"num_images": 24}, "cache_dir": sys.argv[2]},
    "model": {"arch": "shallow", "base_channels": 4, "depth": 1},
    "loss": {"bce": 0.0, "dice": 0.0, "brier": 1.5, "brier_gain": 3.0},
    "optimizer": {"name": "rmsprop", "spread": 0.9},
    "lr_scheduler": {"name": "stairs", "stair_epochs": 1},
    "train": {"epochs": 2, "batch_size": 16},
})
with open_cache(build_cache(discover(config.data), config.data)) as cache:
    results = list(fit(config, cache, device=torch.device("cpu")))
ours = discover(config.data.model_copy(update={"root": f"{sys.argv[1]}/pairs"}))
print(json.dumps({
    "layout": [ours.layout, len(ours.samples)],
    "epochs": len(results),
    "applied": results[0].applied,
    "lr": [result.metrics["lr"] for result in results],
    "schema": sorted(key for kind in json_schema()["$defs"].values() for key in kind.get("properties", {})),
    "idle": {
        "adamw": IGNORED_BY["optimizer.name"]["adamw"],
        "shallow": IGNORED_BY["model.arch"]["shallow"],
        "stairs": IGNORED_BY["lr_scheduler.name"]["stairs"],
        "brier": IGNORED_BY["loss.brier"][0.0],
    },
}))
"""


@pytest.mark.slow
def test_a_new_component_is_one_file(tmp_path: Path) -> None:
    """Files that the source tree does not know are trained with, proven, in the schema and among the idle keys."""
    for package, name, source in (
        ("losses.terms", "brier", NEW_LOSS),
        ("training.schedules", "stairs", NEW_SCHEDULE),
        ("training.optimizers", "rmsprop", NEW_OPTIMIZER),
        ("models.architectures", "shallow", NEW_ARCHITECTURE),
        ("data.pairs.layouts", "folder_each", NEW_LAYOUT),
    ):
        (tmp_path / package).mkdir()
        (tmp_path / package / f"{name}.py").write_text(source)
    for number in range(6):
        write_pair(tmp_path / "pairs" / str(number) / "photo.jpg", tmp_path / "pairs" / str(number) / "truth.png")
    found = run(ONE_FILE_EACH, str(tmp_path), str(tmp_path / "cache"))
    assert found["layout"] == ["folder_each", 6]
    assert found["epochs"] == 2
    assert found["applied"]["optimizer.name"] == "RMSprop"
    assert found["applied"]["loss.brier, weight"] == 1.5
    assert found["applied"]["model.arch"] == "FirstFeature"
    assert found["lr"] == pytest.approx([0.5e-3, 0.25e-3])
    assert {"brier", "brier_gain", "spread", "stair_epochs"} <= set(found["schema"])
    assert set(found["idle"]["adamw"]) == {"optimizer.momentum", "optimizer.spread"}
    assert found["idle"]["shallow"] == ["model.decoder_channels"]
    assert set(found["idle"]["stairs"]) == set(map(SCHEDULES.key_of, SCHEDULES.options))
    assert found["idle"]["brier"] == ["loss.brier_gain"]
