"""The rules on numbers, and on Ray's calls; the real searches that they end are in test_extending.py."""

import pickle
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.tune import Callback, Stopper

from search.config.tree import PlateauConfig, SearchSettings
from search.runs.events import Epoch
from search.runs.lives import LifeState, TrialLife
from search.tune.stopping import SearchStopper, expected_gain
from segcore.objective import Mode, Objective

IOU = Objective("val/iou")
PLATEAU = PlateauConfig(trials=20, floor=0.001, min_trials=20)


def new_stopper(**settings: Any) -> SearchStopper:
    return SearchStopper(SearchSettings(**settings), [])


def report(stopper: SearchStopper, number: int, epoch: int, value: float, metric: str = "val/iou") -> bool:
    assert stopper(f"ray-{number}", {"number": number, "epoch": epoch, metric: value}) is False
    return stopper.stop_all()


def end(stopper: SearchStopper, number: int, *, failed: bool = False) -> None:
    trial: Any = SimpleNamespace(config={"number": number})
    (stopper.on_trial_error if failed else stopper.on_trial_complete)(0, [trial], trial)


def stops_after(values: list[float], **settings: Any) -> int | None:
    """How many trials of one epoch each had ended when the search was stopped."""
    stopper = new_stopper(**settings)
    for number, value in enumerate(values):
        report(stopper, number, 1, value)
        end(stopper, number)
        if stopper.stop_all():
            return number + 1
    return None


def test_it_is_what_ray_takes_for_a_stopper_and_a_callback() -> None:
    stopper = new_stopper(target=0.9)
    assert isinstance(stopper, Stopper)
    assert isinstance(stopper, Callback)
    report(stopper, 0, 1, 0.95)
    assert pickle.loads(pickle.dumps(stopper)).stopped_by == stopper.stopped_by


@pytest.mark.parametrize("num_seen", [20, 60])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_expected_gain_of_exponential_values_is_unbiased(num_seen: int, mode: Mode) -> None:
    """Estimate against the gain that further draws really brought, both averaged over simulated searches."""
    num_more, num_searches = 20, 4000
    draws = np.random.default_rng(0).exponential(0.02, (num_searches, num_seen + num_more))
    seen = draws[:, :num_seen]
    gained = float(np.mean(draws.max(axis=1) - seen.max(axis=1)))
    sign = 1.0 if mode == "max" else -1.0
    estimated = [expected_gain((sign * (0.5 + row)).tolist(), num_more, Objective("val/iou", mode)) for row in seen]
    exact = 0.02 * sum(1.0 / i for i in range(num_seen + 1, num_seen + num_more + 1))
    assert float(np.mean(estimated)) == pytest.approx(exact, rel=0.03)
    assert gained == pytest.approx(exact, rel=0.1)


def test_the_expected_gain_by_hand() -> None:
    """Five values, all in the tail: excesses 0.4, 0.3, 0.2, 0.1 over the lowest, mean 0.25; H_7 - H_5 = 1/6 + 1/7."""
    assert expected_gain([0.1, 0.5, 0.3, 0.4, 0.2], 2, IOU) == pytest.approx(0.25 * (1 / 6 + 1 / 7))
    assert expected_gain([0.7] * 8, 20, IOU) == 0.0
    with pytest.raises(ValueError, match="at least 2 values, found 1"):
        expected_gain([0.7], 20, IOU)


def test_only_the_upper_tail_counts() -> None:
    """Of 50 values, the 10 best; how bad the others are says nothing about what can still be gained."""
    best = [0.80 + 0.001 * i for i in range(10)]
    assert expected_gain([*best, *[0.79] * 40], 20, IOU) == pytest.approx(expected_gain([*best, *[0.01] * 40], 20, IOU))


def test_a_search_that_keeps_rising_is_not_stopped() -> None:
    assert stops_after([0.001 * number for number in range(900)], plateau=PLATEAU) is None


def test_a_flat_search_is_stopped_as_soon_as_the_rule_may() -> None:
    assert stops_after([0.8] * 60, plateau=PLATEAU) == 20


def test_a_search_that_has_risen_is_stopped_when_it_has_become_flat() -> None:
    rising = [0.02 * number for number in range(30)]
    stopped = stops_after([*rising, *[rising[-1] - 0.0001 * (number % 5) for number in range(200)]], plateau=PLATEAU)
    assert stopped is not None
    assert 30 < stopped < 120


def test_a_falling_loss_is_judged_the_other_way_round() -> None:
    settings: dict[str, Any] = {"metric": "val/loss", "mode": "min", "plateau": PLATEAU}
    stopper = new_stopper(**settings)
    for number in range(200):
        report(stopper, number, 1, 1.0 - 0.004 * number, "val/loss")
        end(stopper, number)
        assert not stopper.stop_all()
    for number in range(200, 800):
        report(stopper, number, 1, 0.2, "val/loss")
        end(stopper, number)
    assert stopper.stop_all()


def test_trials_that_run_or_failed_do_not_count_for_the_plateau() -> None:
    stopper = new_stopper(plateau=PLATEAU)
    for number in range(25):
        report(stopper, number, 1, 0.8)
        if number < 19:
            end(stopper, number)
        elif number < 22:
            end(stopper, number, failed=True)
    assert not stopper.stop_all()
    end(stopper, 23)
    assert stopper.stop_all()
    assert stopper.stopped_by is not None
    assert stopper.stopped_by.rule == "plateau"
    assert "after 20 trials, the next 20 together" in stopper.stopped_by.detail


def test_a_trials_value_is_its_best_epoch() -> None:
    stopper = new_stopper(plateau=PLATEAU)
    for number in range(20):
        for epoch, value in enumerate((0.8, 0.1 + 0.01 * number), start=1):
            report(stopper, number, epoch, value)
        end(stopper, number)
    assert stopper.stop_all()


def test_the_target_ends_the_search_at_the_report_that_reaches_it() -> None:
    stopper = new_stopper(target=0.9)
    assert not report(stopper, 0, 1, 0.8999)
    assert report(stopper, 1, 4, 0.9)
    assert stopper.stopped_by is not None
    assert (stopper.stopped_by.rule, stopper.stopped_by.detail) == (
        "target", "trial 1 has val/iou 0.9000, which reaches 0.9",
    )  # fmt: skip


def test_a_target_of_a_loss_is_reached_from_above() -> None:
    stopper = new_stopper(metric="val/loss", mode="min", target=0.2)
    assert not report(stopper, 0, 1, 0.3, "val/loss")
    assert report(stopper, 0, 2, 0.2, "val/loss")


def test_without_rules_nothing_stops_and_no_number_is_no_value() -> None:
    assert stops_after([0.8] * 60) is None
    stopper = new_stopper(target=0.5)
    assert not report(stopper, 0, 1, float("nan"))
    assert not report(stopper, 0, 2, float("inf"))


def test_the_time_budget_counts_what_earlier_sessions_used() -> None:
    settings = SearchSettings(time_budget_s=60.0)
    assert not SearchStopper(settings, [], used_s=59.0).stop_all()
    spent = SearchStopper(settings, [], used_s=60.5)
    assert spent.stop_all()
    assert spent.stopped_by is not None
    assert spent.stopped_by.rule == "time_budget_s"


def test_the_time_budget_passes_while_no_trial_reports() -> None:
    stopper = SearchStopper(SearchSettings(time_budget_s=0.1), [])
    assert not stopper.stop_all()
    time.sleep(0.12)
    assert stopper.stop_all()


def stored(*trials: tuple[LifeState, list[float]]) -> list[TrialLife]:
    return [
        TrialLife(
            number,
            state,
            epochs={epoch: Epoch(number, epoch, 1.0, {"val/iou": v}) for epoch, v in enumerate(values, start=1)},
        )
        for number, (state, values) in enumerate(trials)
    ]


def test_a_rule_that_earlier_sessions_met_is_met_at_once() -> None:
    history = stored(("complete", [0.2, 0.91, 0.3]), ("running", [0.1]))
    assert SearchStopper(SearchSettings(target=0.9), history).stop_all()
    flat = stored(*[("pruned", [0.8])] * 20)
    assert SearchStopper(SearchSettings(plateau=PLATEAU), flat).stop_all()
    assert not SearchStopper(SearchSettings(plateau=PLATEAU), flat[:19]).stop_all()


def test_a_failed_trial_of_an_earlier_session_meets_no_target() -> None:
    history = stored(("failed", [0.95]), ("complete", [0.5]))
    assert not SearchStopper(SearchSettings(target=0.9), history).stop_all()


@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        ({"target": 1.2}, ["target", "found 1.2", "valid: 0 to 1"]),
        ({"target": -0.1, "metric": "val/dice"}, ["target", "val/dice"]),
        ({"target": -0.1, "metric": "val/loss", "mode": "min"}, ["target", "valid: 0 or more"]),
        ({"plateau": {"floor": 0.0}}, ["plateau.floor"]),
        ({"plateau": {"min_trials": 4}}, ["plateau.min_trials"]),
    ],
)
def test_rules_that_make_no_sense_are_refused(settings: dict[str, Any], fragments: list[str]) -> None:
    with pytest.raises(ValueError, match="(?s)" + ".*".join(map(str, fragments))):
        SearchSettings(**settings)


def test_a_loss_may_have_a_target_above_one() -> None:
    assert SearchSettings(metric="val/loss", mode="min", target=1.2).target == 1.2
