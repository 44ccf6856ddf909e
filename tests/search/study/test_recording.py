"""What the study's file keeps of trials while the space changes, read back by Optuna itself."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.config.tree import SearchConfig
from search.runs.journal import EventLog
from search.runs.paths import RunPaths
from search.space.parse import parse_space
from search.space.search import Search
from search.study.mirror import open_mirror
from search.study.observations import OUTSIDE_ATTR, PARAMS_ATTR
from search.study.recording import (
    covering,
    in_space,
    point_in,
    record_params,
)
from search.study.spaces import Spaces
from search.study.storage import close_study, open_study
from segcore.config import TrainConfig
from segcore.objective import Objective

BASE = TrainConfig()
FIRST: dict[str, Any] = {
    "optimizer.lr": {"loguniform": [1e-4, 1e-2]},
    "augment.policy": {"choice": ["none", "flip", "light"]},
}
SECOND: dict[str, Any] = {
    "optimizer.lr": {"loguniform": [1e-3, 1e-1]},
    "augment.policy": {"choice": ["medium", "flip"]},
}


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    (tmp_path / "birds").mkdir()
    return tmp_path / "birds" / "study.db"


def reopened(study_file: Path) -> optuna.Study:
    return open_study(f"sqlite:///{study_file}", "birds", mode="max", sampler=None)


def add(study_file: Path, space: dict[str, Any], flat: dict[str, Any], value: float | None = 0.5) -> None:
    """A trial as the search leaves it: complete, or still running without a value."""
    study = reopened(study_file)
    trial = study.ask()
    trial.set_user_attr(PARAMS_ATTR, flat)
    record_params(study, trial, parse_space(space, BASE), flat)
    if value is not None:
        study.tell(trial, value)


def first_trials(study_file: Path) -> None:
    for lr, policy, value in ((1e-4, "none", 0.1), (5e-4, "flip", 0.3), (5e-3, "light", 0.5), (1e-2, "flip", 0.7)):
        add(study_file, FIRST, {"optimizer.lr": lr, "augment.policy": policy}, value)


def fit_history(study_file: Path, raw_space: dict[str, Any], base: TrainConfig) -> None:
    """As a session of that space begins."""
    paths = RunPaths(study_file.parent)
    events = EventLog(paths.events)
    config, objective = SearchConfig.model_validate({"name": "x", "space": raw_space}), Objective("val/iou")
    search = Search(config, base, parse_space(raw_space, base), objective)
    close_study(open_mirror(paths, Spaces.of(search, paths), objective, events))
    events.close()


def outside(study_file: Path) -> list[int]:
    return [trial.number for trial in reopened(study_file).trials if trial.user_attrs.get(OUTSIDE_ATTR)]


def test_recorded_parameters_are_those_of_the_point(study_file: Path) -> None:
    add(study_file, FIRST, {"optimizer.lr": 1e-3, "augment.policy": "flip"}, None)
    (trial,) = reopened(study_file).trials
    assert trial.params == {"optimizer.lr": 1e-3, "augment.policy": "flip"}
    assert trial.distributions["optimizer.lr"] == FloatDistribution(1e-4, 1e-2, log=True)
    assert trial.distributions["augment.policy"] == CategoricalDistribution(("none", "flip", "light"))


def test_recording_again_after_a_kill_adds_what_is_missing(study_file: Path) -> None:
    study = reopened(study_file)
    trial = study.ask({"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True)})
    flat = {"optimizer.lr": trial.params["optimizer.lr"], "augment.policy": "none"}
    for _ in range(2):
        record_params(study, trial, parse_space(FIRST, BASE), flat)
        assert trial.params == flat
    assert reopened(study_file).trials[0].params == flat


def test_a_point_outside_of_the_space_is_not_recorded(study_file: Path) -> None:
    study = reopened(study_file)
    with pytest.raises(ValueError, match=r"optimizer\.lr=0\.5 is not in"):
        record_params(study, study.ask(), parse_space(FIRST, BASE), {"optimizer.lr": 0.5, "augment.policy": "none"})


def test_optuna_itself_refuses_a_changed_choice(study_file: Path) -> None:
    """The reason for all of this; when it passes one day, recording may become simpler."""
    first_trials(study_file)
    with pytest.raises(ValueError, match="does not support dynamic value space"):
        reopened(study_file).ask().suggest_categorical("augment.policy", ["medium", "flip"])


def test_a_changed_space_keeps_one_distribution_a_name_and_every_value(study_file: Path) -> None:
    first_trials(study_file)
    before = [(trial.params, trial.value, trial.state) for trial in reopened(study_file).trials]
    fit_history(study_file, SECOND, BASE)
    add(study_file, SECOND, {"optimizer.lr": 5e-2, "augment.policy": "medium"}, 0.9)
    study = reopened(study_file)
    assert [(trial.params, trial.value, trial.state) for trial in study.trials[:4]] == before
    assert study.trials[4].params == {"optimizer.lr": 5e-2, "augment.policy": "medium"}
    for trial in study.trials:
        assert trial.distributions["optimizer.lr"] == FloatDistribution(1e-4, 1e-1, log=True)
        assert trial.distributions["augment.policy"] == CategoricalDistribution(("none", "flip", "light", "medium"))
    importances = optuna.importance.get_param_importances(study)
    assert set(importances) == {"optimizer.lr", "augment.policy"}


def test_trials_outside_of_the_space_are_marked_and_come_back_when_it_is_widened(study_file: Path) -> None:
    first_trials(study_file)
    fit_history(study_file, SECOND, BASE)
    assert outside(study_file) == [0, 1, 2], "only lr 0.01 with flip is a point of the second space"
    fit_history(study_file, {**SECOND, "optimizer.lr": FIRST["optimizer.lr"]}, BASE)
    assert outside(study_file) == [0, 2]
    fit_history(study_file, FIRST, BASE)
    assert outside(study_file) == []


def test_a_space_that_did_not_change_is_not_compared_again(study_file: Path) -> None:
    first_trials(study_file)
    fit_history(study_file, SECOND, BASE)
    written = study_file.stat().st_ino
    fit_history(study_file, SECOND, BASE)
    assert study_file.stat().st_ino == written, "it was built anew"


def test_a_choice_that_becomes_a_range_stays_one_parameter(study_file: Path) -> None:
    sizes = {"model.base_channels": {"choice": [8, 12]}}
    for size in (8, 12):
        add(study_file, sizes, {"model.base_channels": size})
    wider = {"model.base_channels": {"int": [4, 16]}}
    fit_history(study_file, wider, BASE)
    add(study_file, wider, {"model.base_channels": 9})
    assert [trial.params["model.base_channels"] for trial in reopened(study_file).trials] == [8, 12, 9]
    assert {trial.distributions["model.base_channels"] for trial in reopened(study_file).trials} == {
        IntDistribution(4, 16)
    }


def test_values_that_no_distribution_can_hold_go_on_under_another_name(study_file: Path) -> None:
    words, numbers = {"threshold": {"choice": ["auto", 0.5]}}, {"threshold": {"uniform": [0.2, 0.8]}}
    add(study_file, words, {"threshold": "auto"})
    fit_history(study_file, numbers, BASE)
    add(study_file, numbers, {"threshold": 0.25})
    add(study_file, numbers, {"threshold": 0.75})
    fit_history(study_file, words, BASE)
    add(study_file, words, {"threshold": 0.5})
    assert [trial.params for trial in reopened(study_file).trials] == [
        {"threshold": "auto"}, {"threshold#2": 0.25}, {"threshold#2": 0.75}, {"threshold": 0.5},
    ]  # fmt: skip


def test_recording_raises_nothing_when_nobody_widened_the_study_before(study_file: Path) -> None:
    first_trials(study_file)
    add(study_file, SECOND, {"optimizer.lr": 5e-2, "augment.policy": "medium"})
    add(study_file, SECOND, {"optimizer.lr": 2e-3, "augment.policy": "flip"})
    assert [trial.params for trial in reopened(study_file).trials[4:]] == [
        {"optimizer.lr": 5e-2, "augment.policy#2": "medium"}, {"optimizer.lr": 2e-3, "augment.policy#2": "flip"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "wide"),
    [
        (FloatDistribution(1, 2), FloatDistribution(0, 1.5), FloatDistribution(0, 2)),
        (FloatDistribution(1, 2, log=True), FloatDistribution(0, 1), FloatDistribution(0, 2)),
        (FloatDistribution(0, 1, step=0.25), FloatDistribution(0.5, 2, step=0.25), FloatDistribution(0, 2, step=0.25)),
        (FloatDistribution(0, 1, step=0.25), FloatDistribution(0.1, 1.1, step=0.25), FloatDistribution(0, 1.1)),
        (IntDistribution(0, 8, step=4), IntDistribution(4, 16, step=4), IntDistribution(0, 16, step=4)),
        (IntDistribution(0, 8, step=4), IntDistribution(2, 10, step=4), IntDistribution(0, 10)),
        (IntDistribution(1, 3), FloatDistribution(0.5, 2), FloatDistribution(0.5, 3)),
        (CategoricalDistribution((2, 8)), IntDistribution(4, 6), IntDistribution(2, 8)),
        (CategoricalDistribution((2, 0.5)), IntDistribution(4, 6), FloatDistribution(0.5, 6)),
        (CategoricalDistribution(("a",)), CategoricalDistribution((True, 1)), CategoricalDistribution(("a", True, 1))),
        (CategoricalDistribution(("a", 1)), IntDistribution(4, 6), None),
        (CategoricalDistribution((True, False)), IntDistribution(0, 1), None),
    ],
)  # fmt: skip
def test_the_covering_distribution(a: BaseDistribution, b: BaseDistribution, wide: BaseDistribution | None) -> None:
    assert covering(a, b) == wide


CONDITIONAL = parse_space({"lr_scheduler": {"choice": {"plateau": {"patience": {"int": [1, 5]}}, "cosine": {}}}}, BASE)
PLATEAU = {"lr_scheduler.name": "plateau", "lr_scheduler.patience": 3}


@pytest.mark.parametrize(
    ("flat", "inside"),
    [
        (PLATEAU, True),
        ({**PLATEAU, "lr_scheduler.patience": 6}, False),
        ({"lr_scheduler.name": "cosine"}, True),
        ({"lr_scheduler.name": "constant"}, False),
        ({**PLATEAU, "optimizer.lr": BASE.optimizer.lr}, True),
        ({**PLATEAU, "optimizer.lr": BASE.optimizer.lr / 2}, False),
    ],
    ids=["a branch", "beyond its range", "the other", "no option", "the config's own", "no longer searched"],
)
def test_what_lies_in_the_space(flat: dict[str, Any], inside: bool) -> None:
    assert in_space(CONDITIONAL, BASE, flat) is inside


def test_a_key_that_is_newly_searched_had_the_configs_value() -> None:
    space = parse_space({**FIRST, "loss.dice": {"uniform": [0.0, 2.0]}}, BASE)
    flat = {"optimizer.lr": 1e-3, "augment.policy": "flip"}
    assert point_in(space, BASE, flat) == {**flat, "loss.dice": BASE.loss.dice}


def test_a_forbidden_point_is_outside() -> None:
    flat = {"optimizer.lr": 5e-3, "augment.policy": "flip"}
    assert in_space(parse_space(FIRST, BASE), BASE, flat)
    forbidding = parse_space({**FIRST, "forbid": ["augment.policy == 'flip' and optimizer.lr > 1e-3"]}, BASE)
    assert not in_space(forbidding, BASE, flat)
