"""The winner's best and worst stored validation images, with their masks and predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search.report.pictures import css_color, png, tinted
from search.report.section import Section, Subject
from search.runs.reading import Run
from segcore.checkpoint.examples import Overlays, read_overlays
from segcore.task import FOUND, MISSED, WRONG, Counts

EACH_END = 2
"""How many of the worst images are shown, and how many of the best."""


@dataclass(frozen=True)
class Shown:
    """A stored image that is shown: its place among the stored ones, and its IoU."""

    index: int
    iou: float


@dataclass(frozen=True)
class Examples:
    """How many images the checkpoint stores, and which of them are shown, worst first."""

    stored: int
    shown: list[Shown]


def overlays(run: Run) -> Examples | None:
    """Which of the winner's images are shown; None where none are stored."""
    return examples_in(run.checkpoints)


def examples_in(checkpoints: Sequence[Path]) -> Examples | None:
    """Which of the images that the newest whole checkpoint stores are shown; None where none are stored."""
    stored = read_newest(checkpoints)
    if stored is None:
        return None
    pairs = zip(stored.preds, stored.targets, strict=True)
    scores = [_iou(stored.task.counts(pred, target)) for pred, target in pairs]
    order = sorted(range(len(scores)), key=lambda index: scores[index])
    shown = order if len(order) <= 2 * EACH_END else [*order[:EACH_END], *order[-EACH_END:]]
    return Examples(len(scores), [Shown(index, scores[index]) for index in shown])


def pictures(checkpoints: Sequence[Path], shown: Sequence[int]) -> dict[int, list[str]]:
    """Image, mask and prediction of each shown index, as `data:` addresses; empty where none are stored.

    In the prediction, what was found is green, what was missed blue, and what is none red (`Task.compared`).
    """
    stored = read_newest(checkpoints)
    if stored is None:
        return {}
    found = {}
    for index in shown:
        image, target, pred = stored.images[index], stored.targets[index], stored.preds[index]
        with_mask = tinted(image, stored.task.drawn(target))
        with_pred = tinted(image, stored.task.compared(pred, target))
        found[index] = [png(array) for array in (image, with_mask, with_pred)]
    return found


def read_newest(checkpoints: Sequence[Path]) -> Overlays | None:
    """The overlays of the newest checkpoint whose file is whole."""
    for folder in checkpoints:
        try:
            stored = read_overlays(folder)
        except ValueError:
            continue
        if stored is not None and len(stored.images):
            return stored
    return None


def render(record: Examples, subject: Subject) -> str:
    """Three pictures an image: as it is, with its mask, with the prediction; nothing where the files are gone."""
    images = pictures(subject.checkpoints, [image.index for image in record.shown])
    if not images:
        return ""
    found = []
    for image in record.shown:
        names = ("image", "image with its mask", "image with the prediction")
        triple = "".join(
            f'<img src="{source}" alt="{name}">' for source, name in zip(images[image.index], names, strict=True)
        )
        caption = f"IoU {image.iou:.4f}"
        found.append(f'<figure><figcaption>{caption}</figcaption><div class="triple">{triple}</div></figure>')
    kinds = [("found ", FOUND), ("missed ", MISSED), ("wrongly found", WRONG)]
    key = "".join(f'<i style="background:{css_color(color)}"></i>{name}' for name, color in kinds)
    which = "all" if len(record.shown) == record.stored else "the worst and the best"
    intro = (
        f"<p>Of the {record.stored} validation images that the winner's checkpoint keeps, {which}, worst first: "
        f'image, mask, prediction.<span class="key">{key}</span></p>'
    )
    return f'{intro}<div class="overlays">{"".join(found)}</div>'


def _iou(counts: Sequence[Counts]) -> float:
    """Mean over the classes; 1 for one that is neither there nor predicted."""
    unions = [part.predicted + part.positive - part.true_positive for part in counts]
    found = [part.true_positive / union if union else 1.0 for part, union in zip(counts, unions, strict=True)]
    return sum(found) / len(found)


SECTION = Section("overlays", 110, "What it sees", overlays, render)
