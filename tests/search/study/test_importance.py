"""Which parameters mattered, of values that hang on one of them alone."""

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from report_runs import frozen, row

from search.runs.trials import Trials
from search.study.importance import MIN_TRIALS, Importances, importances
from segcore.objective import Mode, Objective

DISTRIBUTIONS = {
    "a.lr": FloatDistribution(1e-4, 1.0, log=True), "b": FloatDistribution(0.0, 1.0),
    "c": CategoricalDistribution([8, 12]),
}  # fmt: skip


def importances_of(count: int, *, mode: Mode = "max", failed: int = 0) -> Importances:
    """Of trials whose value depends on `a.lr` alone; every second one was pruned, and the last ones failed."""
    rng = np.random.default_rng(0)
    trials, rows = [], []
    for number in range(count):
        lr, b, c = 10.0 ** rng.uniform(-4, 0), rng.uniform(), int(rng.choice([8, 12]))
        state = "failed" if number >= count - failed else "pruned" if number % 2 else "complete"
        trials.append((state, {"a.lr": lr, "b": b, "c": c}, {}))
        value = 1.0 - abs(np.log10(lr) + 2.0) / 4.0
        rows.append(row(number, value if mode == "max" else 1.0 - value, state))
    return importances(frozen(trials, DISTRIBUTIONS), Trials.from_table(rows, Objective("val/iou", mode)))


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_parameter_that_alone_matters_comes_first_and_shares_add_up(mode: Mode) -> None:
    found = importances_of(60, mode=mode)
    shares = {share.name: share.share for share in found.shares}
    assert found.num_trials == 60
    assert next(iter(shares)) == "a.lr"
    assert shares["a.lr"] > 0.5
    assert sum(shares.values()) == pytest.approx(1.0)
    assert set(shares) == {"a.lr", "b", "c"}


def test_too_few_trials_have_none_and_the_failed_do_not_count() -> None:
    assert importances_of(MIN_TRIALS - 1).shares == []
    assert importances_of(MIN_TRIALS).shares != []
    found = importances_of(MIN_TRIALS, failed=1)
    assert (found.num_trials, found.shares) == (MIN_TRIALS - 1, [])
    assert MIN_TRIALS - 1 not in found.values


def test_without_trials_there_is_nothing_to_say() -> None:
    found = importances([], Trials([], Objective("val/iou")))
    assert (found.num_trials, found.shares) == (0, [])
