"""A config that cannot be used is one message, and nothing is written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from command_results import refused

BAD_CONFIGS: list[tuple[str, str, list[str]]] = [
    ("not yaml", "train: {epochs: 3", ["not valid YAML"]),
    ("empty", "", ["empty"]),
    ("a list", "- train\n", ["list"]),
    ("unknown section", "optimzer: {lr: 1e-3}\n", ["optimzer", "optimizer"]),
    ("unknown key", "optimizer: {learning_rate: 1e-3}\n", ["optimizer.learning_rate"]),
    ("key of another section", "lr: 1e-3\n", ["optimizer.lr"]),
    ("wrong type", "train: {epochs: many}\n", ["train.epochs", "many"]),
    ("zero epochs", "train: {epochs: 0}\n", ["train.epochs", "0"]),
    ("negative lr", "optimizer: {lr: -1}\n", ["optimizer.lr"]),
    ("unknown architecture", "model: {arch: unet++}\n", ["model.arch", "attention_unet"]),
    ("encoder without timm", "model: {encoder: resnet50}\n", ["model.encoder", "timm:"]),
    ("weights without encoder", "model: {encoder_weights: imagenet}\n", ["encoder_weights"]),
    ("no loss at all", "loss: {bce: 0, dice: 0}\n", ["loss"]),
    ("threshold above 1", "threshold: 1.5\n", ["threshold"]),
    ("fractions that leave nothing", "data: {val_fraction: 0.6, test_fraction: 0.5}\n", ["val_fraction"]),
    ("unknown searched key", "space: {optimizer.lrr: {uniform: [0, 1]}}\n", ["optimizer.lrr"]),
    ("range upside down", "space: {optimizer.lr: {uniform: [1, 0.1]}}\n", ["space.optimizer.lr"]),
    ("log of zero", "space: {optimizer.lr: {loguniform: [0, 0.1]}}\n", ["space.optimizer.lr"]),
    ("choice that is invalid", "space: {model.arch: {choice: [unet, segnet]}}\n", ["segnet"]),
    ("data searched", "space: {data.image_size: {choice: [64, 96]}}\n", ["data.image_size"]),
    ("unknown sampler", "search: {sampler: magic}\n", ["search.sampler", "tpe"]),
    ("metric and mode disagree", "search: {metric: val/loss, mode: max}\n", ["mode"]),
    ("unknown target", "export: {targets: [{ftp: /x}]}\n", ["export.targets", "yandex_disk"]),
    ("secret in the config", "tracking: {wandb: {api_key: abc}}\n", ["WANDB_API_KEY"]),
    ("name that is no folder", "name: a/b\n", ["name"]),
]


@pytest.mark.parametrize(
    ("text", "fragments"), [case[1:] for case in BAD_CONFIGS], ids=[case[0] for case in BAD_CONFIGS]
)
def test_a_bad_config_is_one_message_and_leaves_nothing(
    cli: Callable[..., Result], tmp_path: Path, text: str, fragments: list[str]
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    for command in ("check", "run", "train"):
        refused(cli(command, "c.yaml"), *fragments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml"]
