"""Which of the best trials is the best, once each was trained again with other seeds.

The best of many trials owes a part of its value to luck: to its seed, and to validation images that happen to suit it.
Seeds that the search never used have no such luck. Candidates are ranked by the mean over seeds; whoever cannot be told
from the first of them, by an interval of the difference that is paired by image and counts the noise of the seeds, is
tied with it, and of those that are tied the cheapest is taken.

References:
    Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks, MLSys 2021 (arXiv:2103.03098).
    Cawley & Talbot, On Over-fitting in Model Selection and Subsequent Selection Bias, JMLR 11, 2010.
    Breiman et al., Classification and Regression Trees, 1984 (the simplest of those within the noise of the best).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.reruns.estimates import SeedEstimates
from search.runs.tables import ranked
from segcore.objective import Objective
from segcore.params import ParamValue
from segcore.scores.intervals import CONFIDENCE
from segcore.scores.scorer import scorer_of
from segcore.scores.seed_noise import FloatArray

COSTS = {"cost/parameters": "parameters", "cost/latency_ms": "latency_ms"}
"""What may be kept low, and its key in the record."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A trial of the search, trained again.

    Attributes:
        trial: Its number in the search.
        searched: The value that the search saw.
        values: The metric by seed.
        scores: `(S, N)` scores of N images by seed, whose mean is the metric; `(S, 1)` where images have none.
        costs: By the key of `COSTS`, as far as they are known.
        settings: What was searched: dotted key -> value.
        failed: The error by seed.
        reruns: The number of the training by seed.
    """

    trial: int
    searched: float
    values: Mapping[int, float]
    scores: FloatArray
    costs: Mapping[str, float | None] = field(default_factory=dict)
    settings: Mapping[str, ParamValue] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)
    reruns: Mapping[int, int] = field(default_factory=dict)


def top_trials(trials: Sequence[dict[str, Any]], objective: Objective, top_k: int) -> list[dict[str, Any]]:
    """The rows of the best trials, best first; those that failed are none, and of equal ones the earlier is better."""
    return [row for row in ranked(trials, objective) if row["value"] is not None and row["state"] != "failed"][:top_k]


def decide(
    candidates: Sequence[Candidate],
    groups: Sequence[str] | None,
    objective: Objective,
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Ranks the candidates, finds those that are tied with the first, and takes one.

    Args:
        candidates: Those without a seed that came to its end are last, and cannot win.
        groups: Of the validation images, for the intervals; None where images have no scores.
        objective: What they are judged by. Of a tie, the candidate with the least of its cost wins; where it has none,
            and of equal ones, that with the fewest parameters; then the best mean.
        seeds: Those that were asked for.

    Returns:
        A record for `confirm.json`: the candidates, best mean first, `tied`, `winner` and `reason`.

    Raises:
        ValueError: No candidate has two seeds, so that nothing is known of the noise.
    """
    sign, cost = objective.sign, objective.second or "cost/parameters"
    done = [candidate for candidate in candidates if len(candidate.scores)]
    ranked = sorted(done, key=lambda c: (-sign * float(c.scores.mean()), c.trial))
    bounds = scorer_of(objective.metric).bounds
    cells = [candidate.scores for candidate in ranked]
    estimates = SeedEstimates(cells, groups, has_images=groups is not None, bounds=bounds)
    if estimates.noise is None:
        raise ValueError("no candidate has two seeds that came to their end, so nothing is known of their noise")
    variance, degrees = estimates.noise
    first = ranked[0]
    rows: list[dict[str, Any]] = []
    for candidate in (*ranked, *(candidate for candidate in candidates if candidate not in done)):
        mean, interval = estimates.mean(candidate.scores) if candidate in done else (None, None)
        row: dict[str, Any] = {
            "trial": candidate.trial,
            "searched": candidate.searched,
            "mean": mean,
            "interval": interval,
            "values": [[seed, value] for seed, value in candidate.values.items()],
            "failed": [[seed, message] for seed, message in candidate.failed.items()],
            "reruns": [[seed, number] for seed, number in candidate.reruns.items()],
            **{key: candidate.costs.get(name) for name, key in COSTS.items()},
            "settings": dict(candidate.settings),
            "difference": None,
        }
        if candidate in done and candidate is not first:
            value, interval = estimates.difference(candidate.scores, first.scores)
            is_tied = interval is None or interval[0] <= 0.0 <= interval[1]
            row["difference"] = {"value": value, "interval": interval, "tied": is_tied}
        rows.append(row)
    tied = [rows[0], *(row for row in rows if row["difference"] and row["difference"]["tied"])]
    winner = min(tied, key=lambda row: _price(row, cost, sign))
    return {
        "metric": objective.metric,
        "mode": objective.mode,
        "seeds": list(seeds),
        "num_images": first.scores.shape[1] if groups is not None else None,
        "confidence": CONFIDENCE,
        "seed_sd": math.sqrt(variance),
        "seed_df": degrees,
        "candidates": rows,
        "tied": [row["trial"] for row in tied],
        "winner": winner["trial"],
        "reason": _reason(winner, tied, rows, cost),
    }


def _price(row: Mapping[str, Any], cost: str, sign: float) -> tuple[float, ...]:
    """Cheapest first; a cost that is not known is the highest."""
    costs = (row[COSTS[name]] for name in dict.fromkeys((cost, *COSTS)))
    return (*(float("inf") if value is None else float(value) for value in costs), -sign * row["mean"], row["trial"])


def _reason(
    winner: Mapping[str, Any], tied: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], cost: str
) -> str:
    first = rows[0]
    if sum(row["mean"] is not None for row in rows) == 1:
        return f"trial {winner['trial']} alone was trained again"
    if len(tied) == 1:
        return f"trial {winner['trial']} is better than the others by more than the noise of seeds and images"
    others = [row for row in tied if row is not winner]
    names = _names([row["trial"] for row in tied])
    for name in dict.fromkeys((cost, *COSTS)):
        own, least = winner[COSTS[name]], min(row[COSTS[name]] or float("inf") for row in others)
        if own is not None and own < least < float("inf"):
            what = "parameters" if name == "cost/parameters" else "ms an image"
            shown = "{:,.0f}" if name == "cost/parameters" else "{:.2f}"
            kind = "smallest" if name == "cost/parameters" else "fastest"
            kind = kind if len(tied) > 2 else {"smallest": "smaller", "fastest": "faster"}[kind]
            return (
                f"{names} are a tie; {winner['trial']} is the {kind} "
                f"({shown.format(own)} {what}; {_names([r['trial'] for r in others], 'or')}: {shown.format(least)}"
                f"{' at least' if len(others) > 1 else ''})"
            )
    if winner is first:
        return f"{names} are a tie, and none is cheaper than {winner['trial']}, which has the best mean"
    return f"{names} are a tie; of the cheapest, {winner['trial']} has the best mean"


def _names(numbers: Sequence[int], word: str = "and") -> str:
    *most, last = (str(number) for number in sorted(numbers))
    noun = "" if word == "or" else "trials " if most else "trial "
    return f"{noun}{', '.join(most)} {word} {last}" if most else f"{noun}{last}"
