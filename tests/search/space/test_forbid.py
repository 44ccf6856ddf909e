# ruff: noqa: E501
"""Forbid expressions: what they say of a trial, and what is refused before any trial."""

import pickle
from typing import Any

import pytest

from search.space.parse import apply, parse_space
from search.space.tree import Space
from segcore.config import TrainConfig
from segcore.errors import ConfigError

BASE = TrainConfig()
RAW: dict[str, Any] = {
    "train.batch_size": {"choice": [8, 16, 32]},
    "model.arch": {"choice": ["unet", "attention_unet"]},
    "optimizer": {"choice": {"adamw": {}, "sgd": {"momentum": {"uniform": [0, 0.9]}}}},
    "augment.vertical_flip": {"choice": [True, False]},
    "threshold": {"choice": ["auto", 0.25, 0.5]},
    "model.decoder_channels": {"choice": [None, [64, 32, 16, 8]]},
}


def space_with(*expressions: str, base: TrainConfig = BASE) -> Space:
    return parse_space({**RAW, "forbid": list(expressions)}, base)


POINT: dict[str, Any] = {
    "train.batch_size": 16,
    "model.arch": "unet",
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.5,
    "augment.vertical_flip": True,
    "threshold": "auto",
    "model.decoder_channels": (64, 32, 16, 8),
}


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("train.batch_size >= 16", True),
        ("train.batch_size > 16", False),
        ("8 < train.batch_size <= 16", True),
        ("8 < train.batch_size < 16", False),
        ("train.batch_size >= 16 and model.arch == 'attention_unet'", False),
        ("train.batch_size >= 16 or model.arch == 'attention_unet'", True),
        ("not (train.batch_size >= 16 and model.arch == 'attention_unet')", True),
        ("model.arch != 'unet'", False),
        ("model.arch in ['unet', 'residual_unet']", True),
        ("model.arch not in ('attention_unet', 'residual_unet')", True),
        ("train.batch_size in [8, 32]", False),
        ("optimizer == 'sgd' and optimizer.momentum < 0.6", True),
        ("optimizer.name == 'sgd' and -optimizer.momentum > 0", False),
        ("train.batch_size * optimizer.momentum + 1 == 9", True),
        ("train.batch_size / 4 - 2 == 2", True),
        ("augment.vertical_flip", True),
        ("not augment.vertical_flip", False),
        ("augment.vertical_flip == true", True),
        ("augment.vertical_flip != True and train.batch_size == 16", False),
        ("threshold == 'auto'", True),
        ("threshold > 0.3", False),
        ("threshold < 0.3", False),
        ("threshold * 2 >= 0", False),
        ("model.decoder_channels == [64, 32, 16, 8]", True),
        ("model.decoder_channels != null", True),
        ("train.batch_size * data.image_size >= 16 * 256", True),
        ("train.batch_size > train.epochs", False),
    ],
)
def test_what_an_expression_says_of_a_trial(expression: str, holds: bool) -> None:
    space = space_with(expression)
    assert space.forbidden(POINT) == (expression if holds else None)
    assert pickle.loads(pickle.dumps(space)).forbidden(POINT) == space.forbidden(POINT)


def test_a_key_that_the_trial_does_not_set_is_the_configs_own() -> None:
    rule = "train.batch_size == 32 and optimizer.momentum >= 0.85"
    point = {**POINT, "train.batch_size": 32, "optimizer.name": "adamw"}
    del point["optimizer.momentum"]
    assert space_with(rule).forbidden(point) == rule  # 0.9, though adamw has no use for it
    gentler = apply(BASE, {"optimizer.momentum": 0.5})
    assert space_with(rule, base=gentler).forbidden(point) is None
    assert (
        space_with("train.epochs > 10 and augment.vertical_flip", base=apply(BASE, {"train.epochs": 5})).forbidden(
            POINT
        )
        is None
    )


def test_the_first_expression_that_holds_is_named() -> None:
    space = space_with("train.batch_size == 8", "  train.batch_size == 16 ", "augment.vertical_flip")
    assert space.forbidden(POINT) == "train.batch_size == 16"
    assert space.forbidden({**POINT, "train.batch_size": 32}) == "augment.vertical_flip"
    assert space.forbidden({**POINT, "train.batch_size": 32, "augment.vertical_flip": False}) is None
    assert parse_space(RAW, BASE).forbidden(POINT) is None


def test_the_configs_own_point_is_not_offered_when_forbidden() -> None:
    raw = {"train.batch_size": {"choice": [8, 16]}}
    assert parse_space(raw, BASE).defaults(BASE) == {"train.batch_size": 16}
    space = parse_space({**raw, "forbid": ["train.batch_size > 8"]}, BASE)
    assert space.defaults(BASE) is None
    with pytest.raises(ValueError, match=r"forbidden by `train\.batch_size > 8`"):
        space.own_point(BASE)


# (expression, fragments of the one problem)
BAD: list[tuple[object, list[str]]] = [
    ("train.batch_sise >= 16", ["train.batch_sise: unknown key; did you mean train.batch_size?"]),
    ("batch_size >= 16", ["batch_size: unknown key; did you mean train.batch_size?"]),
    ("search.num_samples >= 16", ["search.num_samples: unknown key"]),
    ("optimiser.momentum > 0.5", ["did you mean optimizer.momentum?"]),
    ("model.arch == attention_unet", ["attention_unet: unknown key", "text stands in quotes: 'attention_unet'"]),
    ("model.arch == 'atention_unet'", ["model.arch: found 'atention_unet'; valid: one of unet", "did you mean attention_unet?"]),
    ("model.arch in ['unet', 'vnet']", ["model.arch: found 'vnet'; valid: one of"]),
    ("train.batch_size == 0", ["train.batch_size: found 0; valid: a whole number of at least 1"]),
    ("train.batch_size >= '16'", ["< and > compare numbers, and `'16'` is text"]),
    ("train.batch_size == '16'", ["`train.batch_size` is a number, and `'16'` is text; they are never equal"]),
    ("model.arch > 3", ["`model.arch` is text"]),
    ("model.arch == train.batch_size", ["they are never equal"]),
    ("augment.vertical_flip == 1", ["`augment.vertical_flip` is true or false, and `1` is a number"]),
    ("augment.vertical_flip > 0", ["`augment.vertical_flip` is true or false"]),
    ("threshold == null", ["`threshold` is a number or text, and `None` is null"]),
    ("model.arch + 1 > 3", ["arithmetic takes numbers, and `model.arch` is text"]),
    ("-model.arch > 3", ["- takes numbers, and `model.arch` is text"]),
    ("train.batch_size", ["`train.batch_size` is a number, not a condition"]),
    ("train.batch_size and augment.vertical_flip", ["`train.batch_size` is a number, not a condition"]),
    ("not model.arch", ["`model.arch` is text, not a condition"]),
    ("model.arch in 'unet'", ["`'unet'` is text; `in` takes a list"]),
    ("model.arch in [train.batch_size]", ["a list holds plain values only"]),
    ("train.batch_size = 16", ["cannot be read: ", "valid: comparisons"]),
    ("train.batch_size >", ["cannot be read: invalid syntax"]),
    ("(" * 300 + "augment.vertical_flip" + ")" * 300, ["cannot be read"]),
    ("-" * 900 + "train.batch_size < 3", ["cannot be read"]),
    ("augment.vertical_flip and " * 100 + "augment.vertical_flip", ["at most 1000 characters, found "]),
    ("train.batch_size ** 2 > 3", ["`train.batch_size ** 2` cannot stand in a forbid expression; valid: comparisons"]),
    ("train.batch_size is 16", ["cannot stand in a forbid expression"]),
    ("len(model.arch) > 3", ["`len(model.arch)` cannot stand"]),
    ("__import__('os').system('true') == 0", ["cannot stand in a forbid expression"]),
    ("[x for x in [1]] == 1", ["cannot stand in a forbid expression"]),
    ("(lambda: 1)() == 1", ["cannot stand in a forbid expression"]),
    ("train.batch_size if augment.vertical_flip else augment.vertical_flip", ["cannot stand in a forbid expression"]),
    ("model.decoder_channels[0] > 3", ["cannot stand in a forbid expression"]),
    ("train.epochs > 10", ["is about nothing that is searched; it mentions only train.epochs"]),
    ("1 < 2", ["is about nothing that is searched; it mentions no key at all"]),
    ("train.batch_size / optimizer.weight_decay > 0 and train.batch_size / (train.batch_size - 8) > 0", ["cannot be computed for every trial: ", "by zero"]),
    ("train.batch_size >= 1", ["`train.batch_size >= 1` rules out every trial"]),
    ("", ["found ''; must be an expression such as"]),
    (3, ["found 3; must be an expression such as"]),
]  # fmt: skip


@pytest.mark.parametrize(("expression", "fragments"), BAD, ids=[str(case[0])[:40] for case in BAD])
def test_a_bad_expression_is_one_line_that_says_why(expression: object, fragments: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^space\.forbid\[1\]: ") as caught:
        parse_space({**RAW, "forbid": ["model.arch == 'attention_unet'", expression]}, BASE)
    assert "\n" not in str(caught.value)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_expressions_that_together_leave_nothing_are_refused() -> None:
    raw = {"loss.dice": {"uniform": [0.5, 2]}, "forbid": ["loss.dice > 1", "loss.dice <= 1"]}
    with pytest.raises(ConfigError, match=r"^space\.forbid: the 2 expressions together rule out every trial$"):
        parse_space(raw, BASE)


def test_one_combination_that_is_left_is_enough() -> None:
    choices = {f"loss.{key}": {"choice": [0.5, 1.0, 2.0]} for key in ("bce", "dice", "focal", "tversky", "lovasz")}
    only = " or ".join(f"{key} != 2" for key in choices)
    space = parse_space({**choices, "forbid": [only]}, BASE)  # 1 of 243
    assert space.forbidden(dict.fromkeys(choices, 2.0)) is None


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            {"forbid": "augment.vertical_flip"},
            r"space\.forbid: found 'augment\.vertical_flip'; valid: a list of expressions; write it as a list",
        ),
        ({"forbid": {"a": 1}}, r"space\.forbid: found a map with a; valid: a list of expressions"),
        (
            {"optimizer": {"choice": {"sgd": {"forbid": ["augment.vertical_flip"]}}}},
            r"space\.optimizer\.choice\.sgd\.forbid: stands once, at the top of space",
        ),
    ],
)
def test_forbid_is_one_list_at_the_top(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_space({"augment.vertical_flip": {"choice": [True, False]}, **raw}, BASE)


def test_all_bad_expressions_are_listed_together() -> None:
    with pytest.raises(ConfigError, match="forbid") as caught:
        space_with("train.batch_sise > 3", "model.arch == 'unet'", "model.arch > 3")
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["space.forbid[0]", "space.forbid[2]"]
