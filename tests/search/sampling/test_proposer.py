import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from search.config.choices import SAMPLERS
from search.sampling.proposer import Proposer
from search.space.parse import parse_space
from search.space.tree import Space
from segcore.config import TrainConfig
from segcore.errors import ConfigError
from segcore.objective import Mode, Objective

BASE = TrainConfig()
CONDITIONAL = {
    "optimizer.lr": {"loguniform": [1e-5, 1e-1]},
    "lr_scheduler": {
        "choice": {"plateau": {"patience": {"int": [1, 50]}}, "cosine": {"warmup_epochs": {"uniform": [0.0, 3.0]}}}
    },
    "model.arch": {"choice": ["unet", "attention_unet"]},
}


def space_of(raw: dict[str, Any], forbid: list[str] | None = None) -> Space:
    return parse_space({**raw, **({"forbid": forbid} if forbid else {})}, BASE)


def new(space: Space, sampler: str, seed: int = 0, **options: Any) -> Proposer:
    settings = {"num_samples": 40, "max_epochs": 9, "rungs": (1, 3), "objective": Objective("val/iou"), **options}
    return Proposer(space, sampler, seed=seed, **settings)


def train(
    proposer: Proposer, value_of: Callable[[dict[str, Any]], float], count: int, start: int = 0, sign: float = 1.0
) -> list[dict[str, Any]]:
    """One worker; a third of the trials passes each rung."""
    points = []
    for number in range(start, start + count):
        flat, origin = proposer.propose(number)
        proposer.started(number, flat, origin)
        values = [t.values[1] for t in proposer.trials.values() if 1 in t.values]
        value = value_of(flat)
        proposer.reported(number, 1, value - 0.3 * sign)
        if not values or proposer.trials[number].values[1] >= np.quantile(values, 2 / 3):
            proposer.reported(number, 3, value - 0.1 * sign)
            proposer.reported(number, 9, value)
        proposer.ended(number)
        points.append(flat)
    return points


def in_another_session(before: Proposer, space: Space, name: str) -> Proposer:
    """A new proposer that is told of all trials of another one."""
    again = new(space, name)
    for past in before.trials.values():
        again.started(past.number, past.flat, past.origin)
        for epoch, value in past.values.items():
            again.reported(past.number, epoch, value)
        again.ended(past.number)
    return again


def slope(flat: dict[str, Any]) -> float:
    """The best learning rate is 1e-2, attention is worth 0.1."""
    return 1.0 - abs(float(np.log10(flat["optimizer.lr"])) + 2.0) / 4 + 0.1 * (flat["model.arch"] == "attention_unet")


@pytest.mark.parametrize("name", SAMPLERS.names)
def test_the_same_seed_suggests_the_same_and_nothing_twice(name: str) -> None:
    space = space_of(CONDITIONAL)
    runs = [train(new(space, name, seed), slope, 20) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert len({point["optimizer.lr"] for point in runs[0]}) == 20
    for point in runs[0]:
        space.to_params(point)  # raises for what is no point


@pytest.mark.parametrize("name", SAMPLERS.names)
def test_a_continued_search_suggests_nothing_twice(name: str) -> None:
    space = space_of(CONDITIONAL)
    first = new(space, name)
    points = train(first, slope, 12)
    for session in range(3):
        again = in_another_session(first, space, name)
        points += train(again, slope, 4, start=12 + 4 * session)
        first = again
    assert len({point["optimizer.lr"] for point in points}) == 24


@pytest.mark.parametrize("name", ["random", "tpe", "rung_tpe", "qmc"])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not(name: str) -> None:
    space = space_of(CONDITIONAL)
    whole = train(new(space, name), slope, 20)
    first = new(space, name)
    train(first, slope, 12)
    again = in_another_session(first, space, name)
    assert train(again, slope, 8, start=12) == whole[12:]


@pytest.mark.parametrize("name", SAMPLERS.names)
def test_trials_that_run_side_by_side_get_different_points(name: str) -> None:
    proposer = new(space_of(CONDITIONAL), name)
    train(proposer, slope, 12)
    rates = []
    for number in range(12, 20):  # none of them has reported yet
        flat, origin = proposer.propose(number)
        proposer.started(number, flat, origin)
        rates.append(float(np.log10(flat["optimizer.lr"])))
    assert min(abs(a - b) for a, b in itertools.combinations(rates, 2)) > 1e-6
    assert max(rates) - min(rates) > 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", ["auto", "gp", "tpe", "rung_tpe"])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_samplers_that_learn_find_the_good_region(name: str, mode: Mode) -> None:
    distances, archs = [], []
    for seed in range(3):
        proposer = new(space_of(CONDITIONAL), name, seed, objective=Objective("val/iou", mode))
        sign = 1.0 if mode == "max" else -1.0
        points = train(proposer, lambda flat, sign=sign: sign * slope(flat), 30, sign=sign)
        distances += [abs(float(np.log10(point["optimizer.lr"])) + 2.0) for point in points[-10:]]
        archs += [point["model.arch"] == "attention_unet" for point in points[-10:]]
    assert np.median(distances) < (0.8 if name == "tpe" else 0.6)  # random points: 1.0
    assert np.mean(archs) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["auto", "gp", "tpe", "rung_tpe"])
def test_a_choice_that_always_fails_is_left_alone(name: str) -> None:
    """Out of memory, say: the search must not spend half of its trials on it."""
    proposer = new(space_of(CONDITIONAL), name)
    failed = []
    for number in range(40):
        flat, origin = proposer.propose(number)
        proposer.started(number, flat, origin)
        failed.append(flat["model.arch"] == "attention_unet")
        if failed[-1]:
            proposer.ended(number, failed=True)
            continue
        for epoch in (1, 3, 9):
            proposer.reported(number, epoch, slope(flat) - 1 / epoch)
        proposer.ended(number)
    assert sum(failed[20:]) <= 5


def test_known_points_come_first_in_their_order_and_once() -> None:
    space = space_of(CONDITIONAL)
    rng = np.random.default_rng(0)
    own, good = space.sample_uniform(rng), space.sample_uniform(rng)
    proposer = new(space, "auto", first=[(own, "config"), (good, "enqueued"), (own, "enqueued")])
    found = []
    for number in range(3):
        flat, origin = proposer.propose(number)
        proposer.started(number, flat, origin)
        found.append((flat, origin))
    assert found[:2] == [(own, "config"), (good, "enqueued")]
    assert found[2][1] == "start"


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS.names)
def test_what_is_forbidden_is_never_proposed(name: str) -> None:
    rule = "optimizer.lr > 1e-3 and model.arch == 'attention_unet'"
    proposer = new(space_of(CONDITIONAL, [rule]), name)
    points = train(proposer, slope, 30)
    assert [p for p in points if p["optimizer.lr"] > 1e-3 and p["model.arch"] == "attention_unet"] == []
    assert any(p["model.arch"] == "attention_unet" for p in points)


@pytest.mark.parametrize("name", SAMPLERS.names)
def test_a_small_space_is_tried_out_before_anything_is_repeated(name: str) -> None:
    space = space_of({"augment.policy": {"choice": ["none", "flip", "light"]}, "model.depth": {"int": [2, 4]}})
    points = train(new(space, name), lambda flat: flat["model.depth"] / 10, 9)
    assert len({(p["augment.policy"], p["model.depth"]) for p in points}) == 9
    assert train(new(space, name), lambda flat: 0.5, 12)[11]  # and then it goes on all the same


def believed(center: float, seed: int, sampler: str) -> float:
    """How far from the optimum the best of 40 trials is, given a belief where it lies."""
    prior = {**CONDITIONAL, "optimizer.lr": {"loguniform": [1e-5, 1e-1], "prior": {"center": center, "width": 0.3}}}
    return 1.1 - max(slope(flat) for flat in train(new(space_of(prior), sampler, seed), slope, 40))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["auto", "rung_tpe"])
def test_a_good_belief_helps_and_a_misleading_one_costs_little(sampler: str) -> None:
    seeds = range(4)
    good = np.mean([believed(1e-2, seed, sampler) for seed in seeds])
    bad = np.mean([believed(3e-5, seed, sampler) for seed in seeds])
    none = np.mean([1.1 - max(map(slope, train(new(space_of(CONDITIONAL), sampler, s), slope, 40))) for s in seeds])
    assert good <= none + 0.005
    assert bad <= none + 0.05  # of a range of 1.1
    shares = {}
    for center in (1e-2, 3e-5):
        prior = {**CONDITIONAL, "optimizer.lr": {"loguniform": [1e-5, 1e-1], "prior": {"center": center, "width": 0.3}}}
        proposer = new(space_of(prior), sampler)
        train(proposer, slope, 40)
        late = [trial.origin == "prior" for trial in proposer.trials.values() if trial.number >= 20]
        shares[center] = sum(late)
    assert shares[3e-5] <= 2


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"search\.sampler: unknown sampler 'tp'; valid: auto, rung_tpe, gp"):
        new(space_of(CONDITIONAL), "tp")
