"""All scores of a sealed model, as tables: by split; per image, pooled, by object size and class; the worst images."""

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from search.show.quoting import CROSS_FITTED, FRESH_SEEDS, flat_text, number_text, optimism_text, origin_text, quote
from segcore.scores.scorer import CARD_SCORERS
from segcore.sealed.card import Card, Scores, SplitScores

METRICS = {scorer.name: scorer.label for scorer in CARD_SCORERS}
"""The scores of a card, and what tables call them."""
MAX_CLASSES = 12


def score_rows(card: Card) -> list[tuple[str, SplitScores]]:
    """The card's scores by what they were earned on, those that undo choices after val's own, each with `chose`."""
    rows: list[tuple[str, SplitScores]] = []
    for split, score in card.scores.items():
        rows.append((split, score))
        if score.cross_fitted is not None:
            chose = tuple(what for what in score.chose if what != "threshold")
            rows.append((CROSS_FITTED, score.cross_fitted.but(chose=chose)))
        if score.fresh_seeds is not None:
            rows.append((FRESH_SEEDS, score.fresh_seeds))
    return rows


def score_parts(score: SplitScores) -> list[tuple[str, Scores]]:
    """What the table of all scores has a row for, in words, and each row's scores."""
    pooled = {key: score.get(f"{key}_pooled") for key in METRICS}
    together = Scores.model_validate({**pooled, "num_images": score.num_images})
    rows: list[tuple[str, Scores]] = [("mean per image", score), ("all pixels pooled", together)]
    rows += [(f"{size} objects" if size != "empty" else "empty masks", part) for size, part in score.by_size.items()]
    by_class = sorted(score.by_class.items(), key=lambda item: item[1].iou)
    rows += [(f"class {name or '(none)'}", part) for name, part in by_class[:MAX_CLASSES]]
    if len(by_class) > MAX_CLASSES:
        rows[-1] = (f"{rows[-1][0]} ({len(by_class) - MAX_CLASSES} better classes: see card.json)", rows[-1][1])
    return rows + [(f"worst: {image.name}", image) for image in score.worst_images]


def has_all_scores(score: SplitScores) -> bool:
    """Whether there is more than IoU and Dice, as there is on a card since segsearch measures boundaries."""
    return score.get("boundary_iou") is not None


def card_tables(card: Card) -> Iterator[RenderableType]:
    """The sealed model's scores by split, with its threshold; then all scores of the split that is quoted."""
    table = Table(title=f"sealed model: {origin_text(card.origin)}", title_justify="left", box=box.SIMPLE_HEAD)
    for title in ("split", "images", "IoU", "95% interval", "Dice", "IoU pooled", "it also chose"):
        table.add_column(title, justify="right")
    for name, score in score_rows(card):
        low, high = score.iou_interval
        table.add_row(
            name, str(score.num_images), f"{score.iou:.4f}", f"{low:.4f} - {high:.4f}", number_text(score.dice),
            number_text(score.get("iou_pooled")), ", ".join(score.chose) or "nothing",
        )  # fmt: skip
    lines = []
    if card.threshold is not None:
        threshold = card.threshold
        how = (threshold.chosen_by, flat_text(threshold))
        lines.append(
            f"threshold {threshold.value:.4f} ({'; '.join(filter(None, how))}); auto gives "
            f"{number_text(threshold.auto_would_be)} with val IoU {number_text(threshold.val_iou_at_auto)}"
        )
    if card.optimism is not None:
        lines.append(optimism_text(card.optimism))
    table.caption, table.caption_justify = "\n".join(lines), "left"
    yield table
    found = quote(card)
    if found is not None and has_all_scores(split := card.scores[found.split]):
        yield scores_table(split, found.split)


def scores_table(score: SplitScores, split: str) -> Table:
    """All scores of one split: per image, pooled, by object size and by class, and the worst images."""
    table = Table(title=f"all scores on {split}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("", overflow="fold")
    for title in ("images", *METRICS.values()):
        table.add_column(title, justify="right", no_wrap=True)
    for name, part in score_parts(score):
        images = "" if part.num_images is None else str(part.num_images)
        table.add_row(Text(name), images, *(number_text(part.get(key)) for key in METRICS))
    return table
