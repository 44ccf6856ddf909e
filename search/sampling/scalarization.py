"""Combines metric and cost into one value, anew for each proposal, so that any sampler can optimize both.

References:
    Knowles, ParEGO: A Hybrid Algorithm with On-line Landscape Approximation for Expensive Multiobjective Optimization
    Problems, IEEE Transactions on Evolutionary Computation 2006.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from search.sampling.past import Past

WEIGHTS = tuple(step / 10 for step in range(11))
"""What the metric may weigh in a proposal; the cost has the rest."""
_SHARE_OF_SUM = 0.05


def scalarized(trials: Sequence[Past], weight: float) -> list[Past]:
    """The trials with values that weigh metric and cost: an augmented Tchebycheff function, larger is better.

    Both are brought to [0, 1], 0 being the best so far: the metric by the trials' values, the cost by its logarithm.
    Very bad trials do not stretch the metric's range: it ends 1.5 times as far below the median as the best is above
    it, and they lie beyond 1. Each epoch's value is scalarized with its trial's cost, so a trial's values rise with its
    epochs as before. A trial without a cost has no values.

    Args:
        trials: What they reported; the objects are not changed.
        weight: What the metric weighs, in [0, 1].
    """
    known = [trial for trial in trials if trial.values and trial.cost is not None]
    if not known:
        return [replace(trial, values={}) for trial in trials]
    bests = [trial.best for trial in known]
    high = max(bests)
    middle = statistics.median(bests)
    extent = high - max(min(bests), middle - 1.5 * (high - middle))
    costs = [_log(trial.cost) for trial in known]
    cheapest, cost_extent = min(costs), max(costs) - min(costs)

    def scalar(value: float, cost: float | None) -> float:
        loss = weight * (high - value) / (extent or 1.0)
        expense = (1.0 - weight) * (_log(cost) - cheapest) / (cost_extent or 1.0)
        return -(max(loss, expense) + _SHARE_OF_SUM * (loss + expense))

    return [
        replace(trial, values={epoch: scalar(value, trial.cost) for epoch, value in trial.values.items()})
        if trial.cost is not None
        else replace(trial, values={})
        for trial in trials
    ]


def _log(cost: float | None) -> float:
    return math.log(max(cost or 0.0, 1e-12))
