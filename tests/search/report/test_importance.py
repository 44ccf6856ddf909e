import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from report_runs import frozen, row, sources

from search.report.importance import MIN_TRIALS, importances
from search.runs.sources import Sources

DISTRIBUTIONS = {
    "a.lr": FloatDistribution(1e-4, 1.0, log=True), "b": FloatDistribution(0.0, 1.0),
    "c": CategoricalDistribution([8, 12]), "c.only": FloatDistribution(0.0, 1.0),
}  # fmt: skip


def search_of(count: int) -> Sources:
    """Trials whose value depends on `a.lr` alone; every second one was pruned, and `c.only` belongs to c=12."""
    rng = np.random.default_rng(0)
    trials, rows = [], []
    for number in range(count):
        lr, b, c = 10.0 ** rng.uniform(-4, 0), rng.uniform(), int(rng.choice([8, 12]))
        state = "pruned" if number % 2 else "complete"
        params = {"a.lr": lr, "b": b, "c": c, **({"c.only": rng.uniform()} if c == 12 else {})}
        trials.append((state, params, {}))
        rows.append(row(number, 1.0 - abs(np.log10(lr) + 2.0) / 4.0, state))
    return sources(trials=rows, frozen=frozen(trials, DISTRIBUTIONS))


def test_the_parameter_that_alone_matters_comes_first_and_shares_add_up() -> None:
    record = importances(search_of(60))
    assert record is not None
    shares = {entry["name"]: entry["share"] for entry in record["shares"]}
    assert record["num_trials"] == 60
    assert next(iter(shares)) == "a.lr"
    assert shares["a.lr"] > 0.5
    assert sum(shares.values()) == pytest.approx(1.0)
    assert {"a.lr", "b", "c"} <= set(shares)


def test_too_few_trials_have_slices_but_no_importances() -> None:
    record = importances(search_of(MIN_TRIALS - 1))
    assert record is not None
    assert (record["shares"], record["num_trials"], record["min_trials"]) == ([], MIN_TRIALS - 1, MIN_TRIALS)
    assert [part["name"] for part in record["slices"]][:3] == ["a.lr", "b", "c"]
    enough = importances(search_of(MIN_TRIALS))
    assert enough is not None
    assert enough["shares"] != []


def test_slices_have_the_axis_of_their_range_and_leave_out_the_failed() -> None:
    points = {"complete": {"a.lr": 0.1, "c": 12}, "failed": {"a.lr": 0.2, "c": 8}, "pruned": {"a.lr": 0.3, "c": 8}}
    trials = frozen([(state, params, {}) for state, params in points.items()], DISTRIBUTIONS)
    rows = [row(0, 0.5), row(1, 0.9, "failed"), row(2, 0.4, "pruned")]
    record = importances(sources(trials=rows, frozen=trials))
    assert record is not None
    lr, c = record["slices"]
    assert (lr["axis"], lr["choices"]) == ("log", None)
    assert lr["points"] == [
        {"number": 0, "state": "complete", "x": 0.1, "value": 0.5},
        {"number": 2, "state": "pruned", "x": 0.3, "value": 0.4},
    ]
    assert (c["axis"], c["choices"], [point["x"] for point in c["points"]]) == ("category", ["8", "12"], ["12", "8"])


def test_a_single_training_run_has_none() -> None:
    assert importances(sources()) is None
