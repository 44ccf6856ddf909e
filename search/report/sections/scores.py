"""Every score of the sealed model: per image, pooled, by object size and class, and of the worst images."""

from collections.abc import Mapping
from dataclasses import dataclass

from search.report.markup import table
from search.report.section import Section, Subject
from search.runs.reading import Run
from search.show.quoting import number_text, quote
from search.show.scores import METRICS, has_all_scores, score_parts


@dataclass(frozen=True)
class ScoreRow:
    """The scores of some of the images, or of one; None for what is not known of them."""

    name: str
    num_images: int | None
    scores: Mapping[str, float | None]

    def as_json(self) -> Mapping[str, object]:
        """The scores beside the name."""
        return {"name": self.name, "num_images": self.num_images, **self.scores}


@dataclass(frozen=True)
class Scores:
    """The scores on one split, as rows."""

    split: str
    rows: list[ScoreRow]


def all_scores(run: Run) -> Scores | None:
    """Every score of the split that is quoted; None where the card does not hold them."""
    found = quote(run.card)
    if run.card is None or found is None or not has_all_scores(run.card.scores[found.split]):
        return None
    rows = [
        ScoreRow(name, part.num_images, {key: part.get(key) for key in METRICS})
        for name, part in score_parts(run.card.scores[found.split])
    ]
    return Scores(found.split, rows)


def render(record: Scores, subject: Subject) -> str:
    """A table with a row for each part."""
    heads = [("", ""), ("images", "n"), *((title, "n") for title in METRICS.values())]
    body = [
        ("", [
            (row.name, "what"), ("" if row.num_images is None else str(row.num_images), "n"),
            *((number_text(row.scores[key]), "n") for key in METRICS),
        ])
        for row in record.rows
    ]  # fmt: skip
    note = (
        "At the sealed threshold. Boundary IoU: IoU of the pixels within 2% of the image's diagonal of either contour. "
        "ECE: how far the probabilities of foreground are from the share that is foreground, over 15 bins. Sizes: an "
        "object of under 0.33% of the image is small, of 3% and more large."
    )
    return f'{table(heads, body)}<p class="soft">{note}</p>'


def _title(record: Scores, subject: Subject) -> str:
    return f"All scores on {record.split}"


SECTION = Section("scores", 10, "All scores", all_scores, render, _title)
