"""What came of a run: the score to quote, the best trials, those that failed, and who proposed them all."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from search.runs.sources import Sources
from search.runs.tables import ranked, settings_of
from search.show.confirmation import is_tie
from search.show.quoting import ORIGIN_KEYS, quote
from search.show.run import METRICS, score_parts, score_rows
from search.study.observations import FAILURE_ATTR, ORIGIN_ATTR

NUM_BEST = 10


def headline(sources: Sources) -> dict[str, Any]:
    """The score to quote and what chose what; the sealed model; how many trials, how long, and why no more."""
    run, card, search = sources.run, sources.card, sources.config.search
    quoted, tie = quote(card), sources.confirmation
    keys = ("iou", "iou_interval", "dice", "num_images", "chose")
    return {
        "name": run["name"],
        "kind": run["kind"],
        "status": run["status"],
        "error": run.get("error"),
        "created": run["created"],
        "metric": search.metric,
        "mode": search.mode,
        "quoted": quoted.name if quoted else None,
        "scores": {name: {key: score[key] for key in keys} for name, score in score_rows(card or {})},
        "optimism": card.get("optimism") if card else None,
        "sealed": {key: card["origin"][key] for key in ORIGIN_KEYS if key in card["origin"]} if card else None,
        "tie": tie["reason"] if tie is not None and is_tie(tie) else None,
        "threshold": {key: card["threshold"][key] for key in ("value", "chosen_by")} if card else None,
        "num_samples": search.num_samples if run["kind"] == "search" else None,
        "trials": len(sources.trials),
        "states": dict(sorted(Counter(row["state"] for row in sources.trials).items())),
        "epochs": len(sources.epochs),
        "timings": run.get("timings", {}),
        "stopped_by": run.get("stopped_by"),
        "extensions": [
            {
                "when": note["when"],
                "trials_before": note["trials_before"],
                "num_samples": note["num_samples"],
                "changed": list(note["changed"]),
            }
            for note in run.get("extensions", [])
        ],
    }


def all_scores(sources: Sources) -> dict[str, Any] | None:
    """Every score of the split that is quoted, as rows; None where the card does not hold them."""
    found = quote(sources.card)
    if sources.card is None or found is None or "boundary_iou" not in sources.card["scores"][found.split]:
        return None
    rows = score_parts(sources.card["scores"][found.split])
    keys = ("num_images", *METRICS)
    return {
        "split": found.split,
        "rows": [{"name": name, **{key: part.get(key) for key in keys}} for name, part in rows],
    }


def best_trials(sources: Sources, count: int = NUM_BEST) -> list[dict[str, Any]] | None:
    """The best trials with their settings, best first; None where there are no trials."""
    rows = [row for row in ranked(sources.trials, sources.config.search.objective) if row["value"] is not None][:count]
    keys = ("number", "state", "value", "best_epoch", "epochs", "val/iou", "val/dice", "val/threshold")
    return [{**{key: row.get(key) for key in keys}, "settings": settings_of(row)} for row in rows] or None


def failures(sources: Sources) -> list[dict[str, Any]] | None:
    """Failed trials by the kind of their failure, the most frequent first, with the first line of the first error."""
    kinds = {trial.number: str(trial.user_attrs.get(FAILURE_ATTR, "unknown")) for trial in sources.frozen}
    groups: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in sources.trials:
        if row["state"] == "failed":
            kind, _, message = (row["error"] or kinds.get(row["number"], "unknown")).partition(": ")
            groups[kind].append((row["number"], message.strip().partition("\n")[0]))
    found = [
        {"kind": kind, "count": len(trials), "trials": [number for number, _ in trials], "first_error": trials[0][1]}
        for kind, trials in groups.items()
    ]
    return sorted(found, key=lambda group: -group["count"]) or None


def origins(sources: Sources) -> list[dict[str, Any]] | None:
    """Who proposed the trials: how many each, and the mean and the best of those that did not fail.

    None where no trial says it, as in a run of an early version.
    """
    proposed: dict[str, list[int]] = defaultdict(list)
    if any(ORIGIN_ATTR in trial.user_attrs for trial in sources.frozen):
        known = {row["number"] for row in sources.trials}  # without those that only wait for their turn
        for trial in sources.frozen:
            if trial.number in known:
                proposed[str(trial.user_attrs.get(ORIGIN_ATTR, "not recorded"))].append(trial.number)
    sound = {row["number"]: row["value"] for row in sources.trials if row["state"] != "failed"}
    found = []
    for origin, numbers in proposed.items():
        values = [sound[number] for number in numbers if sound.get(number) is not None]
        found.append(
            {
                "origin": origin,
                "trials": len(numbers),
                "with_value": len(values),
                "mean": sum(values) / len(values) if values else None,
                "best": _best(values, sources.sign),
                "found_winner": sources.winner in numbers,
            }
        )
    return found or None


def configuration(sources: Sources) -> dict[str, Any]:
    """The resolved config, and what it ran on."""
    return {
        "config": sources.config_tree,
        "versions": sources.run.get("versions", {}),
        "host": sources.run.get("host", {}),
        "seed": sources.run.get("seed"),
        "data_fingerprint": sources.run.get("data_fingerprint"),
    }


def _best(values: Iterable[float], sign: float) -> float | None:
    return max(values, key=lambda value: sign * value, default=None)
