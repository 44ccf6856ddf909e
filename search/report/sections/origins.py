"""Who proposed the trials, and what came of them."""

from collections import defaultdict
from dataclasses import dataclass

from search.report.markup import table
from search.report.section import Section, Subject
from search.runs.reading import Run
from search.show.quoting import number_text

ORIGINS = {
    "config": "the config's own values",
    "enqueued": "given in the config",
    "start": "spread evenly, before there is much to learn from",
    "prior": "drawn from what the config believes",
    "fork": "an altered copy of a better trial, continuing from its weights",
    "gp": "a Gaussian process over settings and epochs",
    "rung_tpe": "TPE that compares trials at a rung that both reached",
    "tpe": "plain TPE",
    "qmc": "the next point of a Sobol sequence",
    "random": "drawn evenly",
}
"""Who proposes trials, in words."""


@dataclass(frozen=True)
class Origin:
    """One who proposed trials: how many, how many of them have a value and did not fail, and their mean and best."""

    origin: str
    trials: int
    with_value: int
    mean: float | None
    best: float | None
    found_winner: bool


def origins(run: Run) -> tuple[Origin, ...] | None:
    """Who proposed the trials, in the order in which they came in; None where no trial says it.

    That is so in a run of an early version. Means and bests are of the trials that did not fail.
    """
    proposed: dict[str, list[int]] = defaultdict(list)
    if any(life.origin for life in run.lives.values()):
        for number, life in run.lives.items():
            if run.trials.get(number):  # not one that only waits for its turn
                proposed[life.origin or "not recorded"].append(number)
    sound = {row.number: row.value for row in run.trials if row.state != "failed" and row.value is not None}
    sign = run.objective.sign
    found = []
    for origin, numbers in proposed.items():
        values = [sound[number] for number in numbers if number in sound]
        mean = sum(values) / len(values) if values else None
        best = max(values, key=lambda value: sign * value, default=None)
        found.append(Origin(origin, len(numbers), len(values), mean, best, run.winner in numbers))
    return tuple(found) or None


def render(rows: tuple[Origin, ...], subject: Subject) -> str:
    """A row each, and what they are."""
    body = [
        ("winner" if row.found_winner else "", [
            (row.origin, ""), (str(row.trials), "n"), (number_text(row.mean), "n"), (number_text(row.best), "n"),
            ("found the winner" if row.found_winner else "", ""),
        ])
        for row in rows
    ]  # fmt: skip
    known = {row.origin for row in rows}
    metric = subject.metric
    heads = [("proposed by", ""), ("trials", "n"), (f"mean {metric}", "n"), (f"best {metric}", "n"), ("", "")]
    words = " ".join(f"{name}: {said}." for name, said in ORIGINS.items() if name in known)
    return f'{table(heads, body)}<p class="soft">{words}</p>'


SECTION = Section("origins", 100, "Where the trials came from", origins, render)
