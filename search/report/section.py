"""What a section of the report is, and finding all of them: a file of `search.report.sections` is a section."""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from search.report.markup import card
from search.runs.reading import Run
from search.runs.sealed_training import SealedTraining

Record = TypeVar("Record")
PACKAGE = "search.report.sections"


@dataclass(frozen=True)
class Subject:
    """What every section may need to know of the run as a whole, to draw its own record.

    Attributes:
        metric: What trials are compared by.
        sealed: The training whose weights are sealed, if any are.
        best: Number and value of the best trial so far; None for a training run, or before any has a value.
        checkpoints: Checkpoint folders of what is sealed, or of the best trial, newest first.
    """

    metric: str
    sealed: SealedTraining | None = None
    best: tuple[int, float] | None = None
    checkpoints: Sequence[Path] = ()


def subject_of(run: Run) -> Subject:
    """What the sections need to know of a run."""
    best = run.trials.best()
    return Subject(
        metric=run.objective.metric,
        sealed=run.sealed,
        best=None if best is None or best.value is None else (best.number, best.value),
        checkpoints=run.checkpoints,
    )


@dataclass(frozen=True)
class Section(Generic[Record]):
    """One section: a record is computed from the run's files, and then drawn.

    Attributes:
        name: Its key in `segsearch report --json`, and its anchor on the page.
        order: Where it stands on the page.
        title: Its heading, where that does not depend on the record; "" for none.
        record: What it shows: a frozen dataclass, or a tuple of them; None where it does not apply to a run.
        render: The HTML below the heading; "" where there is nothing to draw.
        title_of: The heading of a record, where it depends on that.
        is_long: It may be broken over two pages of paper.
    """

    name: str
    order: int
    title: str
    record: Callable[[Run], Record | None]
    render: Callable[[Record, Subject], str]
    title_of: Callable[[Record, Subject], str] | None = None
    is_long: bool = False

    def html(self, record: Record, subject: Subject) -> str:
        """The whole section as the page has it.

        Args:
            record: From `record`.
            subject: The run that the page is of.
        """
        body = self.render(record, subject)
        title = self.title_of(record, subject) if self.title_of else self.title
        return card(title, body, anchor=self.name, css="long" if self.is_long else "") if body else ""


def all_sections() -> list[Section[Any]]:
    """The `SECTION` of each module of `search.report.sections`, in the order of the page.

    Raises:
        ValueError: Two of them share a name or a place.
    """
    folder = importlib.import_module(PACKAGE).__path__
    modules = [importlib.import_module(f"{PACKAGE}.{found.name}") for found in pkgutil.iter_modules(folder)]
    sections: list[Section[Any]] = sorted((module.SECTION for module in modules), key=lambda section: section.order)
    for what in ("name", "order"):
        values = [getattr(section, what) for section in sections]
        if len(set(values)) < len(values):
            raise ValueError(f"two sections of the report have the same {what}: {values}")
    return sections
