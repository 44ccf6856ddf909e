"""Which trainings a ledger needs, planned on real spaces with made-up trials."""

from typing import Any

import numpy as np
import pytest
from places import ROOT

from search.config.load import load_config
from search.reruns.ledger_plan import (
    GROUPS,
    SELECTORS,
    Plan,
    Scored,
    group_of,
    make_plan,
)
from search.runs.rows import TrialRow
from search.runs.trials import Trials
from search.space.parse import apply, parse_space
from search.space.tree import flatten
from segcore.config import TrainConfig
from segcore.objective import Mode, Objective

ATTENTION = ROOT / "configs" / "attention.yaml"
PLATEAU = {"lr_scheduler.name": "plateau", "lr_scheduler.patience": 2, "lr_scheduler.factor": 0.1}
OWN = {"model.arch": "attention_unet", "optimizer.lr": 1e-4, "augment.policy": "light", "loss.dice": 1.0, **PLATEAU}
COSINE = {"lr_scheduler.name": "cosine", "lr_scheduler.warmup_epochs": 2}
WINNER = {"model.arch": "attention_unet", "optimizer.lr": 3e-3, "augment.policy": "light", "loss.dice": 0.77, **COSINE}
PLAIN = TrainConfig()


def row(number: int, value: float | None, state: str = "complete", epochs: int = 10) -> TrialRow:
    return TrialRow(number, state, value, epochs=epochs)


def plan_of(
    raw: dict[str, Any], *trials: dict[str, Any], base: TrainConfig = PLAIN, winner: int = 0, mode: Mode = "max"
) -> Plan:
    """The trials are complete and worth 0.9, 0.8, ... in their order."""
    params = dict(enumerate(trials))
    rows = [row(number, 0.9 - 0.1 * number) for number in params]
    return make_plan(base, parse_space(raw, base), winner, params, Trials(rows, Objective("val/iou", mode)))


def attention_plan(*others: dict[str, Any]) -> Plan:
    config = load_config(ATTENTION)
    return plan_of(dict(config.space), WINNER, *others, base=config.train_config())


def test_every_key_of_a_config_has_a_group() -> None:
    assert {group_of(key) for key in flatten(PLAIN)} == set(GROUPS)
    assert {selector: group_of(selector) for selector in SELECTORS.values()} == {v: k for k, v in SELECTORS.items()}
    assert group_of("model.dropout") == "architecture"
    assert group_of("model.decoder_channels") == "encoder"
    assert group_of("train.grad_clip") == "training"


def test_one_step_for_each_group_that_the_winner_changed() -> None:
    plan = attention_plan()
    base = load_config(ATTENTION).train_config()
    assert [(step.name, step.changes) for step in plan.steps] == [
        ("loss", (("loss.dice", 1.0, 0.77),)),
        ("scheduler", (("lr_scheduler.name", "plateau", "cosine"), ("lr_scheduler.warmup_epochs", None, 2.0))),
        ("optimizer", (("optimizer.lr", 1e-4, 3e-3),)),
    ]
    assert [step.before.cell for step in plan.steps] == ["baseline", "after loss", "after scheduler"]
    assert [step.after.cell for step in plan.steps] == ["after loss", "after scheduler", "winner"]
    assert plan.cells == {
        "winner": apply(base, WINNER),
        "baseline": base,
        "after loss": apply(base, {"loss.dice": 0.77}),
        "after scheduler": apply(base, {"loss.dice": 0.77, **COSINE}),
    }
    assert plan.alternatives == ()
    assert plan.notes == ()


def test_a_choice_that_won_unchanged_is_set_against_the_best_trial_with_another() -> None:
    plan = attention_plan(
        {**WINNER, "augment.policy": "medium"},
        {**OWN, "model.arch": "unet", "optimizer.lr": 5e-4},
        {**WINNER, "model.arch": "unet"},
    )
    architecture, augmentation = plan.alternatives
    assert (architecture.group, architecture.of_trial) == ("architecture", 2)
    assert architecture.chosen == (("model.arch", "attention_unet"),)
    assert architecture.instead == (("model.arch", "unet"),)
    base = load_config(ATTENTION).train_config()
    assert plan.cells[architecture.scored.cell] == apply(base, {**WINNER, "model.arch": "unet"})
    assert (augmentation.group, augmentation.of_trial) == ("augmentation", 1)
    assert augmentation.scored == Scored("augmentation of trial 1", "auto")


def test_an_alternative_brings_the_settings_of_its_branch() -> None:
    raw = {"lr_scheduler": {"choice": {
        "plateau": {"patience": {"int": [1, 5]}, "optimizer.lr": {"loguniform": [1e-4, 1e-2]}},
        "cosine": {"warmup_epochs": {"int": [0, 3]}, "optimizer.lr": {"loguniform": [1e-4, 1e-2]}},
    }}}  # fmt: skip
    base = apply(PLAIN, {"lr_scheduler.name": "cosine", "optimizer.lr": 1e-3})
    plan = plan_of(
        raw,
        {"lr_scheduler.name": "cosine", "lr_scheduler.warmup_epochs": 3, "optimizer.lr": 2e-3},
        {"lr_scheduler.name": "plateau", "lr_scheduler.patience": 5, "optimizer.lr": 4e-3},
        base=base,
    )
    (scheduler,) = plan.alternatives
    assert dict(scheduler.chosen) == {
        "lr_scheduler.name": "cosine", "lr_scheduler.warmup_epochs": 3.0, "optimizer.lr": 2e-3
    }  # fmt: skip
    assert dict(scheduler.instead) == {
        "lr_scheduler.name": "plateau", "lr_scheduler.patience": 5, "optimizer.lr": 4e-3
    }  # fmt: skip
    assert [step.name for step in plan.steps] == ["scheduler", "optimizer"]


def test_a_selector_that_changed_is_a_step_and_no_alternative() -> None:
    raw = {"optimizer.name": {"choice": ["adamw", "sgd"]}}
    plan = plan_of(raw, {"optimizer.name": "sgd"}, {"optimizer.name": "adamw"})
    assert [step.name for step in plan.steps] == ["optimizer"]
    assert plan.alternatives == ()


def test_a_config_that_won_itself_has_no_steps_but_alternatives() -> None:
    base = load_config(ATTENTION).train_config()
    raw = dict(load_config(ATTENTION).space)
    plan = plan_of(raw, OWN, {**OWN, "model.arch": "unet"}, base=base)
    assert plan.steps == ()
    assert plan.baseline == plan.winner == Scored("winner", "auto")
    assert list(plan.cells) == ["winner", "architecture of trial 1"]
    assert plan.notes == ()


def test_settings_that_training_ignores_make_no_step_and_no_cell() -> None:
    raw = {
        "optimizer.name": {"choice": ["adamw", "sgd"]},
        "optimizer.momentum": {"uniform": [0, 0.99]},
        "loss.dice": {"uniform": [0, 2]},
    }
    plan = plan_of(raw, {"optimizer.name": "adamw", "optimizer.momentum": 0.5, "loss.dice": 0.5})
    assert [(step.name, step.changes) for step in plan.steps] == [("loss", (("loss.dice", 1.0, 0.5),))]
    assert list(plan.cells) == ["winner", "baseline"]


def test_an_encoder_and_its_learning_rate_are_two_steps() -> None:
    raw = {"model.encoder": {"choice": {
        "none": {},
        "timm:resnet18": {"decoder_channels": {"choice": [None, [64, 32, 16, 16, 8]]},
                          "optimizer.encoder_lr_factor": {"choice": [0.1, 1.0]}},
    }}}  # fmt: skip
    timm = {"model.encoder": "timm:resnet18", "model.decoder_channels": [64, 32, 16, 16, 8]}
    plan = plan_of(raw, {**timm, "optimizer.encoder_lr_factor": 0.1})
    assert [(step.name, {key: (a, b) for key, a, b in step.changes}) for step in plan.steps] == [
        ("encoder", {"model.encoder": ("none", "timm:resnet18"),
                     "model.decoder_channels": (None, (64, 32, 16, 16, 8))}),
        ("optimizer", {"optimizer.encoder_lr_factor": (1.0, 0.1)}),
    ]  # fmt: skip


FORBIDDEN = "model.encoder == 'timm:resnet18' and train.batch_size > 8"


def test_groups_of_which_one_alone_is_forbidden_are_one_step() -> None:
    raw = {
        "model.encoder": {"choice": ["none", "timm:resnet18"]},
        "train.batch_size": {"choice": [4, 8, 16]},
        "loss.dice": {"uniform": [0, 2]},
        "threshold": {"uniform": [0.1, 0.9]},
        "forbid": [FORBIDDEN],
    }
    own = {"model.encoder": "timm:resnet18", "train.batch_size": 8, "loss.dice": 0.5, "threshold": 0.4}
    plan = plan_of(raw, own)
    joined, loss, _ = plan.steps
    assert [step.name for step in plan.steps] == ["encoder + training", "loss", "threshold"]
    assert joined.changes == (("model.encoder", "none", "timm:resnet18"), ("train.batch_size", 16, 8))
    assert joined.after == loss.before == Scored("after encoder + training", "auto")
    assert loss.after == Scored("winner", "auto")
    assert list(plan.cells) == ["winner", "baseline", "after encoder + training"]
    assert plan.notes == (
        f"encoder and training are one step: without training it is refused, forbidden by `{FORBIDDEN}`",
    )


def test_groups_are_joined_until_all_of_them_together_are_allowed() -> None:
    raw = {
        "model.encoder": {"choice": ["none", "timm:resnet18"]},
        "train.batch_size": {"choice": [4, 8, 16]},
        "loss.dice": {"uniform": [0, 2]},
        "forbid": [FORBIDDEN, "model.encoder == 'timm:resnet18' and loss.dice > 0.9"],
    }
    plan = plan_of(raw, {"model.encoder": "timm:resnet18", "train.batch_size": 8, "loss.dice": 0.5})
    (step,) = plan.steps
    assert step.groups == ("encoder", "loss", "training")
    assert [key for key, _, _ in step.changes] == ["model.encoder", "loss.dice", "train.batch_size"]
    assert len(plan.notes) == 2


def test_an_alternative_that_is_forbidden_gives_way_to_the_next() -> None:
    raw = {
        "model.encoder": {"choice": ["none", "timm:resnet18", "timm:resnet34"]},
        "train.batch_size": {"choice": [4, 16]},
        "forbid": ["model.encoder == 'timm:resnet18' and train.batch_size > 8"],
    }
    own = {"model.encoder": "none", "train.batch_size": 16}
    first = {"model.encoder": "timm:resnet18", "train.batch_size": 4}
    second = {"model.encoder": "timm:resnet34", "train.batch_size": 4}
    plan = plan_of(raw, own, first, second)
    assert [(row.group, row.of_trial) for row in plan.alternatives] == [("encoder", 2)]
    plan = plan_of(raw, own, first)
    assert plan.alternatives == ()
    assert "encoder: no other option goes with the winner's other settings (trial 1: forbidden by" in plan.notes[0]


def test_a_decoder_that_does_not_fit_is_found_before_it_is_trained() -> None:
    """The widths come with the architecture here, and were made for another encoder's depth."""
    raw = {
        "model": {"choice": {"unet": {}, "attention_unet": {"decoder_channels": {"choice": [[8, 4], [8, 8, 4]]}}}},
        "model.depth": {"int": [2, 3]},
    }
    base = apply(PLAIN, {"model.base_channels": 4, "model.depth": 2})
    own = {"model.arch": "unet", "model.depth": 2}
    deep = {"model.arch": "attention_unet", "model.decoder_channels": [8, 8, 4], "model.depth": 3}
    plan = plan_of(raw, own, deep, base=base)
    assert plan.alternatives == ()
    assert "trial 1: model.decoder_channels: 2 widths are needed" in plan.notes[0]
    plan = plan_of(raw, own, deep, {**deep, "model.decoder_channels": [8, 4], "model.depth": 2}, base=base)
    assert [row.of_trial for row in plan.alternatives] == [2]


def test_the_threshold_is_the_last_step_and_trains_nothing() -> None:
    raw = {"threshold": {"uniform": [0.1, 0.9]}, "loss.dice": {"uniform": [0, 2]}}
    plan = plan_of(raw, {"threshold": 0.4, "loss.dice": 0.5})
    loss, threshold = plan.steps
    assert (loss.before, loss.after) == (Scored("baseline", "auto"), Scored("winner", "auto"))
    assert (threshold.before, threshold.after) == (Scored("winner", "auto"), Scored("winner", 0.4))
    assert threshold.changes == (("threshold", "auto", 0.4),)
    assert {name: config.threshold for name, config in plan.cells.items()} == {"winner": 0.4, "baseline": "auto"}
    plan = plan_of(raw, {"threshold": 0.4, "loss.dice": 1.0})
    assert list(plan.cells) == ["winner"]
    assert plan.baseline == Scored("winner", "auto")


@pytest.mark.parametrize(("mode", "best"), [("max", [3, 1, 0, 4, 2]), ("min", [1, 3, 4, 0, 2])])
def test_complete_trials_come_before_stopped_ones_and_failed_ones_never(mode: Mode, best: list[int]) -> None:
    trials = [
        row(0, 0.95, "pruned", epochs=6),
        row(1, 0.6),
        row(2, 0.99, "pruned", epochs=2),
        row(3, 0.7, epochs=8),
        row(4, 0.9, "pruned", epochs=6),
        row(5, 0.99, "failed"),
        row(6, None, "pruned", epochs=0),
        row(7, float("nan")),
        row(8, 0.99, "running"),
    ]
    assert [each.number for each in Trials(trials, Objective("val/iou", mode)).furthest_first()] == best


@pytest.mark.parametrize("name", ["attention", "encoders", "quickstart"])
def test_whatever_won_the_steps_lead_to_it_and_every_cell_is_needed_once(name: str) -> None:
    config = load_config(ATTENTION.with_name(f"{name}.yaml"))
    base, rng = config.train_config(), np.random.default_rng(0)
    space = parse_space(config.space, base)
    seen: set[str] = set()
    for _ in range(20):
        points = [space.sample_uniform(rng) for _ in range(8)]
        plan = plan_of(dict(config.space), *points, base=base)
        ends = [plan.baseline, *(step.after for step in plan.steps)]
        assert [step.before for step in plan.steps] == ends[:-1]
        assert ends[-1] == plan.winner
        assert plan.cells[plan.winner.cell] == apply(base, points[0])
        scored = [*ends, *(other.scored for other in plan.alternatives)]
        assert {row.cell for row in scored} == set(plan.cells)
        assert len({cell.model_dump_json() for cell in plan.cells.values()}) == len(plan.cells)
        assert all(step.changes for step in plan.steps)
        assert all(other.chosen and other.instead for other in plan.alternatives)
        seen |= {step.name for step in plan.steps} | {f"{other.group} instead" for other in plan.alternatives}
    assert {"optimizer", "augmentation instead" if name != "encoders" else "encoder instead"} <= seen
