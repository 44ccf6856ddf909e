"""The parts of the report's page on the sealed model's scores."""

from collections.abc import Mapping
from html import escape
from typing import Any

from search.report.markup import number, section, table
from search.show.quoting import CROSS_FITTED, optimism_text
from search.show.run import METRICS


def quoted_score(head: Mapping[str, Any]) -> str:
    """The score to quote, the others beside it, what chose what, and how much val's own score flatters."""
    if head["quoted"] is None:
        return ""
    score = head["scores"][head["quoted"]]
    low, high = score["iou_interval"]
    others = [
        f'<div class="plain"><b>{other["iou"]:.4f}</b><small>on {other["num_images"]} {escape(name)} images, '
        f"which chose {escape(', '.join(other['chose']) or 'nothing')}</small></div>"
        for name, other in head["scores"].items()
        if name != head["quoted"]
    ]
    split = "val" if head["quoted"] == CROSS_FITTED else head["quoted"]
    optimism = f"<p>{escape(optimism_text(head['optimism']))}.</p>" if head["optimism"] else ""
    return (
        f'<div class="score"><div><b>{score["iou"]:.4f}</b><small>IoU, mean per image, on {score["num_images"]} '
        f'{split} images</small></div><div class="plain"><b>{low:.4f} - {high:.4f}</b>'
        f'<small>95% interval</small></div><div class="plain"><b>{score["dice"]:.4f}</b><small>Dice</small></div>'
        f"{''.join(others)}</div><p>{_how_honest(head['quoted'], score['chose'])}</p>{optimism}"
    )


def _how_honest(name: str, chose: list[str]) -> str:
    if not chose:
        return f"These {name} images chose nothing: not the weights, the epoch, the threshold or the winner."
    what = escape(", ".join(chose))
    if name == CROSS_FITTED:
        return (
            "There is no test split. The threshold was chosen on one half of the val images and scored on the other, "
            f"both ways, so it does not flatter this score. What does: the same images also chose: {what}."
        )
    return (
        f"The {name} images also chose: {what}. So the score flatters; "
        "a test split would give one to quote without this caveat."
    )


def scores_section(record: Mapping[str, Any]) -> str:
    """Every score: per image, pooled, by object size and class, and of the worst images."""
    heads = [("", ""), ("images", "n"), *((title, "n") for title in METRICS.values())]
    body = [
        ("", [
            (row["name"], "what"), ("" if row["num_images"] is None else str(row["num_images"]), "n"),
            *((number(row[key]), "n") for key in METRICS),
        ])
        for row in record["rows"]
    ]  # fmt: skip
    note = (
        "At the sealed threshold. Boundary IoU: IoU of the pixels within 2% of the image's diagonal of either contour. "
        "ECE: how far the probabilities of foreground are from the share that is foreground, over 15 bins. Sizes: an "
        "object of under 0.33% of the image is small, of 3% and more large."
    )
    return section(f"All scores on {record['split']}", table(heads, body), f'<p class="soft">{note}</p>')
