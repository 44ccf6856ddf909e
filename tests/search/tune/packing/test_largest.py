from typing import Any

import pytest

from search.config.tree import SearchConfig
from search.space.parse import parse_space
from search.space.search import Search
from search.tune.packing.largest import candidates, decides_memory, settings
from segcore.config import TrainConfig


def found_in(space: dict[str, Any], **sections: Any) -> list[TrainConfig]:
    config = SearchConfig.model_validate({"name": "x", "space": space, **sections})
    return candidates(Search.of(config))


def test_both_ends_of_a_range_and_all_options_of_a_choice_are_there_in_every_combination() -> None:
    found = found_in({
        "model.base_channels": {"int": [16, 48], "step": 16},
        "train.batch_size": {"choice": [4, 8, 16]},
        "optimizer.lr": {"loguniform": [1e-4, 1e-1]},
        "loss.dice": {"uniform": [0.0, 2.0]},
    })  # fmt: skip
    seen = {(config.model.base_channels, config.train.batch_size) for config in found}
    assert {(width, size) for width in (16, 48) for size in (4, 8, 16)} <= seen
    assert len(seen) == len(found), "settings that do not decide the memory make no candidate of their own"
    assert next(config for config in found if config.model.base_channels == 48).loss.dice == 2.0


def test_every_branch_brings_its_own() -> None:
    found = found_in({
        "model.encoder": {"choice": {
            "timm:resnet18": {"train.batch_size": {"choice": [8, 64]}},
            "none": {"model.depth": {"int": [2, 5]}, "train.batch_size": 16},
        }}
    })  # fmt: skip
    seen = {(config.model.encoder, config.model.depth, config.train.batch_size) for config in found}
    assert {("timm:resnet18", 4, 8), ("timm:resnet18", 4, 64), ("none", 2, 16), ("none", 5, 16)} <= seen
    assert not any(encoder == "none" and size == 64 for encoder, _, size in seen)


def test_what_is_forbidden_is_no_candidate_and_what_is_near_it_is() -> None:
    found = found_in({
        "model.base_channels": {"int": [8, 64]},
        "train.batch_size": {"int": [2, 64]},
        "forbid": ["train.batch_size * model.base_channels > 1024"],
    })  # fmt: skip
    sizes = [config.model.base_channels * config.train.batch_size for config in found]
    assert max(sizes) <= 1024
    assert max(sizes) > 512, "the corners alone would give 64 * 2 and 8 * 64"


def test_a_corner_that_only_other_settings_forbid_is_found_with_different_ones() -> None:
    found = found_in({
        "train.batch_size": {"choice": [8, 64]},
        "loss.dice": {"uniform": [0.0, 2.0]},
        "forbid": ["train.batch_size == 64 and loss.dice > 1.9"],
    })  # fmt: skip
    (large,) = [config for config in found if config.train.batch_size == 64]
    assert large.loss.dice <= 1.9


def test_named_points_and_the_configs_own_come_first() -> None:
    found = found_in(
        {"train.batch_size": {"int": [2, 64]}},
        train={"batch_size": 5},
        search={"enqueue": [{"train.batch_size": 33}]},
    )
    assert [config.train.batch_size for config in found[:4]] == [5, 33, 64, 2]


def test_a_space_too_large_to_enumerate_is_cut_off_and_holds_its_largest_corner() -> None:
    choices = [2**power for power in range(1, 10)]
    found = found_in({
        "model.base_channels": {"choice": choices}, "train.batch_size": {"choice": choices},
        "model.depth": {"int": [1, 6]}, "train.micro_batch_size": {"choice": choices},
        "train.ema_decay": {"choice": [0.0, 0.5, 0.9]}, "optimizer.name": {"choice": ["adamw", "sgd", "nadam"]},
    })  # fmt: skip
    assert 1000 < len(found) < 5000


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("model.base_channels", True),
        ("model.dropout", False),
        ("model.encoder_weights", False),
        ("train.batch_size", True),
        ("train.micro_batch_size", True),
        ("train.grad_clip", False),
        ("optimizer.name", True),
        ("optimizer.lr", False),
    ],
)
def test_what_decides_the_memory(key: str, expected: bool) -> None:
    assert decides_memory(key) == expected


def test_a_line_names_what_was_searched_and_the_batch() -> None:
    config = TrainConfig.model_validate({"model": {"base_channels": 48}, "train": {"batch_size": 4}})
    space = parse_space({"model.base_channels": {"int": [8, 64]}, "optimizer.lr": {"uniform": [0.1, 0.2]}}, config)
    assert settings(config, space) == "model.base_channels=48, train.batch_size=4"
    space = parse_space({"train.batch_size": {"int": [8, 64]}}, config)
    assert settings(config, space) == "train.batch_size=4"
