from typing import Any

import pytest
from report_runs import card, frozen, row, score, sources
from rerun_records import by_loss, tie

from search.report.outcome import (
    all_scores,
    best_trials,
    failures,
    headline,
    origins,
)
from search.report.sections.score import quoted_score, scores_section
from segcore.scores.scoring import ImageScore, summarize


def test_the_score_to_quote_is_the_one_that_chose_nothing() -> None:
    record = headline(
        sources(
            trials=[row(0, 0.7), row(1, 0.4, "pruned"), row(2, None, "failed")],
            epochs=[{"number": 0, "epoch": 1}, {"number": 0, "epoch": 2}, {"number": 1, "epoch": 1}],
            card=card(0, val=score(0.7, ["epoch", "winner"]), test=score(0.6, [])),
        )
    )
    assert record["quoted"] == "test"
    assert record["scores"]["test"]["iou_interval"] == [pytest.approx(0.55), pytest.approx(0.65)]
    assert record["scores"]["val"]["chose"] == ["epoch", "winner"]
    assert record["sealed"] == {"trial": 0, "epoch": 2}
    assert record["threshold"] == {"value": 0.25, "chosen_by": "config"}
    assert record["states"] == {"complete": 1, "failed": 1, "pruned": 1}
    assert (record["trials"], record["num_samples"], record["epochs"]) == (3, 64, 3)


def test_without_a_test_split_val_is_quoted_and_without_a_card_nothing() -> None:
    assert headline(sources(card=card(0, val=score(0.7, ["epoch"]))))["quoted"] == "val"
    bare = headline(sources())
    assert (bare["quoted"], bare["scores"], bare["sealed"], bare["threshold"]) == (None, {}, None, None)


def test_the_rule_and_the_extensions_are_those_of_the_run() -> None:
    note = {"when": 5.0, "trials_before": 8, "num_samples": 4, "changed": {"search.seed": [0, 1]}, "config_before": "c"}
    run = {
        **sources().run, "stopped_by": {"rule": "target", "detail": "reached"}, "extensions": [note],
    }  # fmt: skip
    record = headline(sources(run=run))
    assert record["stopped_by"] == {"rule": "target", "detail": "reached"}
    assert record["extensions"] == [{"when": 5.0, "trials_before": 8, "num_samples": 4, "changed": ["search.seed"]}]


def test_a_tie_and_the_seed_of_the_sealed_training_are_told() -> None:
    sealed = card(0)
    sealed["origin"]["seed"] = 2
    record = headline(sources(card=sealed, confirmation=tie()))
    assert record["sealed"] == {"trial": 0, "epoch": 2, "seed": 2}
    assert record["tie"] == tie()["reason"]
    assert headline(sources(confirmation=by_loss()))["tie"] is None
    assert headline(sources())["tie"] is None


def test_best_trials_are_ranked_by_the_mode_and_failed_ones_come_last() -> None:
    rows = [
        row(0, 0.5),
        row(1, 0.9, "failed"),
        row(2, 0.3),
        row(3, None),
        row(4, 0.5, **{"param/a.b": 1, "param/c": None}),
    ]
    found = best_trials(sources(trials=rows))
    assert found is not None
    assert [trial["number"] for trial in found] == [0, 4, 2, 1]
    assert found[1]["settings"] == {"a.b": 1}
    by_loss = best_trials(sources(trials=rows, config={"search": {"metric": "val/loss"}}), count=2)
    assert by_loss is not None
    assert [trial["number"] for trial in by_loss] == [2, 0]
    assert best_trials(sources()) is None


def test_failures_are_grouped_by_kind_with_the_first_line_of_the_first() -> None:
    rows = [
        row(0, None, "failed", error="ValueError: one\nmore"), row(1, 0.5),
        row(2, None, "failed", error="OSError: disk"), row(3, None, "failed", error="OSError: other"),
        row(4, None, "failed"),
    ]  # fmt: skip
    trials = frozen([("failed", {}, {"failure": "not a number"} if n == 4 else {}) for n in range(5)], {})
    assert failures(sources(trials=rows, frozen=trials)) == [
        {"kind": "OSError", "count": 2, "trials": [2, 3], "first_error": "disk"},
        {"kind": "ValueError", "count": 1, "trials": [0], "first_error": "one"},
        {"kind": "not a number", "count": 1, "trials": [4], "first_error": ""},
    ]
    assert failures(sources(trials=rows[1:2])) is None


def test_origins_count_all_their_trials_and_average_those_that_did_not_fail() -> None:
    rows = [row(0, 0.5), row(1, 0.2), row(2, 0.6), row(3, 0.9, "failed"), row(4, None, "failed")]
    names = ["config", "gp", "gp", "gp", "prior"]
    trials = frozen([("complete", {}, {"origin": name}) for name in names], {})
    assert origins(sources(trials=rows, frozen=trials)) == [
        {"origin": "config", "trials": 1, "with_value": 1, "mean": 0.5, "best": 0.5, "found_winner": False},
        {"origin": "gp", "trials": 3, "with_value": 2, "mean": pytest.approx(0.4), "best": 0.6, "found_winner": True},
        {"origin": "prior", "trials": 1, "with_value": 0, "mean": None, "best": None, "found_winner": False},
    ]
    assert origins(sources()) is None
    assert origins(sources(trials=rows, frozen=frozen([("complete", {}, {})] * 5, {}))) is None


def test_a_trial_that_does_not_say_who_proposed_it_is_counted_apart_and_a_waiting_one_not_at_all() -> None:
    trials = frozen([("complete", {}, {"origin": "gp"}), ("complete", {}, {}), ("complete", {}, {"origin": "gp"})], {})
    found = origins(sources(trials=[row(0, 0.5), row(1, 0.6)], frozen=trials))
    assert found is not None
    assert [(entry["origin"], entry["trials"]) for entry in found] == [("gp", 1), ("not recorded", 1)]


def test_the_sealed_trial_is_the_winner_even_where_another_one_is_better() -> None:
    trials = frozen([("complete", {}, {"origin": "config"}), ("complete", {}, {"origin": "gp"})], {})
    found = origins(sources(trials=[row(0, 0.5), row(1, 0.9)], frozen=trials, card=card(0)))
    assert found is not None
    assert [entry["found_winner"] for entry in found] == [True, False]


def full_card() -> dict[str, Any]:
    """A card of this version without a test split: 14 classes, three object sizes and an image without any."""
    images = [
        ImageScore(f"<{i}>", i, 20, 20, i, 30, size, class_name=f"c{i:02d}", group=str(i))
        for i, size in enumerate(["small", "medium", "large", "empty"] * 3 + ["small"] * 2)
    ]  # fmt: skip
    cross_fitted = {"iou": 0.4, "iou_interval": [0.3, 0.5], "dice": 0.5, "num_images": 14, "thresholds": [0.2, 0.3]}
    val = {**summarize(images), "chose": ["epoch", "threshold"], "cross_fitted": cross_fitted}
    optimism = {"val": 0.45, "against": "val, cross-fitted", "honest": 0.4, "gap": 0.05, "interval": [0.01, 0.09]}
    return {**card(0, val=val), "optimism": optimism}


def test_all_scores_have_a_row_each_and_of_many_classes_the_worst_are_shown() -> None:
    record = all_scores(sources(card=full_card()))
    assert record is not None
    names = [row["name"] for row in record["rows"]]
    assert names[:6] == [
        "mean per image", "all pixels pooled", "empty masks", "small objects", "medium objects", "large objects",
    ]  # fmt: skip
    assert names[6:18] == [f"class c{i:02d}" for i in range(11)] + ["class c11 (2 better classes: see card.json)"]
    assert names[18:] == [f"worst: <{i}>" for i in range(5)]
    assert record["rows"][19]["iou"] == 1 / 39
    page = scores_section(record)
    assert "All scores on val" in page
    assert "worst: &lt;0&gt;" in page
    assert all_scores(sources(card=card(0, val=score(0.7, [])))) is None, "a card of an earlier version"
    assert all_scores(sources()) is None


def test_the_cross_fitted_score_is_quoted_with_what_it_does_not_undo() -> None:
    head = headline(sources(card=full_card()))
    assert head["quoted"] == "val, cross-fitted"
    assert head["scores"]["val, cross-fitted"]["chose"] == ["epoch"]
    page = quoted_score(head)
    assert "<b>0.4000</b>" in page
    assert "the same images also chose: epoch." in page
    assert "+0.0500 against the cross-fitted score (95% interval +0.0100 to +0.0900)" in page
    assert quoted_score(headline(sources())) == ""
