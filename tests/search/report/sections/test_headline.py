import pytest
from report_runs import card, full_card, row, run_with, score, subject
from rerun_records import by_loss, tie

from search.report.jsonable import as_json
from search.report.sections.headline import Threshold, headline, render


def test_the_score_to_quote_is_the_one_that_chose_nothing() -> None:
    record = headline(
        run_with(
            trials=[row(0, 0.7), row(1, 0.4, "pruned"), row(2, None, "failed")],
            epochs=[{"number": 0, "epoch": 1}, {"number": 0, "epoch": 2}, {"number": 1, "epoch": 1}],
            card=card(0, val=score(0.7, ["epoch", "winner"]), test=score(0.6, [])),
        )
    )
    assert record.quoted == "test"
    assert list(record.scores["test"].iou_interval) == [pytest.approx(0.55), pytest.approx(0.65)]
    assert list(record.scores["val"].chose) == ["epoch", "winner"]
    assert as_json(record.sealed) == {"trial": 0, "epoch": 2}
    assert record.threshold == Threshold(0.25, "config")
    assert record.states == {"complete": 1, "failed": 1, "pruned": 1}
    assert (record.trials, record.num_samples, record.epochs) == (3, 64, 3)


def test_without_a_test_split_val_is_quoted_and_without_a_card_nothing() -> None:
    assert headline(run_with(card=card(0, val=score(0.7, ["epoch"])))).quoted == "val"
    bare = headline(run_with())
    assert (bare.quoted, bare.scores, bare.sealed, bare.threshold) == (None, {}, None, None)


def test_the_rule_and_the_extensions_are_those_of_the_run() -> None:
    note = {"when": 5.0, "trials_before": 8, "num_samples": 4, "changed": {"search.seed": [0, 1]}, "config_before": "c"}
    told = {"stopped_by": {"rule": "target", "detail": "reached"}, "extensions": [note]}
    record = headline(run_with(record=told))
    assert as_json(record.stopped_by) == {"rule": "target", "detail": "reached"}
    assert as_json(record.extensions) == [
        {"when": 5.0, "trials_before": 8, "num_samples": 4, "changed": ["search.seed"]}
    ]


def test_a_tie_and_the_seed_of_the_sealed_training_are_told() -> None:
    sealed = card(0)
    sealed["origin"]["seed"] = 2
    record = headline(run_with(card=sealed, confirmation=tie()))
    assert as_json(record.sealed) == {"trial": 0, "epoch": 2, "seed": 2}
    assert record.tie == tie()["reason"]
    assert "<dd>trial 0, trained again with seed 2, epoch 2</dd>" in render(record, subject())
    assert headline(run_with(confirmation=by_loss())).tie is None
    assert headline(run_with()).tie is None


def test_the_cross_fitted_score_is_quoted_with_what_it_does_not_undo() -> None:
    head = headline(run_with(card=full_card()))
    assert head.quoted == "val, cross-fitted"
    assert head.scores["val, cross-fitted"].chose == ["epoch"]
    page = render(head, subject())
    assert "<b>0.4000</b>" in page
    assert "the same images also chose: epoch." in page
    assert "+0.0500 against the cross-fitted score (95% interval +0.0100 to +0.0900)" in page
    assert 'class="score"' in page
    assert 'class="score"' not in render(headline(run_with()), subject())


def test_the_mean_over_fresh_seeds_is_quoted_beside_the_sealed_models_own_score() -> None:
    tree = full_card()
    tree["scores"]["val"]["fresh_seeds"] = {**score(0.38, []), "num_seeds": 3}
    tree["optimism"] = {**tree["optimism"], "claimed_by": "search", "against": "val, fresh seeds"}
    tree["threshold"] |= {"flat": [0.2, 0.6], "flat_within": 0.005}
    head = headline(run_with(card=tree))
    assert head.quoted == "val, fresh seeds"
    page = render(head, subject())
    assert "<b>0.3800</b><small>IoU, mean per image, on" in page
    assert "seeds that the search never used, each at a threshold that was chosen on the other half" in page
    assert "the search saw IoU 0.4500: +0.0500 against fresh seeds" in page
    assert "val images, which chose epoch, threshold</small>" in page
    assert "IoU stays within 0.005 from 0.20 to 0.60" in page


def test_while_nothing_is_sealed_the_best_trial_so_far_is_named() -> None:
    page = render(headline(run_with()), subject(best=(3, 0.71)))
    assert "Nothing is sealed yet. The best trial so far is 3, with val/iou 0.7100 on val." in page
    assert "so far" not in render(headline(run_with()), subject())
