# ruff: noqa: E501
"""`segsearch space`: what it counts, what it warns of, and how it looks."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from places import ROOT
from rich.console import Console

from search.cli import runs
from search.cli.group import main
from search.config.load import load_config
from search.show.space import render_space
from search.show.survey import Size, Survey, size_of, survey
from search.space.parse import parse_space
from search.space.search import Search
from segcore.config import TrainConfig

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
TEXT = """
optimizer: {lr: 1e-3}
space:
  optimizer.lr: {loguniform: [1e-4, 1e-2], prior: {center: 1e-3, width: 0.25}}
  train.batch_size: {choice: [8, 16, 32], prior: {center: 16}}
  lr_scheduler:
    choice:
      plateau: {patience: {int: [1, 5]}, factor: {uniform: [0.1, 0.7]}, min_lr_factor: 0.1}
      cosine: {warmup_epochs: {int: [0, 3]}}
      constant:
  forbid: ["train.batch_size == 32 and lr_scheduler == 'plateau'", "train.batch_size == 8"]
search:
  enqueue: [{optimizer.lr: 3e-3}]
"""


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Survey]:
    def of(text: str = TEXT, num_samples: int = 5, seed: int = 0) -> Survey:
        (tmp_path / "c.yaml").write_text(text)
        return survey(Search.of(load_config(tmp_path / "c.yaml")), num_samples, seed)

    return of


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        ({}, Size(1, 0, 0)),
        ({"optimizer.lr": {"uniform": [0.1, 1]}}, Size(1, 1, 1)),
        ({"model.depth": {"int": [2, 4]}, "train.batch_size": {"choice": [8, 16]}}, Size(6, 0, 0)),
        ({"model.base_channels": {"int": [8, 32], "step": 8}, "model.dropout": {"quniform": [0, 0.4, 0.1]}}, Size(20, 0, 0)),
        (
            {
                "lr_scheduler": {
                    "choice": {
                        "plateau": {"patience": {"int": [1, 5]}, "factor": {"uniform": [0.1, 0.7]}, "min_lr_factor": 0.1},
                        "cosine": {"warmup_epochs": {"int": [0, 3]}},
                        "constant": None,
                    }
                },
                "optimizer.lr": {"loguniform": [1e-4, 1e-2]},
                "train.batch_size": {"choice": [8, 16]},
            },
            Size(2 * (5 + 4 + 1), 1, 2),
        ),
        (
            {"model.arch": {"choice": {"unet": {"optimizer": {"choice": {"sgd": {"momentum": {"uniform": [0, 0.9]}}, "adamw": {}}}}, "attention_unet": {"model.depth": {"int": [2, 4]}}}}},
            Size(2 + 3, 0, 1),
        ),
    ],
)  # fmt: skip
def test_parameters_multiply_and_branches_add_up(raw: dict[str, Any], size: Size) -> None:
    assert size_of(parse_space(raw, TrainConfig()).nodes) == size


def test_the_record_says_what_there_is(record: Callable[..., Survey]) -> None:
    found = record()
    assert found.size == Size(combinations=30, min_continuous=1, max_continuous=2)
    assert found.keys[:3] == ["optimizer.lr", "train.batch_size", "lr_scheduler.name"]
    assert [rule.share for rule in found.forbid] == pytest.approx([1 / 9, 1 / 3], abs=0.03)
    assert found.forbidden_share == pytest.approx(4 / 9, abs=0.03)
    assert found.first is not None
    assert found.first["train.batch_size"] == 16
    assert found.why_no_first is None
    assert found.enqueued == [{**found.first, "optimizer.lr": 3e-3}]
    assert found.warnings == ["train.batch_size = 8 is ruled out by forbid; take it out of the choice"]
    assert len(found.samples) == 5
    assert found.parameters[0].options is None
    (plateau, *_) = found.parameters[2].options or ()
    assert plateau.value == "plateau"
    assert plateau.size == Size(combinations=5, min_continuous=1, max_continuous=1)
    assert [below.values for below in plateau.parameters] == ["1 to 5, whole numbers", "0.1 to 0.7", "= 0.1"]
    assert json.loads(json.dumps(found.tree())) == found.tree()


def test_samples_follow_the_priors_and_are_never_forbidden(record: Callable[..., Survey]) -> None:
    samples = record(num_samples=300).samples
    assert not any(point["train.batch_size"] == 8 for point in samples)
    assert not any(p["train.batch_size"] == 32 and p["lr_scheduler.name"] == "plateau" for p in samples)
    close = [point for point in samples if 10**-3.5 < point["optimizer.lr"] < 10**-2.5]
    assert len(close) / len(samples) == pytest.approx(0.954, abs=0.04)  # two standard deviations
    assert record(num_samples=3).samples == samples[:3]
    assert record(num_samples=3, seed=1).samples != samples[:3]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "space: {train.batch_size: {choice: [8, 16]}, forbid: ['train.batch_size == 32']}\nsearch: {num_samples: 2}\n",
            "forbid `train.batch_size == 32` is true of none of 2,000 random points; is it spelled right?",
        ),
        (
            "space: {train.batch_size: {choice: [8, 16]}}\n",
            "the space has 2 points; 64 trials were asked for: it stops after 2",
        ),
        (
            "space: {optimizer: {choice: [adamw, sgd]}, optimizer.momentum: {uniform: [0, 0.9]}}\n",
            "optimizer.momentum has no effect in trials with optimizer.name = adamw; give it to the branches that use it",
        ),
        (
            "space: {optimizer.lr: {loguniform: [1e-6, 1e-1]}, loss.dice: {uniform: [0, 1]}, forbid: [loss.dice < 0.9995]}\n",
            "random points are allowed by forbid; shrink the ranges instead",
        ),
    ],
)  # fmt: skip
def test_what_deserves_a_word_gets_one(record: Callable[..., Survey], text: str, warning: str) -> None:
    (found,) = record(text).warnings
    assert warning in found


def test_a_config_outside_its_own_space_is_told_why(record: Callable[..., Survey]) -> None:
    found = record("space: {optimizer.lr: {uniform: [0.1, 1]}}\n")
    assert found.first is None
    assert found.why_no_first == "optimizer.lr=0.001 is not in 0.1 to 1"
    forbidden = record("space: {train.batch_size: {choice: [8, 16]}, forbid: [train.batch_size > 8]}\n")
    assert forbidden.why_no_first == "they are forbidden by `train.batch_size > 8`"


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def invoke(width: int, *arguments: str) -> Result:
        monkeypatch.setattr(runs, "output", Console(width=width))
        return CliRunner().invoke(main, ["space", *arguments])

    return invoke


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("width", [80, 120])
def test_every_shipped_space_fits_the_terminal(shown: Callable[..., Result], path: Path, width: int) -> None:
    result = shown(width, str(path))
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].startswith(f"space of {path.stem}: ")
    assert "warning" not in result.output
    assert "…" not in result.output
    config = load_config(path)
    for key in parse_space(config.space, config.train_config()).keys():  # noqa: SIM118
        assert re.search(rf"^  {re.escape(key)} ", result.output, re.MULTILINE), key  # whole, in a row of its own
    rows = [line for line in lines if line.strip().startswith("key ")]
    assert [int(word) for line in rows[1:] for word in line.split()[1:]] == list(range(1, 11))


def test_the_page_shows_branches_priors_and_what_is_forbidden(shown: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(TEXT)
    output = shown(100, str(tmp_path / "c.yaml"), "--samples", "2").output
    for line in (
        "space of c: 30 discrete combinations x 1 to 2 continuous dimensions",
        "├── optimizer.lr  0.0001 to 0.01, log  prior: around 0.001, width 0.25 decades",
        "├── train.batch_size  8 | 16 | 32  prior: 16 50%, the others 50%",
        "    ├── plateau  5 discrete combinations x 1 continuous dimension",
        "    │   └── lr_scheduler.min_lr_factor  = 0.1",
        "train.batch_size == 32 and lr_scheduler == 'plateau'",
        "warning: train.batch_size = 8 is ruled out by forbid; take it out of the choice",
    ):
        assert line in output
    assert [word for line in output.splitlines() if line.startswith("  key") for word in line.split()] == [
        "key", "config", "enqueue[0]", "key", "1", "2",
    ]  # fmt: skip


def test_json_is_the_record(shown: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(TEXT)
    found = json.loads(shown(80, str(tmp_path / "c.yaml"), "--json", "--samples", "2", "--seed", "4").output)
    assert found == survey(Search.of(load_config(tmp_path / "c.yaml")), 2, 4).tree()
    changed = shown(80, str(tmp_path / "c.yaml"), "--json", "--set", "space.optimizer.lr.prior.width=1").output
    assert json.loads(changed)["parameters"][0]["prior"]["width"] == 1


def test_an_empty_space_says_what_to_do(shown: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("train: {epochs: 2}\n")
    result = shown(80, str(tmp_path / "c.yaml"))
    assert result.exit_code == 0
    command = f"segsearch train {tmp_path / 'c.yaml'}"
    assert result.output == f"nothing is searched: space is empty; one training run is: {command}\n"
    assert render_space(survey(Search.of(load_config(tmp_path / "c.yaml")), 3, 0), 80, "segsearch train c.yaml")


def test_a_wrong_config_is_refused_like_everywhere(shown: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("space: {optimizer.lrr: {uniform: [0, 1]}}\n")
    assert shown(80, str(tmp_path / "c.yaml")).exit_code == 2
    assert shown(80, str(CONFIGS[0]), "--samples", "-1").exit_code == 2


def test_it_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from search.cli import main; main(['space', sys.argv[1]], standalone_mode=False); "
        "print([name for name in ('torch', 'ray', 'optuna', 'wandb', 'timm') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "configs" / "full.yaml")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
