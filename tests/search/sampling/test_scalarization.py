"""Metric and cost as one value, computed by hand, and what samplers make of it."""

import copy
import math
from typing import Any

import numpy as np
import pytest

from search.sampling.past import Past
from search.sampling.proposer import Proposer
from search.sampling.scalarization import WEIGHTS, scalarized
from search.space.parse import parse_space
from segcore.config import TrainConfig
from segcore.objective import Objective

IOU, COSTLY = Objective("val/iou"), Objective("val/iou", second="cost/parameters")
SPACE = parse_space(
    {"optimizer.lr": {"loguniform": [1e-5, 1e-1]}, "model.base_channels": {"int": [4, 64]}}, TrainConfig()
)


def past(number: int, values: dict[int, float], cost: float | None, **options: Any) -> Past:
    return Past(number, {}, np.zeros(1), values, cost=cost, **options)


# The best values are 0.9, 0.7 and 0.5; the costs 10, 100 and 1000.
TRIALS = [past(0, {1: 0.3, 3: 0.9}, 1000.0), past(1, {1: 0.7}, 100.0), past(2, {1: 0.5}, 10.0)]


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_each_epoch_has_the_augmented_tchebycheff_value_of_its_loss_and_its_trials_cost(weight: float) -> None:
    def value(loss: float, expense: float) -> float:
        a, b = weight * loss, (1 - weight) * expense
        return -(max(a, b) + 0.05 * (a + b))

    found = [trial.values for trial in scalarized(TRIALS, weight)]
    expected = [{1: value(1.5, 1.0), 3: value(0.0, 1.0)}, {1: value(0.5, 0.5)}, {1: value(1.0, 0.0)}]
    assert len(found) == 3
    for left, right in zip(found, expected, strict=True):
        assert left == pytest.approx(right)


def test_the_hopeless_do_not_stretch_the_range() -> None:
    """Best 0.9, median 0.8: the range ends at 0.65, and 0.15 below it is 1.6 times as far from the best."""
    trials = [past(n, {1: v}, 10.0) for n, v in enumerate([0.9, 0.8, 0.8, 0.8, 0.5])]
    found = [-trial.values[1] / 1.05 for trial in scalarized(trials, 1.0)]
    assert found == pytest.approx([0.0, 0.4, 0.4, 0.4, 1.6])


def test_a_trial_without_a_cost_has_no_values_and_no_trial_is_touched() -> None:
    trials = [*TRIALS, past(3, {1: 0.99}, None), past(4, {}, None, running=False, failed=True)]
    before = copy.deepcopy(trials)
    found = scalarized(trials, 0.5)
    assert [trial.values for trial in found[3:]] == [{}, {}]
    assert (found[4].failed, found[4].running, found[3].running) == (True, False, True)
    assert [vars(t) | {"position": 0} for t in trials] == [vars(t) | {"position": 0} for t in before]
    assert [trial.values for trial in scalarized(trials[3:], 0.5)] == [{}, {}]


def test_equal_trials_are_worth_the_same_whatever_the_weight() -> None:
    twins = [past(0, {1: 0.5}, 10.0), past(1, {1: 0.5}, 10.0)]
    assert [trial.values for trial in scalarized(twins, 0.3)] == [{1: 0.0}, {1: 0.0}]


def test_every_point_of_a_front_that_bends_inward_is_the_best_for_some_weight() -> None:
    """A weighted sum would find its two ends alone."""
    front = [past(n, {1: v}, c) for n, (v, c) in enumerate([(0.9, 1000.0), (0.62, 100.0), (0.6, 50.0), (0.5, 10.0)])]
    bests = set()
    for weight in WEIGHTS:
        values = [trial.values[1] for trial in scalarized(front, weight)]
        bests.add(values.index(max(values)))
    assert {0, 1, 3} <= bests


def quality(flat: dict[str, Any]) -> float:
    """The best learning rate is 1e-2; ever wider is ever better, by less and less."""
    return 0.9 - 0.1 * abs(math.log10(flat["optimizer.lr"]) + 2) - 0.4 / math.sqrt(flat["model.base_channels"])


def search(sampler: str, seed: int, count: int, *, has_cost: bool) -> list[tuple[float, float]]:
    """The `(value, cost)` of trials that all train to their end."""
    proposer = Proposer(
        SPACE, sampler, seed=seed, num_samples=count, max_epochs=3, rungs=(1,), objective=COSTLY if has_cost else IOU
    )
    points = []
    for number in range(count):
        flat, origin = proposer.propose(number)
        value, cost = quality(flat), 100.0 * flat["model.base_channels"] ** 2
        proposer.started(number, flat, origin)
        if has_cost:
            proposer.cost(number, cost)
        for epoch, share in ((1, 0.6), (3, 1.0)):
            proposer.reported(number, epoch, share * value)
        proposer.ended(number)
        points.append((value, cost))
    return points


def hypervolume(points: list[tuple[float, float]]) -> float:
    """The share of what lies between a value of 0.4 and the best, and between the dearest and the cheapest model."""
    low, high = math.log(1600), math.log(409600)
    scaled = sorted(
        (((v - 0.4) / 0.45, (high - math.log(c)) / (high - low)) for v, c in points if v > 0.4), reverse=True
    )
    total, covered = 0.0, 0.0
    for value, thrift in scaled:
        total += value * max(0.0, thrift - covered)
        covered = max(covered, thrift)
    return total


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["auto", "rung_tpe", "gp"])
def test_a_search_for_both_finds_a_better_front_than_one_for_the_metric(sampler: str) -> None:
    both, one, at_random = (
        np.mean([hypervolume(search(name, seed, 40, has_cost=has_cost)) for seed in range(3)])
        for name, has_cost in ((sampler, True), (sampler, False), ("random", False))
    )
    assert both > one
    assert both > at_random


def test_a_proposal_follows_from_seed_number_and_trials_and_weights_differ() -> None:
    assert search("auto", 1, 20, has_cost=True) == search("auto", 1, 20, has_cost=True)
    assert search("auto", 1, 20, has_cost=True) != search("auto", 2, 20, has_cost=True)


def test_a_proposer_that_is_told_of_earlier_trials_goes_on_where_another_stopped() -> None:
    """TPE keeps nothing between proposals, so the next one is the very same."""

    def told(order: list[int]) -> Proposer:
        proposer = Proposer(SPACE, "rung_tpe", seed=0, num_samples=20, max_epochs=3, rungs=(1,), objective=COSTLY)
        rng = np.random.default_rng(0)
        flats = [SPACE.sample_uniform(rng) for _ in range(20)]
        for number in order:
            proposer.started(number, flats[number])
            proposer.cost(number, 100.0 * flats[number]["model.base_channels"] ** 2)
            proposer.reported(number, 1, quality(flats[number]))
            proposer.ended(number)
        return proposer

    assert told(list(range(20))).propose(20) == told(list(reversed(range(20)))).propose(20)
