from typing import Any

import numpy as np
import pytest

from search.sampling.cube import Cube
from search.space.parse import parse_space
from segcore.config import TrainConfig

BASE = TrainConfig()
SPACE = parse_space(
    {
        "optimizer.lr": {"loguniform": [1e-5, 1e-1]},
        "model.base_channels": {"int": [8, 32], "step": 8},
        "loss.dice": {"quniform": [0.0, 1.0, 0.25]},
        "lr_scheduler": {
            "choice": {
                "plateau": {"patience": {"int": [1, 5]}},
                "cosine": {"warmup_epochs": {"uniform": [0.0, 3.0]}},
                "onecycle": {},
            }
        },
    },
    BASE,
)
CUBE = Cube(SPACE)


def random_positions(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).uniform(size=(count, CUBE.num_axes))


def test_every_position_is_a_point_and_every_point_has_its_position() -> None:
    for position in random_positions(200):
        flat = CUBE.point(position)
        SPACE.to_params(flat)  # raises for what is no point
        again = CUBE.point(CUBE.position(flat))
        assert again == pytest.approx(flat)


def test_ends_and_middle_of_an_axis_on_the_range_s_own_scale() -> None:
    low, middle, high = (CUBE.point(np.full(CUBE.num_axes, at)) for at in (0.0, 0.5, 1.0))
    assert [low["optimizer.lr"], middle["optimizer.lr"], high["optimizer.lr"]] == pytest.approx([1e-5, 1e-3, 1e-1])
    assert [low["model.base_channels"], high["model.base_channels"]] == [8, 32]
    assert [low["loss.dice"], middle["loss.dice"], high["loss.dice"]] == [0.0, 0.5, 1.0]
    assert [p["lr_scheduler.name"] for p in (low, middle, high)] == ["plateau", "cosine", "onecycle"]


def test_each_value_of_a_stepped_range_and_a_choice_owns_an_equal_part() -> None:
    points = [CUBE.point(position) for position in random_positions(4000)]
    channels = np.unique([point["model.base_channels"] for point in points], return_counts=True)
    assert channels[0].tolist() == [8, 16, 24, 32]
    assert channels[1] / 4000 == pytest.approx(0.25, abs=0.03)
    names = np.unique([point["lr_scheduler.name"] for point in points], return_counts=True)
    assert names[1] / 4000 == pytest.approx(1 / 3, abs=0.03)


def test_features_leave_out_what_a_point_does_not_take() -> None:
    axes = [node.name for node in CUBE.parameters]
    positions = random_positions(2)
    positions[:, axes.index("lr_scheduler.name")] = 0.99  # onecycle has nothing of its own
    positions[1] = positions[0]
    positions[1, axes.index("lr_scheduler.patience")] = 0.123
    positions[1, axes.index("lr_scheduler.warmup_epochs")] = 0.123
    features = CUBE.features(positions)
    assert features.shape == (2, CUBE.num_features) == (2, 3 + 3 + 2)
    assert features[0].tolist() == features[1].tolist()
    positions[:, axes.index("lr_scheduler.name")] = 0.0  # plateau takes its patience
    first, second = CUBE.features(positions)
    assert first.tolist() != second.tolist()


def test_two_options_are_as_far_apart_as_the_ends_of_a_range() -> None:
    axes = [node.name for node in CUBE.parameters]
    positions = np.full((2, CUBE.num_axes), 0.5)
    positions[0, axes.index("lr_scheduler.name")] = 0.99
    apart = np.zeros((2, CUBE.num_axes)) + 0.5
    apart[:, axes.index("optimizer.lr")] = [0.0, 1.0]
    schedule = parse_space({"lr_scheduler": {"choice": ["cosine", "onecycle"]}}, BASE)
    a, b = Cube(schedule).features(np.array([[0.1], [0.9]]))
    assert np.linalg.norm(a - b) == pytest.approx(1.0)
    a, b = CUBE.features(apart)
    assert np.linalg.norm(a - b) == pytest.approx(1.0)


def test_a_point_outside_of_the_space_has_no_position() -> None:
    flat = CUBE.point(np.full(CUBE.num_axes, 0.5))
    with pytest.raises(ValueError, match="is not in"):
        CUBE.position({**flat, "optimizer.lr": 0.5})
    with pytest.raises(KeyError):
        CUBE.position({"optimizer.lr": 1e-3})


def test_a_space_of_steps_and_choices_is_counted() -> None:
    assert CUBE.num_points is None
    finite = parse_space({"augment.policy": {"choice": ["none", "flip"]}, "model.depth": {"int": [2, 4]}}, BASE)
    assert Cube(finite).num_points == 6
