import numpy as np
import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution, FloatDistribution
from report_runs import frozen, row, run_with, subject

from search.report.sections.importances import SlicePoint, importance_bars, parameters, render, slice_plot
from search.runs.reading import Run
from search.study.importance import MIN_TRIALS

DISTRIBUTIONS = {
    "a.lr": FloatDistribution(1e-4, 1.0, log=True), "b": FloatDistribution(0.0, 1.0),
    "c": CategoricalDistribution([8, 12]), "c.only": FloatDistribution(0.0, 1.0),
}  # fmt: skip


def search_of(count: int) -> Run:
    """Trials whose value depends on `a.lr` alone; every second one was pruned, and `c.only` belongs to c=12."""
    rng = np.random.default_rng(0)
    trials, rows = [], []
    for number in range(count):
        lr, b, c = 10.0 ** rng.uniform(-4, 0), rng.uniform(), int(rng.choice([8, 12]))
        state = "pruned" if number % 2 else "complete"
        params = {"a.lr": lr, "b": b, "c": c, **({"c.only": rng.uniform()} if c == 12 else {})}
        trials.append((state, params, {}))
        rows.append(row(number, 1.0 - abs(np.log10(lr) + 2.0) / 4.0, state))
    return run_with(trials=rows, frozen=frozen(trials, DISTRIBUTIONS))


def test_slices_are_of_the_most_important_parameters() -> None:
    record = parameters(search_of(60))
    assert record is not None
    assert (record.num_trials, record.shares[0].name, record.slices[0].name) == (60, "a.lr", "a.lr")
    bars = importance_bars(record.shares)
    go.Figure(bars)  # raises on a property that plotly does not have
    assert bars["data"][0]["y"][-1] == "a.lr", "the most important is on top"
    assert "of 60 trials differ from all" in render(record, subject())


def test_too_few_trials_have_slices_but_no_importances() -> None:
    record = parameters(search_of(MIN_TRIALS - 1))
    assert record is not None
    assert (record.shares, record.num_trials, record.min_trials) == ([], MIN_TRIALS - 1, MIN_TRIALS)
    assert [part.name for part in record.slices][:3] == ["a.lr", "b", "c"]
    assert f"that takes {MIN_TRIALS}." in render(record, subject())
    enough = parameters(search_of(MIN_TRIALS))
    assert enough is not None
    assert enough.shares != []


def test_slices_have_the_axis_of_their_range_and_leave_out_the_failed() -> None:
    points = {"complete": {"a.lr": 0.1, "c": 12}, "failed": {"a.lr": 0.2, "c": 8}, "pruned": {"a.lr": 0.3, "c": 8}}
    trials = frozen([(state, params, {}) for state, params in points.items()], DISTRIBUTIONS)
    rows = [row(0, 0.5), row(1, 0.9, "failed"), row(2, 0.4, "pruned")]
    record = parameters(run_with(trials=rows, frozen=trials))
    assert record is not None
    lr, c = record.slices
    assert (lr.axis, lr.choices) == ("log", None)
    assert lr.points == [SlicePoint(0, "complete", 0.1, 0.5), SlicePoint(2, "pruned", 0.3, 0.4)]
    assert (c.axis, c.choices, [point.x for point in c.points]) == ("category", ["8", "12"], ["12", "8"])
    figure = slice_plot(c, "val/iou")
    go.Figure(figure)
    assert figure["layout"]["xaxis"]["categoryarray"] == ["8", "12"]


def test_a_single_training_run_has_none() -> None:
    assert parameters(run_with()) is None
