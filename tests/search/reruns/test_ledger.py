"""The ledger's numbers, from counts of pixels that are made up, so that each can be worked out by hand."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from search.reruns.ledger import CellOutcomes, build_ledger
from search.reruns.ledger_plan import Plan, make_plan
from search.runs.rerun_records import ImportanceShare
from search.runs.rows import TrialRow
from search.runs.trials import Trials
from search.space.parse import apply, parse_space
from search.study.importance import Importances
from segcore.config import TrainConfig
from segcore.objective import Mode, Objective
from segcore.scores.image_counts import ImageCounts
from segcore.scores.intervals import t_quantile

BASE = TrainConfig()
SEEDS = (1, 2, 3)
THRESHOLDS = np.array([0.0, 0.3, 0.5, 0.7])
RAW = {
    "model.arch": {"choice": ["unet", "attention_unet"]},
    "loss.dice": {"uniform": [0, 2]},
    "optimizer.lr": {"loguniform": [1e-5, 1e-1]},
    "threshold": {"uniform": [0.1, 0.9]},
}
SHARES = [
    {"name": "optimizer.lr", "share": 0.5},
    {"name": "model.arch", "share": 0.3},
    {"name": "loss.dice", "share": 0.15},
    {"name": "loss.smooth@focal", "share": 0.05},
]
IOU = {"baseline": 0.60, "after loss": 0.65, "winner": 0.75, "architecture of trial 1": 0.74}


def plan(own: Mapping[str, Any] | None = None, base: TrainConfig = BASE, mode: Mode = "max") -> Plan:
    """The loss and the learning rate changed; trial 1 had another architecture."""
    own = {"model.arch": "unet", "loss.dice": 0.5, "optimizer.lr": 0.01} if own is None else own
    params = {0: own, 1: {"model.arch": "attention_unet", "loss.dice": 1.0, "optimizer.lr": 0.001}}
    rows = [TrialRow(n, value=0.9 - 0.1 * n, epochs=5) for n in params]
    return make_plan(base, parse_space(RAW, base), 0, params, Trials(rows, Objective("val/iou", mode)))


def counts(*iou_at: np.ndarray, positive: int = 10_000) -> ImageCounts:
    """Images whose prediction lies within the mask, so that its pixels make the IoU at each threshold."""
    iou = np.stack(iou_at, axis=1)
    true_positive = np.rint(iou * positive).astype(np.int64)
    return ImageCounts(THRESHOLDS, true_positive, true_positive, np.full(len(iou), positive))


def trained(mean: float, seed: int, num_images: int = 12, noise: float = 0.01) -> ImageCounts:
    """A training whose mean IoU at 0.5, which is its best threshold, is `mean` plus the luck of the seed."""
    luck = {1: -noise, 2: 0.0, 3: noise}[seed]
    own = np.random.default_rng(round(1000 * mean)).normal(0, 0.02, num_images)
    at_half = mean + luck + own - own.mean() + np.linspace(-0.1, 0.1, num_images)
    return counts(at_half - 0.2, at_half - 0.1, at_half, at_half - 0.15)


def images_of(iou: Mapping[str, float], **how: Any) -> dict[str, dict[int, ImageCounts]]:
    return {cell: {seed: trained(mean, seed, **how) for seed in SEEDS} for cell, mean in iou.items()}


def ledger(
    of: Plan, images: Mapping[str, Any], *, values: Any = None, failed: Any = None, **how: Any
) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "objective": Objective("val/iou"),
        "seeds": SEEDS,
        "groups": None,
        "half_of": None,
        **how,
    }
    shares = [ImportanceShare.model_validate(share) for share in settings.pop("shares", [])]
    importance = Importances(dict.fromkeys(range(settings.pop("num_trials", 0)), 0.5), shares)
    found = CellOutcomes(images, values or {}, failed or {})
    record = build_ledger(of, found, importance=importance, **settings)
    return json.loads(json.dumps(record.tree()))  # type: ignore[no-any-return]


def test_steps_add_up_to_the_total_and_each_is_worth_its_difference() -> None:
    record = ledger(plan(), images_of(IOU), shares=SHARES, num_trials=20)
    assert [step["group"] for step in record["steps"]] == ["loss", "optimizer"]
    assert [step["worth"] for step in record["steps"]] == pytest.approx([0.05, 0.10], abs=1e-4)
    assert [step["mean"] for step in record["steps"]] == pytest.approx([0.65, 0.75], abs=1e-4)
    assert [step["changes"] for step in record["steps"]] == [
        [["loss.dice", 1.0, 0.5]], [["optimizer.lr", 0.001, 0.01]]
    ]  # fmt: skip
    assert sum(step["worth"] for step in record["steps"]) == pytest.approx(record["total"]["worth"], abs=1e-12)
    assert record["baseline"]["mean"] == pytest.approx(0.60, abs=1e-4)
    assert record["winner"]["mean"] == record["steps"][-1]["mean"]
    assert record["total"]["worth"] == pytest.approx(record["winner"]["mean"] - record["baseline"]["mean"], abs=1e-12)
    assert record["total"]["clear"]
    for row in (*record["steps"], record["total"]):
        assert row["interval"][0] < row["worth"] < row["interval"][1]
    assert (record["trial"], record["num_images"], record["seeds"]) == (0, 12, [1, 2, 3])
    assert record["failed"] == record["notes"] == []


def test_an_alternative_within_the_noise_is_not_clear() -> None:
    (row,) = ledger(plan(), images_of(IOU), shares=SHARES)["alternatives"]
    assert (row["group"], row["of_trial"]) == ("architecture", 1)
    assert (row["chosen"], row["instead"]) == ([["model.arch", "unet"]], [["model.arch", "attention_unet"]])
    assert row["worth"] == pytest.approx(0.01, abs=1e-4)
    assert row["interval"][0] < 0 < row["interval"][1]
    assert not row["clear"]
    assert row["importance"] == 0.3


def test_a_groups_importance_is_the_sum_of_its_keys() -> None:
    record = ledger(plan(), images_of(IOU), shares=SHARES, num_trials=20)
    assert [step["importance"] for step in record["steps"]] == pytest.approx([0.2, 0.5])
    assert record["importances"] == SHARES
    assert record["importance_trials"] == 20
    assert [step["importance"] for step in ledger(plan(), images_of(IOU))["steps"]] == [None, None]


def test_the_noise_of_seeds_is_pooled_over_the_cells() -> None:
    """Means of -d, 0 and d around a cell's own have the variance d^2."""
    noise = ledger(plan(), images_of(IOU, noise=0.02))["seed_noise"]
    assert noise["sd"] == pytest.approx(0.02, rel=1e-2)
    assert (noise["df"], noise["num_configs"]) == (8, 4)
    assert noise["two_trainings"] == pytest.approx(1.96 * math.sqrt(2) * noise["sd"])


def test_where_less_is_better_worth_is_what_went_down() -> None:
    up = ledger(plan(), images_of(IOU))
    down = ledger(plan(mode="min"), images_of(IOU), objective=Objective("val/iou", "min"))
    for a, b in zip([*up["steps"], up["total"]], [*down["steps"], down["total"]], strict=True):
        assert b["worth"] == -a["worth"]
        assert b["interval"] == [-a["interval"][1], -a["interval"][0]]
        assert b["clear"] == a["clear"]


def test_auto_is_set_against_one_half_where_no_step_is_about_the_threshold() -> None:
    """At the winner 0.3 is the best: 0.1 better than 0.5 in each image, whatever the seed."""
    images = images_of(IOU)
    for seed in SEEDS:
        at_half = images["winner"][seed].values("iou", 0.5)
        images["winner"][seed] = counts(at_half - 0.2, at_half + 0.1, at_half, at_half)
    row = ledger(plan(), images)["threshold"]
    assert (row["chosen"], row["instead"]) == ("auto", 0.5)
    assert row["worth"] == pytest.approx(0.1, abs=1e-4)
    assert row["interval"] == pytest.approx([0.1, 0.1], abs=1e-3), "seeds move both alike"
    assert row["clear"]
    row = ledger(plan(), images_of(IOU))["threshold"]
    assert (row["worth"], row["interval"], row["clear"]) == (0.0, [0.0, 0.0], False)


def test_a_searched_threshold_is_a_step_of_the_same_trainings() -> None:
    own = {"model.arch": "unet", "loss.dice": 0.5, "optimizer.lr": 0.001, "threshold": 0.35}
    record = ledger(plan(own), images_of({"baseline": 0.6, "winner": 0.7, "architecture of trial 1": 0.6}))
    loss, threshold = record["steps"]
    assert record["threshold"] is None
    assert (loss["group"], threshold["group"]) == ("loss", "threshold")
    assert loss["worth"] == pytest.approx(0.1, abs=1e-4), "both at 0.5, the best of each"
    assert threshold["worth"] == pytest.approx(-0.1, abs=1e-4), "0.3 is the stored one below"
    assert threshold["interval"] == pytest.approx([-0.1, -0.1], abs=1e-3)
    assert threshold["clear"]
    assert loss["worth"] + threshold["worth"] == pytest.approx(record["total"]["worth"], abs=1e-12)
    assert record["winner"]["mean"] == pytest.approx(0.6, abs=1e-4)


def test_only_the_threshold_changed() -> None:
    own = {"model.arch": "unet", "loss.dice": 1.0, "optimizer.lr": 0.001, "threshold": 0.35}
    record = ledger(plan(own), images_of({"winner": 0.7}))
    assert [step["group"] for step in record["steps"]] == ["threshold"]
    assert record["steps"][0]["worth"] == record["total"]["worth"] == pytest.approx(-0.1, abs=1e-4)
    assert record["baseline"]["mean"] == pytest.approx(0.7, abs=1e-4)


def test_thresholds_are_chosen_on_the_other_half() -> None:
    """Each half is good at a threshold of its own, and the other half's does not suit it."""
    half_of = np.array([0, 1] * 6)
    first = np.where(half_of == 0, 0.9, 0.2)
    one = counts(np.zeros(12), first, np.full(12, 0.1), 1.1 - first)
    images = {cell: dict.fromkeys(SEEDS, one) for cell in IOU}
    record = ledger(plan(), images, half_of=half_of.tolist())
    assert record["cross_fitted"]
    assert record["winner"]["mean"] == pytest.approx(0.2)
    assert record["threshold"]["worth"] == pytest.approx(0.1)
    for whole in (None, [0] * 12):
        record = ledger(plan(), images, half_of=whole)
        assert not record["cross_fitted"]
        assert record["winner"]["mean"] == pytest.approx(0.55)


def test_a_number_is_no_cross_fit() -> None:
    base = apply(BASE, {"threshold": 0.5})
    record = ledger(plan(base=base), images_of(IOU), half_of=[0, 1] * 6)
    assert not record["cross_fitted"]
    assert record["threshold"] is None


def test_a_config_that_won_itself_gained_nothing() -> None:
    own = {"model.arch": "unet", "loss.dice": 1.0, "optimizer.lr": 0.001}
    record = ledger(plan(own), images_of({"winner": 0.7, "architecture of trial 1": 0.5}))
    assert record["steps"] == []
    assert record["total"] == {"worth": 0.0, "interval": [0.0, 0.0], "clear": False}
    assert record["baseline"] == record["winner"]
    assert record["alternatives"][0]["worth"] == pytest.approx(0.2, abs=1e-4)
    assert record["alternatives"][0]["clear"]


def test_a_seed_that_failed_leaves_the_others() -> None:
    images = images_of(IOU)
    del images["after loss"][3]
    failed = {"after loss": {3: "the loss became NaN"}}
    record = ledger(plan(), images, failed=failed)
    assert record["failed"] == ["after loss with seed 3: the loss became NaN"]
    assert record["steps"][0]["mean"] == pytest.approx(0.645, abs=1e-4), "the mean of seeds 1 and 2"
    assert sum(step["worth"] for step in record["steps"]) == pytest.approx(record["total"]["worth"], abs=1e-12)
    assert record["seed_noise"]["df"] == 7


def test_a_cell_of_which_all_failed_empties_its_rows_and_no_others() -> None:
    images = images_of(IOU) | {"after loss": {}}
    failed = {"after loss": dict.fromkeys(SEEDS, "out of memory")}
    record = ledger(plan(), images, failed=failed)
    for step in record["steps"]:
        assert (step["worth"], step["interval"], step["clear"]) == (None, None, False)
    assert [step["mean"] is None for step in record["steps"]] == [True, False]
    assert record["total"]["worth"] == pytest.approx(0.15, abs=1e-4)
    assert len(record["failed"]) == 3
    nothing = ledger(plan(), {})
    assert (nothing["num_images"], nothing["seed_noise"]["sd"]) == (None, None)
    assert nothing["winner"] == {"mean": None, "interval": None}


def test_a_single_seed_gives_worths_without_intervals() -> None:
    images = {cell: {1: by_seed[1]} for cell, by_seed in images_of(IOU).items()}
    record = ledger(plan(), images)
    assert [step["worth"] for step in record["steps"]] == pytest.approx([0.05, 0.10], abs=1e-4)
    assert [step["interval"] for step in record["steps"]] == [None, None]
    assert not record["total"]["clear"]
    assert record["seed_noise"] == {"sd": None, "df": 0, "num_configs": 0, "two_trainings": None}


def test_groups_of_images_make_the_interval_wider() -> None:
    images = images_of(IOU)
    for seed in SEEDS:  # half of the images, one after the other, gain; a patient's gain or do not
        images["winner"][seed] = counts(*(images["winner"][seed].values("iou", t) + np.repeat([0.1, 0], 6)
                                          for t in THRESHOLDS))  # fmt: skip
    alone, grouped = (
        ledger(plan(), images, groups=groups)["total"]["interval"] for groups in (None, list("aaabbbcccddd"))
    )
    assert grouped[1] - grouped[0] > 1.2 * (alone[1] - alone[0])


def test_a_loss_has_seeds_but_no_images() -> None:
    """Variances are 0.01^2, the pooled one of 8 degrees and each config's own, which is a part of it, of 2.

    Half an interval of a mean is t * 0.01 / sqrt(3) with 1 / (1 / 4 / 8 + 1 / 4 / 2 + 1 / 2 / 8) = 32 / 7 degrees, and
    of a difference t * 0.01 * sqrt(2 / 3) with 4 / (1 / 8 + 2 / 4 / 2 + 2 * 2 / 2 / 8) = 6.4.
    """
    means = {"baseline": 0.5, "after loss": 0.4, "winner": 0.3, "architecture of trial 1": 0.31}
    values = {cell: {1: mean - 0.01, 2: mean, 3: mean + 0.01} for cell, mean in means.items()}
    of_images = {"groups": list("aabbccddeeff"), "half_of": [0, 1] * 6}
    record = ledger(plan(mode="min"), {}, values=values, objective=Objective("val/loss", "min"), **of_images)
    assert [step["worth"] for step in record["steps"]] == pytest.approx([0.1, 0.1])
    assert record["total"]["worth"] == pytest.approx(0.2)
    half = t_quantile(0.975, 32 / 7) * 0.01 / math.sqrt(3)
    assert record["winner"]["interval"] == pytest.approx([0.3 - half, 0.3 + half], abs=1e-5)
    half = t_quantile(0.975, 6.4) * 0.01 * math.sqrt(2 / 3)
    assert record["total"]["interval"] == pytest.approx([0.2 - half, 0.2 + half], abs=1e-5)
    assert record["alternatives"][0]["worth"] == pytest.approx(0.01)
    assert not record["alternatives"][0]["clear"]
    assert (record["num_images"], record["cross_fitted"], record["threshold"]) == (None, False, None)
    assert record["notes"] == [
        "val/loss has no values of single images: intervals are over seeds alone, not over other images"
    ]


def test_the_same_seeds_in_another_order_make_the_same_ledger() -> None:
    images = images_of(IOU)
    turned = {cell: dict(reversed(by_seed.items())) for cell, by_seed in reversed(images.items())}
    assert ledger(plan(), turned) == ledger(plan(), images)
