"""The section of the report's page on the threshold."""

from collections.abc import Iterator, Mapping
from typing import Any

from search.report import figures
from search.report.markup import (
    count_text,
    number,
    plot,
    section,
    table,
)


def threshold_section(cost: Mapping[str, Any]) -> str:
    """The section, whether thresholds were taken from the curve or searched."""
    if cost["kind"] == "searched":
        return _searched_threshold(cost)
    low, high = cost["range"]
    whose = "the run's best epoch" if cost["trial"] is None else f"trial {cost['trial']}, its best epoch"
    rows = [
        ("at its best threshold", cost["best_threshold"], cost["iou_at_best"]),
        ("at 0.5", 0.5, cost["iou_at_half"]),
        (f"at a random one in [{low}, {high}], on average", None, cost["iou_at_random"]),
    ]
    body = [
        ("", [(what, "what"), (number(at), "n"), (f"{iou:.4f}", "n"), (f"{iou - cost['iou_at_best']:+.4f}", "n")])
        for what, at, iou in rows
    ]
    heads = [("", ""), ("threshold", "n"), ("IoU on val", "n"), ("against the best", "n")]
    parts = [
        "<p>segsearch reads the threshold off the exact curve of each validation pass, at no cost in trials. "
        f"Below is the curve of {whose}.</p>",
        plot(figures.threshold_curve(cost)),
        table(heads, body),
        "<h3>Had the threshold been one more searched parameter</h3>",
        *_draws(cost),
    ]
    return section("What the threshold would have cost", *parts)


def _draws(cost: Mapping[str, Any]) -> Iterator[str]:
    low, high = cost["range"]
    count = cost["num_trials"]
    heads = [("IoU within", "n"), (f"share of [{low}, {high}]", "n"), ("trials for these settings", "n")]
    if count is not None:
        heads.append((f"for the {count} settings of this run", "n"))
    body = []
    for row in cost["tolerances"]:
        values = [f"{row['within']:g}", f"{row['share']:.1%}", count_text(row["draws"])]
        if count is not None:
            values.append(count_text(row["draws_in_all"]))
        body.append(("", [(value, "n") for value in values]))
    yield table(heads, body)
    whole = f", and that each of the run's {count} settings needs as many as the winner's" if count is not None else ""
    yield (
        f'<p class="soft">This assumes that each trial draws its threshold evenly from [{low}, {high}], so that 1 / '
        f"share draws are expected until one is as good as said{whole}; a sampler that learns would need fewer.</p>"
    )


def _searched_threshold(cost: Mapping[str, Any]) -> str:
    by_winner = f"; the winner's lost {cost['by_winner']:.4f}" if cost["by_winner"] is not None else ""
    return section(
        "What searching the threshold cost",
        f"<p>{cost['num_trials']} trials ran with a threshold that was searched. Against the best one of its own "
        f"curve, each lost {cost['mean']:.4f} IoU on average (median {cost['median']:.4f}, at most {cost['most']:.4f})"
        f"{by_winner}. With <code>threshold: auto</code>, and no threshold in the space, this is won at no cost, and "
        "trials are compared by their models alone.</p>",
        plot(figures.threshold_losses(cost)),
    )
