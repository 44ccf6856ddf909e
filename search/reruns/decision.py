"""Which of the best trials wins, once each was trained again with other seeds.

The best of many trials owes part of its value to luck: to its seed, and to validation images that happen to suit it.
Seeds that the search never used have no such luck. Candidates are ranked by the mean over seeds. A candidate is tied
with the first if the interval of their difference, paired by image and including the noise of the seeds, contains 0;
the cheapest of the tied candidates wins.

References:
    Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks, MLSys 2021 (arXiv:2103.03098).
    Cawley & Talbot, On Over-fitting in Model Selection and Subsequent Selection Bias, JMLR 11, 2010.
    Breiman et al., Classification and Regression Trees, 1984 (the simplest of those within the noise of the best).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from search.reruns.estimates import SeedEstimates, pair_of
from search.runs.rerun_records import Confirmation, ConfirmedTrial, Difference
from segcore.objective import Objective
from segcore.params import ParamValue
from segcore.scores.intervals import CONFIDENCE
from segcore.scores.scorer import scorer_of
from segcore.scores.seed_noise import FloatArray

COSTS = ("cost/parameters", "cost/latency_ms")
"""The costs that may be kept low."""


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
    searched: float | None
    values: Mapping[int, float]
    scores: FloatArray
    costs: Mapping[str, float | None] = field(default_factory=dict)
    settings: Mapping[str, ParamValue] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)
    reruns: Mapping[int, int] = field(default_factory=dict)


def decide(
    candidates: Sequence[Candidate],
    groups: Sequence[str] | None,
    objective: Objective,
    seeds: Sequence[int],
    *,
    top_k: int | None = None,
) -> Confirmation:
    """Ranks the candidates, finds those that are tied with the first, and takes one.

    Args:
        candidates: Those without a finished training are last, and cannot win.
        groups: Groups of the validation images, for the intervals; None where images have no scores.
        objective: What they are judged by. In a tie, the candidate with the lowest cost wins; without a cost, or at
        equal cost, the one with the fewest parameters; then the one with the best mean.
        seeds: Those that were asked for.
        top_k: How many candidates were asked for.

    Returns:
        The content of `confirm.json`.

    Raises:
        ValueError: No candidate has two seeds, so the noise is unknown.
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
    rows = []
    for candidate in (*ranked, *(candidate for candidate in candidates if candidate not in done)):
        mean, interval = estimates.mean(candidate.scores) if candidate in done else (None, None)
        difference = None
        if candidate in done and candidate is not first:
            value, between = estimates.difference(candidate.scores, first.scores)
            is_tied = between is None or between[0] <= 0.0 <= between[1]
            difference = Difference(value=value, interval=pair_of(between), tied=is_tied)
        rows.append(
            ConfirmedTrial(
                trial=candidate.trial,
                searched=candidate.searched,
                mean=mean,
                interval=pair_of(interval),
                values=list(candidate.values.items()),
                failed=list(candidate.failed.items()),
                reruns=list(candidate.reruns.items()),
                parameters=candidate.costs.get("cost/parameters"),
                latency_ms=candidate.costs.get("cost/latency_ms"),
                settings=dict(candidate.settings),
                difference=difference,
            )
        )
    tied = [rows[0], *(row for row in rows if row.difference and row.difference.tied)]
    winner = min(tied, key=lambda row: _price(row, cost, sign))
    return Confirmation(
        metric=objective.metric,
        mode=objective.mode,
        seeds=list(seeds),
        num_images=first.scores.shape[1] if groups is not None else None,
        confidence=CONFIDENCE,
        seed_sd=math.sqrt(variance),
        seed_df=degrees,
        candidates=rows,
        tied=[row.trial for row in tied],
        winner=winner.trial,
        reason=_reason(winner, tied, rows, cost, top_k),
    )


def _cost(row: ConfirmedTrial, name: str) -> float:
    """What a model costs; infinite where that is unknown."""
    value = row.parameters if name == "cost/parameters" else row.latency_ms
    return math.inf if value is None else value


def _price(row: ConfirmedTrial, cost: str, sign: float) -> tuple[float, ...]:
    """Sort key, cheapest first; the candidates that may win have a mean."""
    costs = (_cost(row, name) for name in dict.fromkeys((cost, *COSTS)))
    return (*costs, -sign * (row.mean or 0.0), row.trial)


def _reason(
    winner: ConfirmedTrial,
    tied: Sequence[ConfirmedTrial],
    rows: Sequence[ConfirmedTrial],
    cost: str,
    top_k: int | None,
) -> str:
    """Why the winner won, in words.

    Args:
        winner: It.
        tied: The first and all that cannot be told from it.
        rows: All candidates, best mean first.
        cost: What decides a tie.
        top_k: How many candidates were asked for.
    """
    first = rows[0]
    if sum(row.mean is not None for row in rows) == 1:
        failed = [row.trial for row in rows if row is not winner]
        if failed:
            why = f"every training of {_names(failed)} failed"
        elif top_k == 1:
            why = "search.confirm.top_k is 1"
        else:
            why = "no other trial came to a value"
        return f"trial {winner.trial} had no rival, as {why}"
    if len(tied) == 1:
        return f"trial {winner.trial} is better than the others by more than the noise of seeds and images"
    others = [row for row in tied if row is not winner]
    names = _names([row.trial for row in tied])
    for name in dict.fromkeys((cost, *COSTS)):
        own, least = _cost(winner, name), min(_cost(row, name) for row in others)
        if own < least < math.inf:
            what = "parameters" if name == "cost/parameters" else "ms an image"
            shown = "{:,.0f}" if name == "cost/parameters" else "{:.2f}"
            kind = "smallest" if name == "cost/parameters" else "fastest"
            kind = kind if len(tied) > 2 else {"smallest": "smaller", "fastest": "faster"}[kind]
            return (
                f"{names} are a tie; {winner.trial} is the {kind} "
                f"({shown.format(own)} {what}; {_names([row.trial for row in others], 'or')}: {shown.format(least)}"
                f"{' at least' if len(others) > 1 else ''})"
            )
    if winner is first:
        return f"{names} are a tie, and none is cheaper than {winner.trial}, which has the best mean"
    return f"{names} are a tie; of the cheapest, {winner.trial} has the best mean"


def _names(numbers: Sequence[int], word: str = "and") -> str:
    *most, last = (str(number) for number in sorted(numbers))
    noun = "" if word == "or" else "trials " if most else "trial "
    return f"{noun}{', '.join(most)} {word} {last}" if most else f"{noun}{last}"
