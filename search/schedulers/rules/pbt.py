"""Population based training, the part that stops; `search.schedulers.forks` makes the forks."""

import math
from collections.abc import Mapping
from typing import Any

from search.config.asked import Asked
from search.config.problems import Problem
from search.schedulers.population import Population
from search.schedulers.rule import KEY, Judged, SchedulerRule
from search.schedulers.setting import Setting
from segcore.component import Component, Option


class PopulationRule:
    """Stops a member that is among the worst of the population at a perturbation point, and keeps copies of the best.

    The population at a point is the given number of youngest trials that reached it, whatever happened to them later.
    Members do not wait for each other, so one is judged at a point and at each report up to the next point, by its
    value at the point, as more of the others come to it. Ray's `PopulationBasedTraining` is not used: it takes no
    searcher, and it changes the config of a running trial, so that no trial of the study would match its parameters. A
    value that is not a number is the worst.

    References:
        Jaderberg et al., Population Based Training of Neural Networks, 2017, arXiv:1711.09846.
    """

    def __init__(self, setting: Setting, population: Population) -> None:
        self._setting = setting
        self._population = population
        self._values: dict[int, dict[int, float]] = {point: {} for point in population.points}
        self._left: set[int] = set()
        for number, epochs in setting.history.items():
            if number not in setting.unfinished and max(epochs, default=0) < setting.max_epochs:
                self._left.add(number)
            for point in epochs.keys() & self._values.keys():
                self._values[point][number] = _comparable(setting.objective.sign * epochs[point])

    def begins(self, number: int) -> None:
        """Starts a member, or resumes one that was here before."""
        self._left.discard(number)

    def goes_on(self, report: Judged) -> bool:
        """Stops a member by its value at its last perturbation point, or lets it continue."""
        point = self._population.point_at(report.epoch)
        if point is None or report.epoch >= self._setting.max_epochs:
            return True
        number, values = report.number, self._values[point]
        is_new = report.epoch == point and number not in values
        if is_new:
            values[number] = _comparable(report.value)
        if self._population.is_loser(number, values):
            self._leave(number)
            return False
        if is_new:
            self._keep_best(point, number)
        return True

    def ends(self, number: int, *, is_finished: bool) -> None:
        """Keeps the snapshots of a finished trial, which can still be copied; a stopped trial cannot."""
        if not is_finished:
            self._leave(number)
        if self._setting.snapshots:
            self._setting.snapshots.drop_start(number)

    def fails(self, number: int) -> None:
        """Deletes the snapshots of a failed trial; its starting point stays, in case it starts again."""
        self._leave(number)

    def _leave(self, number: int) -> None:
        self._left.add(number)
        if self._setting.snapshots:
            for point in self._population.points:
                self._setting.snapshots.drop(number, point)

    def _keep_best(self, point: int, newcomer: int) -> None:
        snapshots = self._setting.snapshots
        if not snapshots:
            return
        members = {number: value for number, value in self._values[point].items() if number not in self._left}
        best = self._population.best_of(members)
        if newcomer in best:
            snapshots.keep(newcomer, point)
        for number in members.keys() - best:
            snapshots.drop(number, point)


def _comparable(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def population_of(options: Any, max_epochs: int) -> Population:
    """The population that a config describes."""
    points = tuple(range(options.perturbation_interval, max_epochs, options.perturbation_interval))
    return Population(options.population, points, options.quantile, options.resample_probability)


def shapes_the_weights(key: str) -> bool:
    """Whether a model with another value of the key could not resume from the same weights."""
    return key.startswith("model.") and key != "model.dropout"


def _limits(options: Any, asked: Asked) -> Mapping[str, int]:
    return {"population": asked.num_samples, "perturbation_interval": max(1, asked.epochs - 1)}


def _problems(options: Any, asked: Asked) -> list[Problem]:
    epochs, num_samples = asked.epochs, asked.num_samples
    problems: list[Problem] = []
    if num_samples < 4:
        message = f"found {num_samples}, but pbt needs a population of at least 4 trials; valid: 4 or more"
        problems.append(Problem("search.num_samples", message))
    elif "population" in asked.given and options.population > num_samples:
        message = f"found {options.population}, but there are only search.num_samples={num_samples} trials"
        problems.append(Problem(f"{KEY}.population", f"{message}; valid: 4 to {num_samples}"))
    if epochs == 1:
        problems.append(Problem("train.epochs", "found 1, but pbt compares trials before their end; valid: 2 or more"))
    elif "perturbation_interval" in asked.given and options.perturbation_interval >= epochs:
        found = f"found {options.perturbation_interval}, but a trial has only train.epochs={epochs}"
        problems.append(Problem(f"{KEY}.perturbation_interval", f"{found}; valid: 1 to {epochs - 1}"))
    problems += [
        Problem(
            f"space.{key}",
            "cannot be searched with scheduler pbt: a fork continues with its parent's weights, which do not fit "
            f"another {key}; set {key} outside of space, or use another scheduler",
        )
        for key in filter(shapes_the_weights, asked.space.keys())
    ]
    if len(asked.space.parameters()) == 0:
        message = "is empty, but pbt alters settings in mid-training; valid: at least one key, e.g. optimizer.lr"
        problems.append(Problem("space", message))
    return problems


RULE = SchedulerRule(
    does="`population` trials start afresh; every `perturbation_interval` epochs the worst `quantile` is stopped, and "
    "a fork of one of the best continues from its weights with altered settings",
    when="settings that should change while a model trains, and as many trials side by side as the population has",
    judge=lambda options, setting: PopulationRule(setting, population_of(options, setting.max_epochs)),
    decision_epochs=lambda options, max_epochs: population_of(options, max_epochs).points,
    population=population_of,
    limits=_limits,
    problems=_problems,
)

COMPONENT = Component(
    "pbt",
    "replaces the poor ones by altered copies of the good ones",
    RULE,
    (
        Option("population", int, 8, "trials that start afresh; the rest of num_samples are forks of these.", ge=4),
        Option("perturbation_interval", int, 2, "epochs between two comparisons.", ge=1),
        Option(
            "quantile",
            float,
            0.25,
            "share at the bottom that is stopped, and at the top that is copied.",
            gt=0.0,
            le=0.5,
        ),
        Option(
            "resample_probability",
            float,
            0.25,
            "chance that a fork draws a value anew rather than alter its parent's.",
            ge=0.0,
            le=1.0,
        ),
    ),
    order=40,
)
