# ruff: noqa: E501
"""Priors and random points: how draws are spread, and what a prior may say."""

from typing import Any

import numpy as np
import optuna
import pytest

from search.space.domains import (
    Choice,
    Option,
    Prior,
    Range,
)
from search.space.parse import parse_space
from segcore.config import TrainConfig
from segcore.errors import ConfigError

BASE = TrainConfig()
LR = {"loguniform": [1e-5, 1e-1], "prior": {"center": 1e-3, "width": 0.5}}


def draws(domain: Range | Choice, prior: Prior | None = None, count: int = 4000) -> list[Any]:
    rng = np.random.default_rng(0)
    return [domain.draw(rng, prior) for _ in range(count)]


def test_a_logarithmic_prior_is_a_normal_in_decades() -> None:
    (node,) = parse_space({"optimizer.lr": LR}, BASE).priors
    assert node.prior == Prior(1e-3, 0.5)
    assert isinstance(node.domain, Range)
    found = np.log10(draws(node.domain, node.prior))
    assert found.mean() == pytest.approx(-3.0, abs=0.03)
    assert found.std() == pytest.approx(0.5, abs=0.02)
    assert np.mean(np.abs(found + 3.0) < 0.5) == pytest.approx(0.683, abs=0.03)


def test_a_prior_at_the_end_of_a_range_is_cut_off_there() -> None:
    found = np.array(draws(Range(0.0, 1.0), Prior(0.0, 0.2)))
    assert found.min() >= 0.0
    assert found.mean() == pytest.approx(0.2 * np.sqrt(2 / np.pi), abs=0.01)  # half a normal
    far = np.array(draws(Range(0.0, 1.0), Prior(1.0, 1e-6), 200))
    assert 1.0 - 1e-5 < far.min() <= far.max() <= 1.0


def test_a_very_wide_prior_is_no_prior() -> None:
    for domain in (Range(0.0, 1.0), Range(1e-5, 1e-1, log=True)):
        wide, even = np.sort(draws(domain, Prior(domain.low, 1e9))), np.sort(draws(domain))
        assert np.quantile(wide, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(even, [0.1, 0.5, 0.9]), rel=0.1)


@pytest.mark.parametrize(
    ("domain", "values"),
    [
        (Range(2, 5, integer=True), [2, 3, 4, 5]),
        (Range(8, 32, integer=True, step=8), [8, 16, 24, 32]),
        (Range(0.0, 0.4, step=0.1), [0.0, 0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_every_value_of_a_stepped_range_is_as_likely_as_the_next(domain: Range, values: list[float]) -> None:
    assert domain.size == len(values)
    found = draws(domain)
    assert all(domain.holds(value) for value in found)
    assert {type(value) for value in found} == {int if domain.integer else float}
    unique, counts = np.unique(np.round(found, 9), return_counts=True)
    assert unique == pytest.approx(values)
    assert counts / len(found) == pytest.approx(1 / len(values), abs=0.03)


def test_a_stepped_prior_peaks_at_its_center_and_is_symmetric() -> None:
    found = draws(Range(1, 9, integer=True), Prior(5, 1.0))
    counts = {value: found.count(value) / len(found) for value in range(1, 10)}
    assert counts[5] == pytest.approx(0.383, abs=0.03)  # the middle standard deviation of a normal
    assert counts[4] == pytest.approx(counts[6], abs=0.03)
    assert counts[1] + counts[9] < 0.01


def test_the_others_of_a_choice_share_the_width_of_its_prior() -> None:
    choice = Choice(tuple(Option(name) for name in ("a", "b", "c")))
    found = draws(choice, Prior("b", 0.4))
    assert found.count("b") / len(found) == pytest.approx(0.6, abs=0.03)
    assert found.count("a") / len(found) == pytest.approx(0.2, abs=0.03)
    assert draws(choice).count("a") / 4000 == pytest.approx(1 / 3, abs=0.03)
    assert set(draws(Choice((Option("a"),)), Prior("a", 1.0), 50)) == {"a"}
    assert "b" not in draws(choice, Prior("b", 1.0), 200)


@pytest.mark.parametrize(
    ("key", "domain", "expected"),
    [
        ("optimizer.lr", {"loguniform": [1e-5, 1e-1], "prior": {"center": 1e-3}}, Prior(1e-3, 1.0)),
        ("loss.dice", {"uniform": [0, 2], "prior": {"center": 1}}, Prior(1.0, 0.5)),
        ("model.depth", {"int": [1, 7], "prior": {"center": 4.0, "width": 2}}, Prior(4, 2)),
        ("model.dropout", {"quniform": [0.0, 0.4, 0.1], "prior": {"center": 0.3}}, Prior(0.3, 0.1)),
        ("optimizer", {"choice": ["adamw", "sgd"], "prior": {"center": "sgd"}}, Prior("sgd", 0.5)),
        ("train.compile", {"choice": [True, False], "prior": {"center": "no", "width": 1}}, Prior(False, 1)),
        ("model.decoder_channels", {"choice": [[16, 8], None], "prior": {"center": [16, 8]}}, Prior((16, 8), 0.5)),
        ("model.decoder_channels", {"choice": [[16, 8], None], "prior": {"center": None}}, Prior(None, 0.5)),
    ],
)
def test_what_a_prior_says_is_kept(key: str, domain: dict[str, Any], expected: Prior) -> None:
    (node,) = parse_space({key: domain}, BASE).priors
    assert node.prior is not None
    assert node.prior.center == expected.center
    assert node.prior.width == pytest.approx(expected.width)
    without = {name: part for name, part in domain.items() if name != "prior"}
    assert parse_space({key: without}, BASE).priors == ()


BAD = [
    ({"uniform": [0, 1], "prior": 0.5}, "dice.prior: found 0.5; valid: {center: VALUE} or {center: VALUE, width: NUMBER}"),
    ({"uniform": [0, 1], "prior": {"width": 1}}, "dice.prior: found a map with width; valid: {center: VALUE}"),
    ({"uniform": [0, 1], "prior": {"center": 0.5, "mean": 1}}, "dice.prior: found a map with center, mean; valid:"),
    ({"uniform": [0, 1], "prior": {"center": 1.5}}, "dice.prior.center: found 1.5; valid: 0 to 1"),
    ({"uniform": [0, 1], "prior": {"center": "mid"}}, "dice.prior.center: found 'mid'; valid: 0 to 1"),
    ({"uniform": [0, 1], "prior": {"center": True}}, "dice.prior.center: found true; valid: 0 to 1"),
    ({"uniform": [0, 1], "prior": {"center": 0.5, "width": 0}}, "dice.prior.width: found 0; valid: above 0, a standard deviation in the unit of the value (default 0.25)"),
    ({"uniform": [0, 1], "prior": {"center": 0.5, "width": "wide"}}, "dice.prior.width: found 'wide'"),
    ({"loguniform": [0.1, 1], "prior": {"center": 0.5, "width": -1}}, "a standard deviation in decades"),
    ({"quniform": [0, 1, 0.5], "prior": {"center": 0.3}}, "dice.prior.center: found 0.3; valid: 0 to 1, step 0.5"),
    ({"choice": [0, 1], "prior": {"center": 2}}, "dice.prior.center: found 2; valid: 0.0 | 1.0"),
    ({"choice": [0, 1], "prior": {"center": 1, "width": 1.5}}, "dice.prior.width: found 1.5; valid: above 0 and up to 1"),
    ({"prior": {"center": 1}}, "dice: found a map with prior; valid: one of {uniform"),
]  # fmt: skip


@pytest.mark.parametrize(("domain", "message"), BAD)
def test_a_bad_prior_is_one_line_that_says_what_is_valid(domain: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=r"^space\.loss\.dice") as caught:
        parse_space({"loss.dice": domain}, BASE)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_center_of_a_choice_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"optimizer\.prior\.center: found 'sdg'; valid: adamw \| sgd; did you mean sgd"
    ):
        parse_space({"optimizer": {"choice": ["adamw", "sgd"], "prior": {"center": "sdg"}}}, BASE)


NESTED: dict[str, Any] = {
    "optimizer": {
        "choice": {
            "adamw": {"lr": {"loguniform": [1e-5, 1e-1], "prior": {"center": 1e-3, "width": 0.2}}},
            "sgd": {
                "lr": {"loguniform": [1e-5, 1e-1], "prior": {"center": 1e-2, "width": 0.2}},
                "lr_scheduler": {
                    "choice": {
                        "plateau": {"patience": {"int": [0, 50], "prior": {"center": 40, "width": 1}}},
                        "cosine": {},
                    }
                },
                "model.dropout": 0.2,
            },
        },
        "prior": {"center": "sgd", "width": 0.25},
    }
}


def test_branches_have_priors_of_their_own_to_any_depth_and_one_name_in_the_study() -> None:
    space = parse_space(NESTED, BASE)
    assert [node.key for node in space.priors] == [
        "optimizer.name",
        "optimizer.lr",
        "optimizer.lr",
        "lr_scheduler.patience",
    ]
    assert {node.name for node in space.parameters()} == {
        "optimizer.name",
        "optimizer.lr",
        "lr_scheduler.name",
        "lr_scheduler.patience",
    }
    rng = np.random.default_rng(0)
    points = [space.sample_prior(rng) for _ in range(1000)]
    by_name = {name: [p for p in points if p["optimizer.name"] == name] for name in ("adamw", "sgd")}
    assert len(by_name["sgd"]) / len(points) == pytest.approx(0.75, abs=0.05)
    for name, center in (("adamw", -3.0), ("sgd", -2.0)):
        assert np.log10([p["optimizer.lr"] for p in by_name[name]]).mean() == pytest.approx(center, abs=0.1)
    patient = [p["lr_scheduler.patience"] for p in points if "lr_scheduler.patience" in p]
    assert np.mean(patient) == pytest.approx(40, abs=0.5)


def test_random_points_hold_what_their_branches_reach_and_no_more() -> None:
    space = parse_space(NESTED, BASE)
    sampler = optuna.samplers.RandomSampler(seed=0)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler)
    asked = {frozenset(space.suggest(study.ask())) for _ in range(100)}
    rng = np.random.default_rng(0)
    for sample in (space.sample_uniform, space.sample_prior):
        points = [sample(rng) for _ in range(200)]
        assert {frozenset(point) for point in points} == asked
        for point in points:
            assert space.from_params(space.to_params(point)) == point


def test_the_same_seed_gives_the_same_points() -> None:
    space = parse_space(NESTED, BASE)
    one, other = (space.sample_prior(np.random.default_rng(3)) for _ in range(2))
    assert one == other
    assert one != space.sample_prior(np.random.default_rng(4))


def test_a_prior_does_not_make_a_parameter_of_its_own_but_a_range_does() -> None:
    branches: dict[str, Any] = {"adamw": {"lr": LR}, "sgd": {"lr": {"loguniform": LR["loguniform"]}}}
    space = parse_space({"optimizer": {"choice": branches}}, BASE)
    assert [node.name for node in space.parameters()] == ["optimizer.name", "optimizer.lr"]
    branches["nadam"] = {"lr": {"uniform": [0.1, 1]}}
    names = [node.name for node in parse_space({"optimizer": {"choice": branches}}, BASE).parameters()]
    assert names == ["optimizer.name", "optimizer.lr@adamw", "optimizer.lr@sgd", "optimizer.lr@nadam"]
