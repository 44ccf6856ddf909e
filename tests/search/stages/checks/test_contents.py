"""Batches of one image: found before anything is trained, in whatever point of the space they hide."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from search.config.load import load_config
from search.runs.folder import absolute_paths
from search.space.search import Search
from search.stages.checks.check import Checked, Preparation
from search.stages.checks.contents import batches
from segcore.data.pairs.samples import DatasetIndex, Sample
from segcore.errors import ConfigError

TREE = {
    "data": {"root": "synthetic", "image_size": 16},
    "model": {"encoder": "none", "base_channels": 4, "depth": 4},
    "train": {"batch_size": 6},
}
INDEX = DatasetIndex(
    "r", "flat", tuple(Sample(str(i), Path(f"{i}.png"), Path(f"{i}.png"), "train", "", str(i)) for i in range(18)), ()
)


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., Preparation]:
    def prepare(space: dict[str, object], *overrides: str) -> Preparation:
        (tmp_path / "c.yaml").write_text(yaml.safe_dump({**TREE, "space": space}))
        config = absolute_paths(load_config(tmp_path / "c.yaml", overrides))
        return Preparation(Search.of(config), "search", Console(quiet=True), index=INDEX)

    return prepare


@pytest.mark.parametrize(
    ("space", "overrides", "found"),
    [
        ({}, ["train.batch_size=1"], r"train\.batch_size is 1: .*valid: train\.batch_size of at least 2"),
        ({}, ["train.micro_batch_size=1"], r"train\.micro_batch_size is 1: .*null or at least 2"),
        ({"train.batch_size": {"choice": [1, 6]}}, [], r"train\.batch_size is 1"),
        ({"train.batch_size": {"int": [1, 64]}}, [], r"train\.batch_size is 1"),
        ({"model.depth": {"int": [2, 4]}}, ["train.batch_size=1"], r"image_size 16 and model\.depth 4 the deepest"),
        ({"train.batch_size": {"int": [4, 9]}}, ["train.micro_batch_size=2"], r"is 2 for batches of [579]: .*an even"),
        (
            {"model.arch": {"choice": {"unet": {"train.batch_size": 4}, "attention_unet": {"train.batch_size": 1}}}},
            [], r"train\.batch_size is 1",
        ),
    ],
)  # fmt: skip
def test_single_images_under_batch_norm_are_found_anywhere_in_the_space(
    prepare: Callable[..., Preparation], space: dict[str, object], overrides: list[str], found: str
) -> None:
    with pytest.raises(ConfigError, match=found):
        batches(prepare(space, *overrides))


@pytest.mark.parametrize(
    ("space", "overrides", "fewest"),
    [
        ({"train.batch_size": {"choice": [2, 6]}}, [], 2),
        ({"train.batch_size": {"choice": [1, 6]}}, ["data.image_size=17"], 1),
        ({"model.depth": {"int": [1, 3]}}, ["train.batch_size=1"], 1),
        ({"train.batch_size": {"int": [4, 9]}}, ["train.micro_batch_size=3"], 2),
        (
            {"train.batch_size": {"choice": [1, 6]}, "model.depth": {"choice": [3, 4]},
             "forbid": ["train.batch_size == 1 and model.depth == 4"]}, [], 1,
        ),
        ({"train.batch_size": {"choice": [4, 6]}}, ["train.batch_size=1"], 4),
    ],
)  # fmt: skip
def test_what_can_be_trained_is_let_through(
    prepare: Callable[..., Preparation], space: dict[str, object], overrides: list[str], fewest: int
) -> None:
    said = f"at least {fewest} image{'s' * (fewest != 1)} go through a model at once"
    assert batches(prepare(space, *overrides)) == Checked(said)


def test_many_points_at_fault_are_a_few_lines(prepare: Callable[..., Preparation]) -> None:
    space: dict[str, object] = {"train.batch_size": {"int": [1, 2]}, "model.depth": {"int": [4, 7]}}
    space["model.dropout"] = {"uniform": [0, 0.5]}  # makes each point another one
    with pytest.raises(ConfigError, match="and 1 more points of the space with the same fault") as caught:
        batches(prepare(space))
    assert len(str(caught.value).splitlines()) == 4
