from collections.abc import Callable
from typing import Any

import optuna
import pytest

from search.errors import ConfigError
from search.sampler import SAMPLERS, build_sampler


def objective(trial: optuna.Trial) -> float:
    """A conditional space: the first choice decides what else there is."""
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    if trial.suggest_categorical("schedule", ["plateau", "cosine"]) == "plateau":
        return lr + trial.suggest_int("patience", 1, 50)
    return lr + trial.suggest_float("warmup", 0.0, 3.0)


@pytest.fixture
def new_study() -> Callable[[str, int], optuna.Study]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def build(name: str, seed: int) -> optuna.Study:
        sampler = build_sampler(name, seed=seed, num_samples=20, num_existing=0)
        return optuna.create_study(sampler=sampler, direction="minimize")

    return build


def points(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_the_same_seed_suggests_the_same(name: str, new_study: Callable[[str, int], optuna.Study]) -> None:
    first, second, other = new_study(name, 1), new_study(name, 1), new_study(name, 2)
    for study in (first, second, other):
        study.optimize(objective, n_trials=12)
    assert points(first) == points(second)
    assert points(first) != points(other)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_continued_study_suggests_nothing_twice(name: str, new_study: Callable[[str, int], optuna.Study]) -> None:
    study = new_study(name, 1)
    study.optimize(objective, n_trials=6)
    for _ in range(3):  # three sessions more, each with a sampler of its own
        existing = len(study.trials)
        study.sampler = build_sampler(name, seed=1, num_samples=20, num_existing=existing)
        study.optimize(objective, n_trials=4)
    rates = [point["lr"] for point in points(study)]
    assert len(rates) == 18
    assert len(set(rates)) == 18


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_continued_study_goes_on_the_same_each_time(name: str, new_study: Callable[[str, int], optuna.Study]) -> None:
    studies = [new_study(name, 1), new_study(name, 1)]
    for study in studies:
        study.optimize(objective, n_trials=6)
        study.sampler = build_sampler(name, seed=1, num_samples=20, num_existing=6)
        study.optimize(objective, n_trials=6)
    assert points(studies[0]) == points(studies[1])


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_trials_that_are_running_do_not_get_the_same_point(
    name: str, new_study: Callable[[str, int], optuna.Study]
) -> None:
    study = new_study(name, 1)
    asked = [study.ask() for _ in range(8)]
    rates = [trial.suggest_float("lr", 1e-5, 1e-1, log=True) for trial in asked]
    assert len(set(rates)) == 8


def test_tpe_finds_the_better_half_of_a_plain_slope(new_study: Callable[[str, int], optuna.Study]) -> None:
    study = new_study("tpe", 0)
    study.optimize(lambda trial: abs(trial.suggest_float("x", -1.0, 1.0) - 0.5), n_trials=20)
    late = [abs(point["x"] - 0.5) for point in points(study)[-8:]]
    assert sum(late) / len(late) < 0.35  # random points would be 0.625 away on average


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"search\.sampler: unknown sampler 'tp'; valid: tpe, random"):
        build_sampler("tp", seed=0, num_samples=10, num_existing=0)
