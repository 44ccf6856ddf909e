# ruff: noqa: E501
"""Points to try first: completed from the config, and checked with everything that is wrong at once."""

from pathlib import Path
from typing import Any

import pytest

from search.config.load import dump_config, load_config
from search.runs.folder import absolute_paths
from search.space.enqueue import enqueued_points
from search.space.parse import apply, parse_space
from segcore.errors import ConfigError

CONFIG = """
optimizer: {lr: 0.5}
model: {dropout: 0.1}
space:
  optimizer.lr: {loguniform: [1e-4, 1e-2]}
  model.dropout: {uniform: [0, 0.5]}
  train.batch_size: {choice: [8, 16, 32]}
  lr_scheduler:
    choice:
      plateau: {patience: {int: [1, 5]}, optimizer.weight_decay: 0.1}
      cosine: {warmup_epochs: {int: [0, 3]}}
  forbid: ["train.batch_size == 32 and optimizer.lr > 5e-3"]
search:
  enqueue:
"""


def write(tmp_path: Path, *points: str, text: str = CONFIG) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text + "".join(f"    - {point}\n" for point in points))
    return path


def points_of(path: Path) -> list[dict[str, Any]]:
    config = load_config(path)
    return enqueued_points(config, parse_space(config.space, config.train_config()))


COSINE = {
    "optimizer.lr": 1e-3, "model.dropout": 0.1, "train.batch_size": 16,
    "lr_scheduler.name": "cosine", "lr_scheduler.warmup_epochs": 2,
}  # fmt: skip
PLATEAU = {
    "optimizer.lr": 1e-3, "model.dropout": 0.1, "train.batch_size": 16,
    "lr_scheduler.name": "plateau", "lr_scheduler.patience": 2, "optimizer.weight_decay": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("point", "flat"),
    [
        ("{optimizer.lr: 1e-3, lr_scheduler: cosine, lr_scheduler.warmup_epochs: 2}", COSINE),
        ("{optimizer.lr: 1e-3, lr_scheduler.name: cosine, lr_scheduler.warmup_epochs: 2.0}", COSINE),
        ("{optimizer: {lr: 1e-3}, lr_scheduler: {name: cosine, warmup_epochs: 2}}", COSINE),
        ("{optimizer.lr: 1e-3, lr_scheduler: plateau}", PLATEAU),
        ("{optimizer.lr: 1e-3, lr_scheduler: plateau, optimizer.weight_decay: 0.1, train.epochs: 25}", PLATEAU),
    ],
)
def test_a_point_is_completed_with_the_configs_own_values(tmp_path: Path, point: str, flat: dict[str, Any]) -> None:
    path = write(tmp_path, point)
    assert points_of(path) == [flat]
    config = load_config(path)
    base = config.train_config()
    space = parse_space(config.space, base)
    assert space.from_params(space.to_params(flat)) == flat
    assert apply(base, flat).lr_scheduler.name == flat["lr_scheduler.name"]


def test_the_points_keep_their_order_and_survive_a_run_folder(tmp_path: Path) -> None:
    path = write(tmp_path, "{optimizer.lr: 1e-3}", "{optimizer.lr: 2e-3}", "{optimizer.lr: 5e-4, train.batch_size: 32}")
    assert [point["optimizer.lr"] for point in points_of(path)] == [1e-3, 2e-3, 5e-4]
    copy = tmp_path / "config.yaml"
    copy.write_text(dump_config(load_config(path)))
    assert points_of(copy) == points_of(path)
    plain = write(tmp_path, text=CONFIG.partition("search:")[0])
    assert points_of(plain) == []
    assert load_config(plain, ["search.enqueue=[{optimizer.lr: 1e-3}]"]).search.enqueue == ({"optimizer.lr": 1e-3},)


# (point, key after search.enqueue[1], fragments of the one problem)
LR = "optimizer.lr: 1e-3"
BAD = [
    ("{train.batch_size: 8}", ".optimizer.lr", ["is missing, and the config's own value 0.5 lies outside the space; valid: 0.0001 to 0.01, log"]),
    ("{optimizer.lrr: 1e-3, optimizer.lr: 1e-3}", ".optimizer.lrr", ["unknown key; did you mean optimizer.lr?"]),
    ("{learning_rate: 1e-3, optimizer.lr: 1e-3}", ".learning_rate", ["unknown key; did you mean optimizer.lr?"]),
    ("{optimizer.lr: 1e-1}", ".optimizer.lr", ["found 0.1; valid: 0.0001 to 0.01, log"]),
    ("{optimizer.lr: fast}", ".optimizer.lr", ["found 'fast'; valid: a number above 0"]),
    (f"{{{LR}, train.batch_size: 12}}", ".train.batch_size", ["found 12; valid: 8 | 16 | 32"]),
    (f"{{{LR}, lr_scheduler: onecycle}}", ".lr_scheduler", ["found 'onecycle'; valid: plateau | cosine"]),
    (f"{{{LR}, lr_scheduler: cosin, lr_scheduler.warmup_epochs: 1}}", ".lr_scheduler", ["found 'cosin'", "did you mean cosine?"]),
    (f"{{{LR}, lr_scheduler: plateau, lr_scheduler.warmup_epochs: 1}}", ".lr_scheduler.warmup_epochs", ["belongs to lr_scheduler.name = cosine, and this point has lr_scheduler.name = plateau; leave it out"]),
    (f"{{{LR}, lr_scheduler.patience: 3}}", ".lr_scheduler.patience", ["belongs to lr_scheduler.name = plateau, and this point has lr_scheduler.name = cosine"]),
    (f"{{{LR}, lr_scheduler: plateau, lr_scheduler.patience: 2.5}}", ".lr_scheduler.patience", ["found 2.5; valid: a whole number"]),
    (f"{{{LR}, lr_scheduler: plateau, lr_scheduler.patience: 9}}", ".lr_scheduler.patience", ["found 9; valid: 1 to 5, whole numbers"]),
    (f"{{{LR}, lr_scheduler: plateau, optimizer.weight_decay: 0.2}}", ".optimizer.weight_decay", ["found 0.2; its branch sets 0.1"]),
    (f"{{{LR}, train.epochs: 3}}", ".train.epochs", ["is not searched, every trial has it 25; give it a range in space, or leave it out"]),
    (f"{{{LR}, optimizer: {{lr: 1e-3}}}}", ".optimizer.lr", ["is given twice"]),
    (f"{{{LR}, lr_scheduler: cosine, lr_scheduler.name: cosine}}", ".lr_scheduler.name", ["is given twice, as lr_scheduler too"]),
    ("{optimizer.lr: 8e-3, train.batch_size: 32}", "", ["is ruled out by space.forbid: `train.batch_size == 32 and optimizer.lr > 5e-3`"]),
    ("{optimizer.lr: 2e-3}", "", ["is the same point as search.enqueue[0]; keep one"]),
]  # fmt: skip


@pytest.mark.parametrize(("point", "key", "fragments"), BAD, ids=[case[0][:60] for case in BAD])
def test_a_bad_point_is_one_line_with_its_place(tmp_path: Path, point: str, key: str, fragments: list[str]) -> None:
    with pytest.raises(ConfigError, match="1 problem") as caught:
        load_config(write(tmp_path, "{optimizer.lr: 2e-3}", point))
    heading, line = str(caught.value).splitlines()
    assert heading.endswith(": 1 problem")
    assert line.strip().startswith(f"search.enqueue[1]{key} (line 16): ")
    for fragment in fragments:
        assert fragment in line


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ("fast", "search.enqueue.0 (line 15): found 'fast'; valid: a map"),
        ("{3: 1, optimizer.lr: 1e-3}", "search.enqueue.0.3 (line 15): a key must be text, found 3"),
    ],
)
def test_a_point_is_a_map_of_keys(tmp_path: Path, point: str, message: str) -> None:
    with pytest.raises(ConfigError, match="1 problem\n") as caught:
        load_config(write(tmp_path, point))
    assert str(caught.value).splitlines()[1].strip() == message


def test_every_problem_of_every_point_is_listed(tmp_path: Path) -> None:
    points = [
        "{optimizer.lr: 1, train.batch_size: 9}",
        "{optimizer.lr: 1e-3}",
        "{lr_scheduler: plateau, lr_scheduler.patience: 7}",
    ]
    with pytest.raises(ConfigError, match="4 problems") as caught:
        load_config(write(tmp_path, *points))
    assert [line.split()[0] for line in str(caught.value).splitlines()[1:]] == [
        "search.enqueue[0].optimizer.lr",
        "search.enqueue[0].train.batch_size",
        "search.enqueue[2].optimizer.lr",
        "search.enqueue[2].lr_scheduler.patience",
    ]


def test_a_point_that_was_set_on_the_command_line_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, "{optimizer.lr: 1e-3}")
    with pytest.raises(ConfigError, match=r"search\.enqueue\[0\]\.optimizer\.lr \(--set\): found 1"):
        load_config(path, ["search.enqueue=[{optimizer.lr: 1}]"])


def test_a_bad_space_is_told_before_the_points_that_depend_on_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 problem") as caught:
        load_config(write(tmp_path, "{optimizer.lr: 1}", text=CONFIG.replace("[1e-4, 1e-2]", "[1e-2, 1e-4]")))
    assert "space.optimizer.lr" in str(caught.value)


def test_a_choice_that_the_config_lies_outside_of_must_be_given(tmp_path: Path) -> None:
    text = "space: {optimizer: {choice: {sgd: {momentum: {uniform: [0, 0.99]}}, nadam: {}}}}\nsearch:\n  enqueue:\n"
    with pytest.raises(ConfigError, match=r"enqueue\[0\]\.optimizer\.name .*: is missing, and .* adamw lies outside"):
        load_config(write(tmp_path, "{optimizer.momentum: 0.5}", text=text))
    assert points_of(write(tmp_path, "{optimizer: sgd}", text=text)) == [
        {"optimizer.name": "sgd", "optimizer.momentum": 0.9}
    ]


def test_weights_from_a_file_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = """
model: {encoder: timm:resnet18, encoder_weights: imagenet}
space:
  model.encoder_weights: {choice: [imagenet, w/a.safetensors], prior: {center: w/a.safetensors}}
search:
  enqueue:
"""
    config = absolute_paths(load_config(write(tmp_path, "{model.encoder_weights: w/a.safetensors}", text=text)))
    space = parse_space(config.space, config.train_config())
    weights = str(tmp_path / "w" / "a.safetensors")
    assert enqueued_points(config, space) == [{"model.encoder_weights": weights}]
    (node,) = space.priors
    assert node.prior is not None
    assert node.prior.center == weights
    assert absolute_paths(config) == config
