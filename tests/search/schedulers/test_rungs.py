import itertools

import numpy as np
import pytest

from search.schedulers.rungs import Promotions
from segcore.objective import Mode, Objective

IOU, COSTLY = Objective("val/iou"), Objective("val/iou", second="cost/parameters")


def new(mode: Mode = "max") -> Promotions:
    return Promotions([1, 3, 9], 3, Objective("val/iou", mode))


def test_a_trial_waits_until_it_is_among_the_best_third() -> None:
    rungs = new()
    assert not rungs.goes_on(0, 1, 0.5)  # the first one is compared with nobody
    assert rungs.next(is_last_call=False) is None
    assert not rungs.goes_on(1, 1, 0.4)
    assert rungs.next(is_last_call=False) == 0  # a third of two, rounded
    for number, value in ((2, 0.3), (3, 0.2)):
        assert not rungs.goes_on(number, 1, value)
        assert rungs.next(is_last_call=False) is None  # a third of three, and of four
    assert not rungs.goes_on(4, 1, 0.1)
    assert rungs.next(is_last_call=False) == 1  # a third of five: it is judged again as others come
    assert rungs.next(is_last_call=False) is None
    assert rungs.waiting == {2, 3, 4}


def test_a_trial_that_is_good_enough_when_it_comes_does_not_wait() -> None:
    rungs = new()
    rungs.goes_on(0, 1, 0.1)
    assert rungs.goes_on(1, 1, 0.3)
    assert rungs.goes_on(1, 2, 0.05)  # between rungs nobody is judged
    assert not rungs.goes_on(2, 1, 0.2)
    assert rungs.waiting == {0, 2}


def test_the_highest_rung_goes_first_and_the_earlier_trial_wins_a_tie() -> None:
    rungs = new()
    for number in range(9):
        assert not rungs.goes_on(number, 1, 0.5) or number in (1, 2)
    assert [rungs.next(is_last_call=False) for _ in range(4)] == [0, 1, 2, None]
    for number, value in enumerate([0.7, 0.6, 0.5]):
        assert not rungs.goes_on(number, 3, value)
    for number in (9, 10):
        assert not rungs.goes_on(number, 1, 0.0)
    assert [rungs.next(is_last_call=False) for _ in range(3)] == [0, 3, None]  # from epoch 3, then from epoch 1


def test_a_value_is_the_best_so_far() -> None:
    rungs = Promotions([2], 2, IOU)
    rungs.goes_on(0, 1, 0.9)
    rungs.goes_on(0, 2, 0.1)  # its checkpoint of epoch 1 is worth 0.9
    rungs.goes_on(1, 2, 0.5)
    assert rungs.next(is_last_call=False) == 0


def test_lower_is_better_in_mode_min_and_no_number_is_the_worst() -> None:
    rungs = Promotions([1], 3, Objective("val/loss", "min"))
    assert not rungs.goes_on(0, 1, float("nan"))
    assert rungs.goes_on(1, 1, 0.2)
    assert rungs.goes_on(2, 1, 0.1)
    assert rungs.next(is_last_call=False) is None  # a third of three is the one at 0.1
    for number, value in enumerate([0.3, 0.4, 0.5, 0.6, 0.7, 0.8], start=3):
        rungs.goes_on(number, 1, value)
    assert [rungs.next(is_last_call=False) for _ in range(2)] == [3, None]


def test_at_the_end_one_of_each_rung_goes_on_however_few_there_are() -> None:
    rungs = new()
    assert not rungs.goes_on(0, 1, 0.3)
    assert rungs.goes_on(1, 1, 0.5)
    assert not rungs.goes_on(1, 3, 0.6)
    assert rungs.next(is_last_call=False) is None
    assert rungs.next(is_last_call=True) == 1
    assert not rungs.goes_on(1, 9, 0.7)
    assert rungs.next(is_last_call=True) == 1
    assert rungs.next(is_last_call=True) is None
    assert rungs.waiting == {0}


@pytest.mark.parametrize("stop_at", range(1, 40, 3))
def test_a_replayed_history_goes_on_as_if_nothing_had_happened(stop_at: int) -> None:
    """One worker, twelve trials of nine epochs; the session ends after `stop_at` reports."""
    rng = np.random.default_rng(0)
    curves = [(rng.uniform(0.3, 0.9) * (1 - 0.7 ** np.arange(1, 28))).tolist() for _ in range(12)]

    def run(stop_after: int | None) -> dict[int, dict[int, float]]:
        history: dict[int, dict[int, float]] = {}
        rungs, fresh, reports = new(), itertools.count(), 0
        while True:
            number = rungs.next(is_last_call=len(history) == 12)
            if number is None:
                if len(history) == 12:
                    return history
                number = next(fresh)
            epochs = history.setdefault(number, {})
            goes_on = True
            while goes_on and len(epochs) < 27:
                epoch = len(epochs) + 1
                epochs[epoch] = curves[number][epoch - 1]
                goes_on = rungs.goes_on(number, epoch, epochs[epoch])
                reports += 1
                if reports == stop_after:
                    rungs = new()
                    unfinished = [n for n, e in history.items() if len(e) < 27]
                    rungs.replay(history, unfinished)
                    if number not in rungs.waiting:
                        continue
                    goes_on = False

    assert run(stop_at) == run(None)


def test_those_that_an_earlier_search_ended_are_compared_with_but_never_called() -> None:
    rungs = new()
    rungs.replay({0: {1: 0.9}, 1: {1: 0.8}, 2: {1: 0.7, 2: 0.7, 3: 0.7}, 3: {1: 0.6}}, unfinished=[3])
    assert rungs.waiting == {3}
    assert rungs.next(is_last_call=False) is None
    assert not rungs.goes_on(4, 1, 0.65)
    assert rungs.waiting == {3, 4}


def with_costs(rungs: Promotions, trials: dict[int, tuple[float, float]], epoch: int = 1) -> list[bool]:
    return [rungs.goes_on(number, epoch, value, cost) for number, (value, cost) in trials.items()]


FRONT = {0: (0.90, 1e6), 1: (0.87, 1e4), 2: (0.88, 1e6), 3: (0.70, 1e6), 4: (0.60, 1e5), 5: (0.50, 1e5)}
"""Trial 1 is a little less good than trials 0 and 2, and a hundred times cheaper than both."""


def called(reduction_factor: int, *, has_cost: bool) -> list[int | None]:
    """Who goes on when all of `FRONT` stand at the rung."""
    rungs = Promotions([1], reduction_factor, COSTLY if has_cost else IOU)
    rungs.replay({n: {1: value} for n, (value, _) in FRONT.items()}, FRONT, {n: cost for n, (_, cost) in FRONT.items()})
    return [rungs.next(is_last_call=False) for _ in range(4)]


def test_with_a_cost_a_cheap_model_is_not_stopped_for_a_slightly_lower_value() -> None:
    assert called(3, has_cost=False) == [0, 2, None, None]
    assert called(3, has_cost=True) == [0, 1, None, None]


def test_behind_the_front_the_next_front_is_called() -> None:
    assert called(2, has_cost=True) == [0, 1, 2, None]


def test_a_trials_first_cost_counts_and_one_without_is_the_dearest() -> None:
    rungs = Promotions([1], 2, COSTLY)
    assert not rungs.goes_on(0, 1, 0.5, 10.0)
    assert not rungs.goes_on(0, 1, 0.5, 1e9)
    assert not rungs.goes_on(1, 1, 0.5, 100.0)
    assert rungs.next(is_last_call=False) == 0
    assert not rungs.goes_on(2, 1, 0.5)
    assert not rungs.goes_on(3, 1, 0.5, 1000.0)
    assert [rungs.next(is_last_call=False) for _ in range(2)] == [1, None]


def test_a_replayed_history_with_costs_calls_the_same_trials() -> None:
    rng = np.random.default_rng(1)
    trials = {n: (float(rng.uniform()), float(10 ** rng.uniform(3, 6))) for n in range(30)}
    first, again = (Promotions([1], 3, COSTLY) for _ in range(2))
    passed = {number for number, goes_on in zip(trials, with_costs(first, trials), strict=True) if goes_on}
    history = {n: {1: value, **({2: value} if n in passed else {})} for n, (value, _) in trials.items()}
    again.replay(history, trials, {n: cost for n, (_, cost) in trials.items()})
    assert again.waiting == first.waiting
    calls = [[rungs.next(is_last_call=True) for _ in range(10)] for rungs in (first, again)]
    assert calls[0] == calls[1]
    without = Promotions([1], 3, COSTLY)
    without.replay(history, trials)
    assert [without.next(is_last_call=True) for _ in range(10)] != calls[0]
