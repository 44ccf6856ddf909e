"""Keys that change nothing in what is built, for reasons that no table knows."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from places import ROOT
from rich.console import Console

from search.cli.group import main
from search.config.load import load_config
from search.space.parse import apply, parse_space
from search.space.proof import describe, idle_keys, require_effects
from search.stages import job
from segcore.config import TrainConfig
from segcore.errors import ConfigError

BASE = apply(TrainConfig(), {"model.base_channels": 2, "model.depth": 1, "train.batch_size": 4})
ON_CPU = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU decides otherwise")
IDLE: list[Any] = [
    ({"loss.dice": 0.0}, {"loss.smooth": {"choice": [0.0, 1.0]}}, "loss.smooth"),
    ({"augment.probability": 0.0}, {"augment.rotate": {"uniform": [0, 90]}}, "augment.rotate"),
    ({"augment.probability": 0.0}, {"augment.policy": {"choice": ["flip", "medium"]}}, "augment.policy"),
    ({"lr_scheduler.name": "plateau", "lr_scheduler.min_lr_factor": 1.0},
     {"lr_scheduler.factor": {"uniform": [0.1, 0.7]}}, "lr_scheduler.factor"),
    ({}, {"model.decoder_channels": {"choice": [None, [2]]}}, "model.decoder_channels"),
    ({"augment.policy": "none", "augment.vertical_flip": True}, {"optimizer.lr": {"loguniform": [1e-4, 1e-2]}}, None),
    pytest.param({}, {"train.compile": {"choice": ["auto", False]}}, "train.compile", marks=ON_CPU),
    ({}, {"threshold": {"uniform": [0.2, 0.8]}}, None),
    ({}, {"threshold": {"choice": ["auto", 0.5]}}, None),
    ({}, {"train.ema_decay": {"uniform": [0.9, 0.999]}}, None),
    ({}, {"model.dropout": {"uniform": [0.0, 0.5]}, "train.grad_clip": {"choice": [0.0, 1.0]}}, None),
]  # fmt: skip


@pytest.mark.parametrize(("own", "raw", "idle"), IDLE)
def test_a_key_that_changes_nothing_is_named(own: dict[str, Any], raw: dict[str, Any], idle: str | None) -> None:
    base = apply(BASE, own)
    space = parse_space(raw, base)  # the table knows of none of these
    assert [key for key, _ in idle_keys(space, base)] == ([idle] if idle else [])
    if idle:
        with pytest.raises(ConfigError, match=rf"space\.{idle}: changes nothing in what a trial trains with \(.* give"):
            require_effects(space, base)


def test_a_setting_that_a_builder_drops_is_found_before_any_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    space = parse_space({"train.ema_decay": {"choice": [0.0, 0.9]}, "optimizer.lr": {"loguniform": [1e-4, 1e-2]}}, BASE)
    require_effects(space, BASE)
    monkeypatch.setattr("segcore.training.step.build_ema", lambda model, decay: None)
    with pytest.raises(ConfigError, match=r"^space\.train\.ema_decay: changes nothing") as caught:
        require_effects(space, BASE)
    assert "optimizer.lr" not in str(caught.value)
    assert caught.value.exit_code == 2


CONFIGS = [
    pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem == "full" else [])
    for path in sorted((ROOT / "configs").glob("*.yaml"))
]


@pytest.mark.parametrize("path", CONFIGS)
def test_every_key_of_every_config_has_an_effect(path: Path) -> None:
    config = load_config(path)
    base = config.train_config()
    require_effects(parse_space(config.space, base), base)


def test_what_is_described_is_what_two_runs_have_in_common() -> None:
    one, other = describe(BASE), describe(apply(BASE, {"optimizer.lr": 0.5}))
    assert one == describe(BASE)
    differ = {key for key in one if one[key] != other[key]}
    assert differ == {key for key in one if key.startswith("optimizer.") and "peak" in key}


def test_the_command_proves_it_where_it_is_asked_to(tmp_path: Path) -> None:
    path = tmp_path / "idle.yaml"
    path.write_text(yaml.safe_dump({"loss": {"dice": 0.0}, "space": {"loss.smooth": {"choice": [0.0, 1.0]}}}))
    asked, plain = (CliRunner().invoke(main, ["space", str(path), *more]) for more in (["--prove"], []))
    assert (asked.exit_code, plain.exit_code) == (2, 0)
    assert "space.loss.smooth: changes nothing" in asked.output


def test_a_run_with_such_a_key_does_not_begin(tmp_path: Path) -> None:
    tree = {
        "data": {
            "root": "synthetic", "image_size": 32, "synthetic": {"num_images": 16},
            "cache_dir": str(tmp_path / "cache"),
        },
        "model": {"base_channels": 4, "depth": 2},
        "loss": {"bce": 1.0, "dice": 0.0},
        "space": {"loss.smooth": {"choice": [0.0, 1.0]}},
        "results": str(tmp_path / "results"),
    }  # fmt: skip
    path = tmp_path / "idle.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError, match=r"space\.loss\.smooth: changes nothing"):
        job.run(load_config(path), Console(quiet=True))
    assert not (tmp_path / "results").exists()
