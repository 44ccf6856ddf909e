"""Trials that failed, by the kind of their failure."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from search.report.markup import table
from search.report.section import Section, Subject
from search.runs.reading import Run


@dataclass(frozen=True)
class Failures:
    """Trials that failed in one way: how many and which, and the first line of the first one's error."""

    kind: str
    count: int
    trials: list[int]
    first_error: str


def failures(run: Run) -> tuple[Failures, ...] | None:
    """Failed trials by the kind of their failure, the most frequent first; None where none failed."""
    kinds = {number: life.why or "unknown" for number, life in run.lives.items()}
    groups: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for row in run.trials:
        if row.state == "failed":
            kind, _, message = (row.error or kinds.get(row.number, "unknown")).partition(": ")
            groups[kind].append((row.number, message.strip().partition("\n")[0]))
    found = [
        Failures(kind, len(trials), [number for number, _ in trials], trials[0][1]) for kind, trials in groups.items()
    ]
    return tuple(sorted(found, key=lambda group: -group.count)) or None


def render(groups: tuple[Failures, ...], subject: Subject) -> str:
    """One row per kind."""
    heads = [("trials", "n"), ("failure", ""), ("numbers", ""), ("first error", "text")]
    body = [
        ("", [
            (str(group.count), "n"), (group.kind, ""), (_numbers_text(group.trials), ""),
            (group.first_error or "no message", "text"),
        ])
        for group in groups
    ]  # fmt: skip
    return table(heads, body)


def _numbers_text(numbers: Sequence[int]) -> str:
    """The first few of some trials' numbers."""
    shown = ", ".join(map(str, numbers[:8]))
    return shown if len(numbers) <= 8 else f"{shown}, ..."


SECTION = Section("failures", 70, "Failed trials", failures, render)
