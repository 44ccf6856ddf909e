"""How a search went: its trials one after the other, what each epoch brought, and every learning curve."""

from collections import defaultdict
from typing import Any

from search.runs.sources import Sources
from search.runs.tables import ranked, settings_of

MAX_CURVES = 300
"""A page with more lines than this is slow, and shows no more; the best trials are kept."""


def search_history(sources: Sources) -> dict[str, Any] | None:
    """Values by trial number and by epochs spent, the best so far of each, learning curves and rungs.

    A failed trial counts for the best so far only where all that reported failed, as in the choice of the winner.
    """
    reports = _reports(sources)
    if not reports:
        return None
    all_failed = all(row["state"] == "failed" for row in sources.trials if row["value"] is not None)
    barred = set() if all_failed else {row["number"] for row in sources.trials if row["state"] == "failed"}
    steps, spent_at = [], {}
    best: float | None = None
    for spent, (number, epoch, value) in enumerate(reports, start=1):
        spent_at[number, epoch] = spent
        if number not in barred and value is not None and _is_better(value, best, sources.sign):
            best = value
            steps.append({"epochs": spent, "best": best})
    return {
        "metric": sources.config.search.metric,
        "mode": sources.config.search.mode,
        "epochs": len(reports),
        "trials": _trials(sources, barred, spent_at),
        "steps": steps,
        "curves": _curves(sources, reports),
        "num_curves_left_out": max(0, len({number for number, _, _ in reports}) - MAX_CURVES),
        "rungs": _rungs(sources),
    }


def _reports(sources: Sources) -> list[tuple[int, int, float | None]]:
    """`(number, epoch, value)` of every epoch, in the order in which they came."""
    rows = sorted(sources.epochs, key=lambda row: (row["time"], row["number"], row["epoch"]))
    return [(row["number"], row["epoch"], row.get(sources.config.search.metric)) for row in rows if "epoch" in row]


def _trials(sources: Sources, barred: set[int], spent_at: dict[tuple[int, int], int]) -> list[dict[str, Any]]:
    points = []
    best: float | None = None
    for row in sorted(sources.trials, key=lambda row: row["number"]):
        if row["value"] is None:
            continue
        if row["number"] not in barred and _is_better(row["value"], best, sources.sign):
            best = row["value"]
        points.append(
            {
                "number": row["number"],
                "state": row["state"],
                "value": row["value"],
                "best_so_far": best,
                "epochs_spent": spent_at.get((row["number"], row["best_epoch"])),
                "settings": settings_of(row),
            }
        )
    return points


def _curves(sources: Sources, reports: list[tuple[int, int, float | None]]) -> list[dict[str, Any]]:
    values: dict[int, dict[int, float | None]] = defaultdict(dict)
    for number, epoch, value in reports:
        values[number][epoch] = value
    rows = {row["number"]: row for row in ranked(sources.trials, sources.config.search.objective)}
    numbers = [number for number in (rows or values) if number in values][:MAX_CURVES]
    return [
        {
            "number": number,
            "state": rows[number]["state"] if number in rows else "complete",
            "is_winner": number == sources.winner or number not in rows,
            "epochs": sorted(values[number]),
            "values": [values[number][epoch] for epoch in sorted(values[number])],
            "settings": settings_of(rows.get(number, {})),
        }
        for number in sorted(numbers)
    ]


def _rungs(sources: Sources) -> list[int]:
    if not sources.trials:
        return []
    from search.schedulers.build import decision_epochs  # brings Ray

    return list(decision_epochs(sources.config.search.scheduler, sources.config.train.epochs))


def _is_better(value: float, best: float | None, sign: float) -> bool:
    return best is None or sign * value > sign * best
