"""Which points train the same, how many a space has, and that no search trains one twice."""

from collections.abc import Callable
from typing import Any

import pytest
from small_searches import QUIET
from specs import new_spec
from study_searchers import journal_of, reopen, result, suggested

from search.config.choices import SAMPLERS
from search.config.tree import SearchConfig
from search.sampling.proposals import build_proposer, points_left
from search.sampling.proposer import Proposer
from search.sampling.small_spaces import too_few_points
from search.space.parse import parse_space
from search.space.points import Points, too_few
from search.space.search import Search
from search.space.tree import flatten
from search.stages.checks import contents
from search.stages.checks.check import Preparation
from search.tune.searcher import StudySearcher
from segcore.config import TrainConfig
from segcore.objective import Objective

BASE = TrainConfig()
TWO = {"augment.policy": {"choice": ["none", "flip"]}}


def points_of(raw: dict[str, Any], base: TrainConfig = BASE) -> Points:
    return Points(parse_space(raw, base), flatten(base))


def search_of(raw: dict[str, Any], **settings: Any) -> Search:
    config = SearchConfig.model_validate({"name": "small", "space": raw, "search": {"num_samples": 5, **settings}})
    return Search(config, BASE, parse_space(raw, BASE), Objective("val/iou"))


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (TWO, 2),
        ({"train.batch_size": {"int": [4, 16], "step": 4}, **TWO}, 8),
        ({"loss.dice": {"quniform": [0.1, 0.5, 0.1]}}, 5),
        ({"optimizer.lr": {"loguniform": [1e-3, 1e-2]}, **TWO}, None),
        # plateau with each of three patiences, and cosine once
        ({"lr_scheduler": {"choice": {"plateau": {"patience": {"int": [1, 3]}}, "cosine": {}}}}, 4),
        # adamw has no momentum: sgd with each of three, and adamw once
        ({"optimizer": {"choice": ["adamw", "sgd"]}, "optimizer.momentum": {"choice": [0.0, 0.5, 0.9]}}, 4),
        # without augmentation a rotation has no effect, and with it there is no end of them
        ({"augment.policy": {"choice": ["none", "light"]}, "augment.rotate": {"uniform": [0, 30]}}, None),
        ({"train.batch_size": {"choice": [8, 16]}, **TWO,
          "forbid": ["train.batch_size == 16 and augment.policy == 'flip'"]}, 3),
        # of three momenta one is forbidden; with adamw the other two train the same
        ({"optimizer": {"choice": ["adamw", "sgd"]}, "optimizer.momentum": {"choice": [0.0, 0.5, 0.9]},
          "forbid": ["optimizer.momentum == 0.0"]}, 3),
        # too many to be counted
        ({"train.batch_size": {"int": [1, 1000]}, "model.base_channels": {"int": [4, 64]}}, None),
    ],
)  # fmt: skip
def test_points_are_counted_by_what_is_trained(raw: dict[str, Any], number: int | None) -> None:
    every = points_of(raw).every
    assert (None if every is None else len(every)) == number


def test_points_that_differ_in_what_training_ignores_are_the_same() -> None:
    points = points_of({"optimizer": {"choice": ["adamw", "sgd"]}, "optimizer.momentum": {"choice": [0.0, 0.9]}})
    adamw = [points.key({"optimizer.name": "adamw", "optimizer.momentum": value}) for value in (0.0, 0.9)]
    sgd = [points.key({"optimizer.name": "sgd", "optimizer.momentum": value}) for value in (0.0, 0.9)]
    assert adamw[0] == adamw[1] == (("optimizer.name", "adamw"),)
    assert len({*adamw, *sgd}) == 3


def test_a_key_that_a_branch_leaves_is_the_configs_own() -> None:
    base = TrainConfig.model_validate({"optimizer": {"lr": 0.01}})
    points = points_of({"model.arch": {"choice": {"unet": {"optimizer.lr": {"choice": [0.01, 0.1]}},
                                                  "attention_unet": {}}}}, base)  # fmt: skip
    keys = {points.key({"model.arch": "attention_unet"}), points.key({"model.arch": "unet", "optimizer.lr": 0.01})}
    assert {dict(key)["optimizer.lr"] for key in keys} == {0.01}
    assert points.every is not None
    assert len(points.every) == 3


def test_steps_that_differ_in_their_last_bits_are_the_same() -> None:
    points = points_of({"loss.dice": {"quniform": [0.1, 0.5, 0.1]}})
    assert points.key({"loss.dice": 0.1 + 0.2}) == points.key({"loss.dice": 0.3})


def test_what_the_user_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "prove_space", lambda _: None)
    assert too_few(2, 5) == "the space has 2 points; 5 trials were asked for: it stops after 2"
    assert too_few(1, 2) == "the space has 1 point; 2 trials were asked for: it stops after 1"
    assert too_few(5, 5) is None
    assert too_few(None, 5) is None
    assert too_few_points(search_of(TWO, num_samples=4, scheduler={"name": "pbt"})) is None
    with caplog.at_level("WARNING", logger="segsearch"):
        contents.space(Preparation(search_of(TWO), "search", QUIET))
    assert caplog.messages == ["the space has 2 points; 5 trials were asked for: it stops after 2"]


SPACES: list[dict[str, Any]] = [
    {"train.batch_size": {"int": [1, 10]}, "model.depth": {"int": [1, 5]}},
    {"optimizer": {"choice": ["adamw", "sgd"]}, "optimizer.momentum": {"quniform": [0, 0.9, 0.1]},
     "augment.policy": {"choice": ["none", "flip"]}},
]  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS.names)
@pytest.mark.parametrize(("raw", "number"), [(SPACES[0], 15), (SPACES[1], 22)])
def test_no_sampler_proposes_what_was_tried(sampler: str, raw: dict[str, Any], number: int) -> None:
    search = search_of(raw)
    proposer = Proposer(
        search.space, sampler, seed=0, num_samples=number, max_epochs=3, rungs=(1,), objective=search.objective,
        points=search.points,
    )  # fmt: skip
    keys = set()
    for trial in range(number):
        assert not proposer.is_used_up
        flat, origin = proposer.propose(trial)
        keys.add(search.points.key(flat))
        proposer.started(trial, flat, origin)
        if trial % 7 == 3:
            proposer.ended(trial, failed=True)
            continue
        proposer.reported(trial, 1, hash(tuple(flat.items())) % 100 / 100)
        proposer.ended(trial)
    assert len(keys) == number
    assert proposer.is_used_up == (search.points.every is not None and len(search.points.every) == number)


@pytest.fixture
def begin(url: str) -> Callable[..., StudySearcher]:
    """Begins a session of a search on one study."""

    def new(search: Search) -> StudySearcher:
        study = reopen(url)
        return StudySearcher(study, search, new_spec, build_proposer(search, study), journal_of(study))

    return new


def test_a_search_ends_with_the_last_point_in_every_session(begin: Callable[..., StudySearcher], url: str) -> None:
    search = search_of(TWO)
    searcher = begin(search)
    first = suggested(searcher, "a")["train"]["augment"]["policy"]
    searcher.on_trial_complete("a", result(1, 0.5, finished=True))
    searcher.flush()
    again = begin(search)
    second = suggested(again, "b")["train"]["augment"]["policy"]
    assert {first, second} == {"none", "flip"}
    assert again.suggest("c") is None  # the last one may still lose its worker
    again.on_trial_complete("b", result(1, 0.5, finished=True))
    assert again.suggest("c") == "FINISHED"
    assert begin(search).suggest("d") == "FINISHED"
    wider = search_of({"augment.policy": {"choice": ["none", "flip", "light"]}})
    tried = [{"augment.policy": "none"}, {"augment.policy": "flip"}, {"augment.policy": "flip", "optimizer.lr": 0.5}]
    assert (points_left(search, tried), points_left(wider, tried)) == (0, 1)
    assert suggested(begin(wider), "e")["train"]["augment"]["policy"] == "light"
