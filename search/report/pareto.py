"""Trials by two measures: their value and what their model costs."""

from collections.abc import Sequence
from typing import Any

from search.runs.sources import Sources
from search.runs.tables import settings_of

COSTS = {"cost/parameters": "parameters", "cost/latency_ms": "latency, ms"}
"""Columns of the trial table, and their names for people."""


def front(sources: Sources) -> dict[str, Any] | None:
    """The Pareto front of a search with a second metric; None for any other."""
    column = sources.config_tree["search"].get("second_metric")
    return front_of(sources.trials, column) if column is not None else None


def front_of(trials: Sequence[dict[str, Any]], column: str) -> dict[str, Any] | None:
    """All trials as points, and those of the front, cheapest first; None where the table lacks the columns."""
    rows = [row for row in trials if row.get(column) is not None and row["value"] is not None]
    if all(row.get("pareto") is None for row in rows):
        return None
    points = [
        {
            "number": row["number"],
            "state": row["state"],
            "cost": row[column],
            "value": row["value"],
            "pareto": bool(row["pareto"]),
            "settings": settings_of(row),
        }
        for row in rows
    ]
    return {
        "column": column,
        "label": COSTS.get(column, column),
        "points": points,
        "front": sorted((point for point in points if point["pareto"]), key=lambda point: point["cost"]),
    }
