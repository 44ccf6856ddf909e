from typing import Any

from search.show.quoting import (
    CROSS_FITTED,
    FRESH_SEEDS,
    headline,
    origin_text,
    quote,
)
from search.show.scores import score_rows
from segcore.sealed.card import Card, Origin


def score(iou: float, chose: list[str] | None = None, **more: Any) -> dict[str, Any]:
    record = {"num_images": 12, "iou": iou, "iou_interval": [iou - 0.05, iou + 0.05], "dice": iou + 0.01, **more}
    return record if chose is None else {**record, "chose": chose}


ALL = ["epoch", "threshold", "winner"]
CARD = {"threshold": {"value": 0.25}}
TEST = {**CARD, "scores": {"val": score(0.8, ALL), "test": score(0.7, [])}}
FITTED = {**CARD, "scores": {"val": score(0.8, ALL, cross_fitted=score(0.78, thresholds=[0.2, 0.3]))}}


def card(tree: dict[str, Any]) -> Card:
    return Card.model_validate(tree)


def optimism(against: str, honest: float) -> dict[str, Any]:
    return {"val": 0.8, "against": against, "honest": honest, "gap": 0.8 - honest, "interval": [-0.01, 0.21]}


def test_test_is_quoted_first_then_the_cross_fitted_score_then_val() -> None:
    found = quote(card(TEST))
    assert found is not None
    assert (found.name, found.split, found.score.iou, found.chose) == ("test", "test", 0.7, [])
    found = quote(card(FITTED))
    assert found is not None
    assert (found.name, found.split, found.score.iou, found.chose) == (
        CROSS_FITTED,
        "val",
        0.78,
        ["epoch", "winner"],
    )
    found = quote(card({**CARD, "scores": {"val": score(0.8, ALL)}}))
    assert found is not None
    assert (found.name, found.score.iou, found.chose) == ("val", 0.8, ALL)
    assert quote(card({**CARD, "scores": {}})) is None
    assert quote(None) is None


def test_the_headline_of_a_card_of_an_earlier_version_is_one_line() -> None:
    assert headline(card({**CARD, "scores": {"val": score(0.8, ALL)}})) == (
        "IoU 0.8000 (95% interval 0.7500-0.8500), Dice 0.8100 on 12 val images, which also chose epoch, threshold, "
        "winner, so the score is optimistic about these; threshold 0.2500"
    )
    assert headline(card(TEST)).endswith("Dice 0.7100 on 12 test images, which chose nothing; threshold 0.2500")
    assert headline(card({**CARD})) == "not scored"


def test_the_headline_says_how_much_val_flatters() -> None:
    first, second = headline(card({**TEST, "optimism": optimism("test", 0.7)})).splitlines()
    assert first.startswith("IoU 0.7000")
    assert second == "val's own IoU is 0.8000: +0.1000 against test (95% interval -0.0100 to +0.2100)"


def test_without_test_the_headline_says_what_was_cross_fitted_and_what_was_not() -> None:
    first, second = headline(card({**FITTED, "optimism": optimism(CROSS_FITTED, 0.78)})).splitlines()
    assert first == (
        "IoU 0.7800 (95% interval 0.7300-0.8300), Dice 0.7900 on 12 val images, the threshold chosen on one half and "
        "scored on the other; they also chose epoch, winner, so the score is optimistic about these; threshold 0.2500"
    )
    assert "+0.0200 against the cross-fitted score" in second


def test_fresh_seeds_are_quoted_before_the_cross_fitted_score_and_after_test() -> None:
    fresh = score(0.76, num_seeds=3)
    val = score(0.8, [*ALL, "seed"], cross_fitted=score(0.78), fresh_seeds=fresh)
    gap = {**optimism(FRESH_SEEDS, 0.76), "claimed_by": "search", "val": 0.79, "gap": 0.03}
    first, second, third = headline(card({**CARD, "scores": {"val": val}, "optimism": gap})).splitlines()
    assert first == (
        "IoU 0.7600 (95% interval 0.7100-0.8100), Dice 0.7700 on 12 val images, the mean of 3 trainings of these "
        "settings with seeds that chose nothing, the threshold chosen on one half and scored on the other; "
        "threshold 0.2500"
    )
    assert second == "the search saw IoU 0.7900: +0.0300 against fresh seeds (95% interval -0.0100 to +0.2100)"
    assert third == "the sealed model's own IoU on val is 0.8000; val chose its epoch, threshold, winner, seed"
    found = quote(card({**CARD, "scores": {"val": val, "test": score(0.7, [])}}))
    assert found is not None
    assert found.name == "test"
    names = [name for name, _ in score_rows(card({**CARD, "scores": {"val": val}}))]
    assert names == ["val", CROSS_FITTED, FRESH_SEEDS]


def test_a_threshold_of_the_config_is_chosen_on_no_half() -> None:
    val = score(0.8, ["epoch", "winner", "seed"], fresh_seeds=score(0.76, num_seeds=1))
    assert "a training of these settings with a seed that chose nothing; threshold" in headline(
        card({**CARD, "scores": {"val": val}})
    )


def test_the_training_of_a_sealed_model_is_named_with_its_seed_where_it_has_one() -> None:
    again = Origin(run="birds", trial=9, epoch=8, seed=2, trials=12)
    assert origin_text(again) == "trial 9, trained again with seed 2, epoch 8"
    assert origin_text(again.but(seed=None)) == "trial 9, epoch 8"
    assert origin_text(Origin(run="birds", epoch=3)) == "epoch 3"
