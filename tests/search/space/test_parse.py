# ruff: noqa: E501
"""The declarative space: what it yields, what it refuses, and how it meets Optuna."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from search.config.file import read_config
from search.space.parse import apply, parse_space
from search.space.tree import Space, flatten
from segcore.config import ModelConfig, OptimizerConfig, TrainConfig
from segcore.errors import ConfigError

BASE = TrainConfig()
CONDITIONAL: dict[str, Any] = {
    "lr_scheduler": {
        "choice": {
            "plateau": {"patience": {"int": [1, 5]}, "factor": {"uniform": [0.1, 0.7]}},
            "cosine": {"warmup_epochs": {"int": [0, 3]}, "model.dropout": 0.3},
            "constant": None,
        }
    }
}


def sampled(space: Space, count: int = 200) -> list[tuple[dict[str, Any], optuna.trial.FrozenTrial]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(count):
        trial = study.ask()
        trial.set_user_attr("flat", space.suggest(trial))
        study.tell(trial, 0.0)
    return [(trial.user_attrs["flat"], trial) for trial in study.trials]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.mark.parametrize(
    ("key", "domain", "distribution"),
    [
        ("loss.dice", {"uniform": [0, 2]}, FloatDistribution(0.0, 2.0)),
        ("optimizer.lr", {"loguniform": [1e-5, 1e-2]}, FloatDistribution(1e-5, 1e-2, log=True)),
        ("model.dropout", {"quniform": [0.0, 0.4, 0.1]}, FloatDistribution(0.0, 0.4, step=0.1)),
        ("model.depth", {"int": [2, 5]}, IntDistribution(2, 5)),
        ("model.base_channels", {"int": [8, 32], "step": 8}, IntDistribution(8, 32, step=8)),
        ("train.batch_size", {"choice": [8, 16]}, CategoricalDistribution([8, 16])),
        ("threshold", {"choice": ["auto", 0.5]}, CategoricalDistribution(["auto", 0.5])),
        ("threshold", {"uniform": [0.1, 0.9]}, FloatDistribution(0.1, 0.9)),
        ("train.compile", {"choice": ["yes", "no"]}, CategoricalDistribution([True, False])),
        ("model.encoder", {"choice": ["none", "timm:resnet18"]}, CategoricalDistribution(["none", "timm:resnet18"])),
        ("model.decoder_channels", {"choice": [[16, 8], None]}, CategoricalDistribution(["[16, 8]", None])),
    ],
)
def test_each_form_is_the_distribution_it_says(key: str, domain: dict[str, Any], distribution: object) -> None:
    space = parse_space({key: domain}, BASE)
    ((_, trial),) = sampled(space, 1)
    assert trial.distributions == {key: distribution}


@pytest.mark.parametrize("section", ["lr_scheduler", "optimizer", "model", "augment"])
def test_a_choice_over_a_section_picks_its_name(section: str) -> None:
    key, names = {
        "lr_scheduler": ("lr_scheduler.name", ["plateau", "cosine"]),
        "optimizer": ("optimizer.name", ["adamw", "sgd"]),
        "model": ("model.arch", ["unet", "attention_unet"]),
        "augment": ("augment.policy", ["flip", "light"]),
    }[section]
    for choice in (names, dict.fromkeys(names), {name: {} for name in names}):
        assert parse_space({section: {"choice": choice}}, BASE) == parse_space({key: {"choice": names}}, BASE)


def test_parameters_of_a_branch_exist_only_where_it_is_chosen() -> None:
    space = parse_space(CONDITIONAL, BASE)
    own = {
        "plateau": {"lr_scheduler.patience", "lr_scheduler.factor"},
        "cosine": {"lr_scheduler.warmup_epochs", "model.dropout"},
        "constant": set(),
    }
    seen = set()
    for flat, trial in sampled(space):
        name = flat["lr_scheduler.name"]
        seen.add(name)
        assert set(flat) == {"lr_scheduler.name"} | own[name]
        assert set(trial.params) == set(flat) - {"model.dropout"}
        config = apply(BASE, flat)
        assert config.lr_scheduler.name == name
        assert (config.model.dropout == 0.3) == (name == "cosine")
    assert seen == set(own)


def test_branches_nest_to_any_depth_with_relative_and_absolute_keys() -> None:
    raw = {
        "model.arch": {
            "choice": {
                "unet": {"depth": {"int": [2, 3]}},
                "attention_unet": {
                    "optimizer": {
                        "choice": {
                            "sgd": {"momentum": {"uniform": [0.5, 0.9]}, "model.dropout": 0.2, "threshold": 0.4},
                            "adamw": {"lr_scheduler": {"choice": {"plateau": {"patience": 3}, "cosine": None}}},
                        }
                    },
                },
            }
        }
    }
    space = parse_space(raw, BASE)
    sets = {frozenset(flat) for flat, _ in sampled(space)}
    arch, name, schedule = "model.arch", "optimizer.name", "lr_scheduler.name"
    assert sets == {
        frozenset({arch, "model.depth"}),
        frozenset({arch, name, "optimizer.momentum", "model.dropout", "threshold"}),
        frozenset({arch, name, schedule, "lr_scheduler.patience"}),
        frozenset({arch, name, schedule}),
    }
    rows = [(row.depth, row.key, row.values, row.when) for row in space.describe()]
    assert rows[0] == (0, "model.arch", "unet | attention_unet", "")
    assert (3, "lr_scheduler.patience", "= 3", "lr_scheduler.name = plateau") in rows
    assert (1, "model.depth", "2 to 3, whole numbers", "model.arch = unet") in rows
    assert space.keys()[:3] == ("model.arch", "model.depth", "optimizer.name")


def test_a_key_with_other_ranges_in_other_branches_is_several_parameters() -> None:
    raw = {
        "optimizer": {
            "choice": {
                "adamw": {"lr": {"loguniform": [1e-5, 1e-2]}, "weight_decay": {"uniform": [0, 1]}},
                "sgd": {"lr": {"loguniform": [1e-3, 1.0]}, "weight_decay": {"uniform": [0, 1]}},
                "nadam": {"lr": 0.1},
            }
        }
    }
    space = parse_space(raw, BASE)
    assert [node.name for node in space.parameters()] == [
        "optimizer.name",
        "optimizer.lr@adamw",
        "optimizer.weight_decay",
        "optimizer.lr@sgd",
    ]
    for flat, trial in sampled(space, 60):
        assert trial.params == space.to_params(flat)
        assert space.from_params(trial.params) == flat
        assert apply(BASE, flat).optimizer.lr == flat["optimizer.lr"]


def test_one_study_takes_every_conditional_trial_of_a_tpe() -> None:
    raw = CONDITIONAL | {
        "optimizer": {"choice": {"adamw": {"lr": {"loguniform": [1e-5, 1e-2]}}, "sgd": {"lr": {"uniform": [0.1, 1]}}}}
    }
    space = parse_space(raw, BASE)
    sampler = optuna.samplers.TPESampler(multivariate=True, group=True, seed=0, n_startup_trials=5)
    study = optuna.create_study(sampler=sampler)
    for _ in range(25):
        trial = study.ask()
        study.tell(trial, apply(BASE, space.suggest(trial)).optimizer.lr)
    for told in study.trials:
        assert space.to_params(space.from_params(told.params)) == told.params


def test_the_point_of_the_config_itself_is_in_the_space_or_is_not() -> None:
    space = parse_space(CONDITIONAL | {"optimizer.lr": {"loguniform": [1e-4, 1e-2]}}, BASE)
    assert space.defaults(BASE) is None  # its cosine branch sets a dropout that is not the config's
    own = TrainConfig(model=ModelConfig(dropout=0.3))
    defaults = space.defaults(own)
    assert defaults == {
        "lr_scheduler.name": "cosine",
        "lr_scheduler.warmup_epochs": 1.0,
        "model.dropout": 0.3,
        "optimizer.lr": 1e-3,
    }
    assert apply(own, defaults) == own
    study = optuna.create_study()
    study.enqueue_trial(space.to_params(defaults))
    assert space.suggest(study.ask()) == defaults
    assert space.defaults(TrainConfig(model=ModelConfig(dropout=0.3), optimizer=OptimizerConfig(lr=0.5))) is None
    assert parse_space({"threshold": {"uniform": [0, 1]}}, BASE).defaults(BASE) is None
    stepped = parse_space({"model.base_channels": {"int": [8, 32], "step": 8}}, BASE)
    assert stepped.defaults(BASE) == {"model.base_channels": 32}
    assert stepped.defaults(TrainConfig(model=ModelConfig(base_channels=20))) is None


def test_lists_come_back_as_lists_and_enter_the_study_as_text() -> None:
    base = TrainConfig(model=ModelConfig(depth=2, decoder_channels=(16, 8)))
    space = parse_space({"model.decoder_channels": {"choice": [[16, 8], [32, 16], None]}}, base)
    assert space.to_params({"model.decoder_channels": [32, 16]}) == {"model.decoder_channels": "[32, 16]"}
    assert space.defaults(base) == {"model.decoder_channels": (16, 8)}
    found = {flat["model.decoder_channels"] and tuple(flat["model.decoder_channels"]) for flat, _ in sampled(space, 30)}
    assert found == {(16, 8), (32, 16), None}
    for flat, _ in sampled(space, 30):
        channels = flat["model.decoder_channels"]
        assert apply(base, flat).model.decoder_channels == (channels and tuple(channels))


def test_an_empty_space_yields_the_config_itself() -> None:
    for raw in (None, {}):
        space = parse_space(raw, BASE)
        assert not space
        assert [flat for flat, _ in sampled(space, 2)] == [{}, {}]
        assert space.defaults(BASE) == {}
        assert apply(BASE, {}) == BASE


def test_flatten_and_apply_are_inverse() -> None:
    base = TrainConfig(threshold=0.3, model=ModelConfig(depth=2, decoder_channels=(16, 8)))
    assert apply(BASE, flatten(base)) == base
    assert flatten(base)["model.decoder_channels"] == (16, 8)


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"optimizer.lr": -1}, r"optimizer\.lr: found -1; valid: a number above 0"),
        ({"optimizer.rate": 1}, r"optimizer\.rate: unknown key"),
        ({"loss.bce": 0, "loss.dice": 0}, "all weights are 0"),
    ],
)
def test_apply_refuses_what_the_config_refuses(flat: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply(BASE, flat)


def test_a_value_outside_the_space_is_no_point_of_it() -> None:
    space = parse_space({"model.depth": {"int": [2, 4]}, "augment": {"choice": ["flip", "none"]}}, BASE)
    with pytest.raises(ValueError, match=r"model\.depth=5 is not in 2 to 4"):
        space.to_params({"model.depth": 5, "augment.policy": "flip"})
    with pytest.raises(ValueError, match=r"augment\.policy='heavy' is not one of flip \| none"):
        space.to_params({"model.depth": 3, "augment.policy": "heavy"})
    with pytest.raises(ValueError, match=r"augment\.policy='heavy' is not one of flip \| none"):
        space.from_params({"model.depth": 3, "augment.policy": "heavy"})


# (id, YAML of the space, fragments of the one problem)
BAD = [
    ("unknown key", "optimizer.lrr: {uniform: [0.1, 1]}", ["space.optimizer.lrr: unknown key; did you mean optimizer.lr?", "name, lr, weight_decay"]),
    ("no section", "lr: {uniform: [0.1, 1]}", ["space.lr: unknown key; did you mean optimizer.lr?"]),
    ("unknown section", "optimiser.lr: {uniform: [0.1, 1]}", ["space.optimiser.lr: unknown key; did you mean optimizer.lr?"]),
    ("key of the search", "search.num_samples: {int: [1, 2]}", ["space.search.num_samples: unknown key"]),
    ("no map", "[optimizer.lr]", ["space: found ['optimizer.lr']; must be a map"]),
    ("plain value", "optimizer.lr: 0.1", ["space.optimizer.lr: found 0.1; a fixed value belongs outside of space", "{uniform: [low, high]}"]),
    ("plain pair", "optimizer.lr: [0.1, 1]", ["space.optimizer.lr: found [0.1, 1]; write {uniform: [0.1, 1]}"]),
    ("plain list", "augment.policy: [flip, none, light]", ["write {choice: ['flip', 'none', 'light']}"]),
    ("unknown form", "optimizer.lr: {normal: [0, 1]}", ["space.optimizer.lr: unknown: normal; valid: one of {uniform"]),
    ("two forms", "optimizer.lr: {uniform: [0.1, 1], loguniform: [0.1, 1]}", ["space.optimizer.lr: found a map with uniform, loguniform; valid: one of"]),
    ("empty form", "optimizer.lr: {}", ["space.optimizer.lr: found a map; valid: one of"]),
    ("reversed", "optimizer.lr: {uniform: [1, 0.1]}", ["space.optimizer.lr.uniform: the low end must be below the high end, found [1, 0.1]"]),
    ("no width", "optimizer.lr: {uniform: [1, 1]}", ["the low end must be below the high end"]),
    ("log of zero", "loss.dice: {loguniform: [0, 1]}", ["space.loss.dice.loguniform: a logarithmic range starts above 0, found [0, 1]"]),
    ("three numbers", "optimizer.lr: {uniform: [0.1, 1, 2]}", ["found [0.1, 1, 2]; valid: 2 numbers, [low, high]"]),
    ("two for quniform", "optimizer.lr: {quniform: [0.1, 1]}", ["valid: 3 numbers, [low, high, step]"]),
    ("text in a range", "optimizer.lr: {uniform: [low, high]}", ["found ['low', 'high']; valid: 2 numbers"]),
    ("infinite range", "optimizer.lr: {uniform: [0.1, .inf]}", ["valid: 2 numbers"]),
    ("range beyond the field", "threshold: {uniform: [0.5, 1.5]}", ["space.threshold.uniform: found 1.5; valid: auto or a number from 0 to 1"]),
    ("low end beyond the field", "optimizer.lr: {uniform: [0, 1]}", ["space.optimizer.lr.uniform: found 0", "valid: a number above 0"]),
    ("fractions for a count", "model.depth: {uniform: [2, 4]}", ["space.model.depth.uniform: model.depth takes whole numbers; use {int: [2, 4]}"]),
    ("steps for a count", "model.depth: {quniform: [2, 4, 0.5]}", ["model.depth takes whole numbers"]),
    ("int of fractions", "loss.dice: {int: [0.5, 2]}", ["space.loss.dice.int: int takes whole numbers, found [0.5, 2]"]),
    ("step of an int", "model.depth: {int: [2, 4], step: 0}", ["step must be a number above 0, found 0"]),
    ("step that misses", "model.base_channels: {int: [8, 30], step: 8}", ["steps of 8 from 8 never reach 30; valid: [8, 24]"]),
    ("step beside uniform", "optimizer.lr: {uniform: [0.1, 1], step: 0.1}", ["space.optimizer.lr.step: belongs to int only", "quniform"]),
    ("range of names", "augment.policy: {int: [0, 3]}", ["space.augment.policy.int: found 0", "valid: one of none, flip, light"]),
    ("range of truths", "train.compile: {int: [0, 1]}", ["train.compile is true or false; use {choice: [true, false]}"]),
    ("unknown choice", "augment.policy: {choice: [flip, hevy]}", ["space.augment.policy.choice: found 'hevy'; valid: one of none, flip, light, medium, heavy; did you mean heavy?"]),
    ("choice twice", "train.batch_size: {choice: [8, 16, 8.0]}", ["space.train.batch_size.choice: 8.0 stands twice"]),
    ("empty choice", "augment: {choice: []}", ["space.augment.choice: found []; valid: a list of values, or a map"]),
    ("choice of one word", "augment: {choice: flip}", ["space.augment.choice: found 'flip'; valid: a list of values"]),
    ("unknown branch", "lr_scheduler: {choice: {cosin: {}}}", ["space.lr_scheduler.choice.cosin: found 'cosin'", "did you mean cosine?"]),
    ("unknown key in a branch", "lr_scheduler: {choice: {cosine: {warmup: {int: [0, 3]}}}}", ["space.lr_scheduler.choice.cosine.warmup: unknown key; did you mean lr_scheduler.warmup_epochs?"]),
    ("branch is no map", "lr_scheduler: {choice: {cosine: 3}}", ["space.lr_scheduler.choice.cosine: found 3; must be a map"]),
    ("bad value in a branch", "lr_scheduler: {choice: {plateau: {factor: 2}}}", ["space.lr_scheduler.choice.plateau.factor: found 2; valid: a number above 0 and below 1"]),
    ("bad range in a branch", "lr_scheduler: {choice: {plateau: {factor: {uniform: [0.1, 2]}}}}", ["space.lr_scheduler.choice.plateau.factor.uniform: found 2"]),
    ("section without a name", "loss: {choice: [bce, dice]}", ["space.loss: loss has no name to choose from; search its keys: loss.bce, loss.dice"]),
    ("section with a range", "optimizer: {uniform: [0, 1]}", ["space.optimizer: a section is searched by its name: {choice:"]),
    ("data root", "data.root: {choice: [a, b]}", ["space.data.root: cannot be searched: every trial must see the same data"]),
    ("image size", "data.image_size: {choice: [128, 256]}", ["space.data.image_size: cannot be searched: every trial must see the same data"]),
    ("epochs", "train.epochs: {int: [5, 50]}", ["space.train.epochs: cannot be searched: every trial gets the same budget"]),
    ("seed", "train.seed: {int: [0, 5]}", ["space.train.seed: cannot be searched: the luckiest seed"]),
    ("twice in a trial", "{lr_scheduler.patience: {int: [1, 3]}, lr_scheduler: {choice: {plateau: {patience: {int: [1, 5]}}}}}", ["space.lr_scheduler.patience: one trial could set it twice"]),
    ("twice by two choices", "{optimizer: {choice: {sgd: {model.dropout: 0.1}}}, augment: {choice: {flip: {model.dropout: 0.2}}}}", ["space.model.dropout: one trial could set it twice"]),
    ("name twice", "{lr_scheduler: {choice: [plateau]}, lr_scheduler.name: {choice: [cosine]}}", ["space.lr_scheduler.name: one trial could set it twice"]),
    ("twice below itself", "optimizer: {choice: {sgd: {name: adamw}}}", ["space.optimizer.name: one trial could set it twice"]),
    ("nested and dotted", "{optimizer: {lr: {uniform: [0.1, 1]}}, optimizer.lr: {uniform: [0.1, 1]}}", ["space.optimizer.lr: is given both nested and dotted"]),
    ("combination", "{loss.bce: {choice: [0, 1]}, loss.dice: {choice: [0, 1]}}", ["space.loss: a trial could have loss.bce=0.0, loss.dice=0.0: all weights are 0"]),
    ("combination in a branch", "model.encoder: {choice: {none: {encoder_weights: imagenet}}}", ["space.model: a trial could have model.encoder=none, model.encoder_weights=imagenet"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "fragments"), [case[1:] for case in BAD], ids=[case[0].replace(" ", "_") for case in BAD]
)
def test_a_bad_space_gives_one_line_with_key_and_valid_values(tmp_path: Path, text: str, fragments: list[str]) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(f"space:\n  {text}\n")
    with pytest.raises(ConfigError, match=r"^space") as caught:
        parse_space(read_config(path).values["space"], BASE)
    assert "\n" not in str(caught.value)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_an_encoder_and_its_weights_are_searched_together() -> None:
    base = TrainConfig(model=ModelConfig(encoder="timm:resnet18", encoder_weights="imagenet"))
    with pytest.raises(
        ConfigError, match=r"space\.model: a trial could have model\.encoder=none: encoder_weights is 'imagenet'"
    ):
        parse_space({"model.encoder": {"choice": ["none", "timm:resnet18"]}}, base)
    space = parse_space(
        {"model.encoder": {"choice": {"none": {"encoder_weights": "none"}, "timm:resnet18": None}}}, base
    )
    assert {apply(base, flat).model.encoder_weights for flat, _ in sampled(space, 20)} == {"none", "imagenet"}


def test_a_range_that_touches_a_forbidden_corner_is_no_problem_unless_a_trial_can_hit_it() -> None:
    base = apply(BASE, {"loss.bce": 0.0})
    parse_space({"loss.dice": {"uniform": [0, 1]}}, base)
    with pytest.raises(ConfigError, match=r"loss\.dice=0\.0: all weights are 0"):
        parse_space({"loss.dice": {"quniform": [0, 1, 0.5]}}, base)


def test_a_space_of_very_many_combinations_is_checked_quickly() -> None:
    raw: dict[str, Any] = {
        key: {"choice": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]} for key in flatten(BASE) if key.startswith("loss.")
    }
    assert len(parse_space(raw, BASE).keys()) == 11


def test_every_problem_of_a_space_is_listed() -> None:
    raw = {"optimizer.lr": {"uniform": [1, 0.1]}, "lr": 3, "augment": {"choice": ["flipp", "hevy"]}}
    with pytest.raises(ConfigError, match="low end") as caught:
        parse_space(raw, BASE)
    assert len(str(caught.value).splitlines()) == 4
