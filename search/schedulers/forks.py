"""Population based training: which trials are copied, and how a copy's settings are altered.

A member that is among the worst at a perturbation point is stopped, and in its place a *fork* starts: a trial of its
own, with the altered settings of one of the best, that continues from its weights at such a point. Everything here
follows from the study, the run's folder and the seed, so that a resumed search continues in the same way.

References:
    Jaderberg et al., Population Based Training of Neural Networks, 2017, arXiv:1711.09846.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from search.runs.paths import RunPaths
from search.schedulers.population import Population
from search.space.domains import (
    Choice,
    Fixed,
    Node,
    Range,
)
from search.space.tree import Space
from search.study.observations import PARAMS_ATTR, PARENT_ATTR
from segcore.checkpoint.files import link_file
from segcore.objective import Objective
from segcore.params import Params, ParamValue

FACTORS = (0.8, 1.2)
_MOST_DRAWS = 100


@dataclass(frozen=True)
class Snapshots:
    """Checkpoints of members that may be copied, and those that forks begin with; hard links, which cost no space.

    A trial deletes its older checkpoints while it trains, and an ended one keeps only its best epoch; a link keeps
    the files that a fork may need.
    """

    paths: RunPaths

    def keep(self, number: int, epoch: int) -> None:
        """Keeps the newest checkpoint of a trial, which must be of that epoch."""
        checkpoints = self.paths.trial_checkpoints(number)
        if checkpoints:
            _link_folder(checkpoints[0], self.paths.snapshot(number, epoch))

    def has(self, number: int, epoch: int) -> bool:
        """Whether the trial can be copied at that epoch."""
        return self.paths.snapshot(number, epoch).is_dir()

    def drop(self, number: int, epoch: int) -> None:
        """Deletes a snapshot, if there is one."""
        shutil.rmtree(self.paths.snapshot(number, epoch), ignore_errors=True)

    def start_fork(self, number: int, parent: int, epoch: int) -> None:
        """Links a parent's snapshot as the starting point of a fork.

        Args:
            number: The fork.
            parent: The trial that it continues.
            epoch: Epoch of the parent's snapshot.
        """
        _link_folder(self.paths.snapshot(parent, epoch), self.paths.fork_start(number))

    def drop_start(self, number: int) -> None:
        """Deletes the starting point of a fork; does nothing for other trials."""
        shutil.rmtree(self.paths.fork_start(number), ignore_errors=True)


@dataclass(frozen=True)
class Forks:
    """What a searcher asks before each new trial.

    Args:
        population: The rules.
        space: What the settings of a fork are altered within.
        snapshots: What forks continue from.
        objective: What trials are compared by.
        seed: The search's seed.
    """

    population: Population
    space: Space
    snapshots: Snapshots
    objective: Objective
    seed: int = 0

    def prepare(self, study: optuna.Study) -> bool:
        """Enqueues the fork that is due, so that the study's next `ask` gives it.

        The first `population` trials start from scratch, as does a trial when no trial can be copied any more: then
        nothing is enqueued. A point that already waits in the study comes first.

        Returns:
            Whether to ask now. False while the population is full, or while no trial that could be copied has come far
            enough: then some trial is running, and its end is the time to ask again.
        """
        trials = study.get_trials(deepcopy=False)
        if any(trial.state == TrialState.WAITING for trial in trials):
            return True
        number = len(trials)
        self.snapshots.drop_start(number)  # of a session that was killed right here
        if sum(PARENT_ATTR not in trial.user_attrs for trial in trials) < self.population.size:
            return True
        running = sum(trial.state == TrialState.RUNNING for trial in trials)
        if running >= self.population.size:
            return False
        rng = np.random.default_rng((self.seed % 2**64, number))
        parent = self._parent(trials, rng)
        if parent is None:
            return running == 0
        origin, epoch = parent
        params = perturb(self.space, origin.user_attrs[PARAMS_ATTR], rng, self.population.resample_probability)
        self.snapshots.start_fork(number, origin.number, epoch)
        study.enqueue_trial(self.space.to_params(params), user_attrs={PARENT_ATTR: [origin.number, epoch]})
        return True

    def _parent(self, trials: Sequence[FrozenTrial], rng: np.random.Generator) -> tuple[FrozenTrial, int] | None:
        """One of the best at the point where the last trial was stopped; at any point, if there is none at that one."""
        found = {point: best for point in self.population.points if (best := self._best_at(trials, point))}
        if not found:
            return None
        ended = [trial for trial in trials if trial.state == TrialState.PRUNED and trial.datetime_complete]
        last = max(ended, key=lambda trial: (trial.datetime_complete, trial.number), default=None)
        point = self.population.point_at(max(last.intermediate_values, default=0)) if last else None
        if point is None or point not in found:
            point = int(rng.choice(list(found)))
        return trials[int(rng.choice(found[point]))], point

    def _best_at(self, trials: Sequence[FrozenTrial], point: int) -> list[int]:
        members = {
            trial.number: self.objective.sign * trial.intermediate_values[point]
            for trial in trials
            if trial.state in (TrialState.RUNNING, TrialState.COMPLETE)
            and point in trial.intermediate_values
            and self.snapshots.has(trial.number, point)
        }
        return sorted(self.population.best_of(members))


def perturb(
    space: Space, params: Mapping[str, ParamValue], rng: np.random.Generator, resample_probability: float
) -> Params:
    """A parent's settings, altered: never the same, and never what the space forbids.

    Each number is multiplied by 0.8 or 1.2, kept within its range, and put on its range's steps, one step at least;
    with `resample_probability`, it is drawn anew, evenly on its range's own scale. A choice is kept, or drawn anew with
    the same probability; the parameters of a newly chosen branch are drawn too.

    Args:
        space: The space that the result must lie in.
        params: The parent's settings.
        rng: Source of randomness.
        resample_probability: Chance in [0, 1] that a setting is drawn anew.
    """
    for attempt in range(_MOST_DRAWS):
        # A parent at a corner that offers nothing but itself is left by drawing more and more anew.
        probability = resample_probability + (1.0 - resample_probability) * attempt / _MOST_DRAWS
        found = _altered(space.nodes, params, rng, probability)
        if found != dict(params) and space.forbidden(found) is None:
            return found
    return dict(params)


def _altered(
    nodes: Sequence[Node], params: Mapping[str, ParamValue], rng: np.random.Generator, probability: float
) -> Params:
    flat: Params = {}
    for node in nodes:
        domain = node.domain
        if isinstance(domain, Fixed):
            flat[node.key] = domain.value
            continue
        value: Any = params.get(node.key)
        known = domain.holds(value)
        resample = rng.random() < probability
        if resample or not known:
            flat[node.key] = domain.draw(rng)
        elif isinstance(domain, Range):
            flat[node.key] = _moved(domain, value, float(rng.choice(FACTORS)))
        else:
            flat[node.key] = value
        if isinstance(domain, Choice):
            option = domain.option(flat[node.key])
            flat |= _altered(option.nodes if option else (), params, rng, probability)
    return flat


def _moved(domain: Range, value: float, factor: float) -> float:
    step = domain.step or float(domain.integer)
    target = value * factor if value else (factor - 1.0) * (domain.high - domain.low)
    if step:
        num_steps = round((target - value) / step) or (1 if target > value else -1)
        last = round((domain.high - domain.low) / step)
        place = min(max(round((value - domain.low) / step) + num_steps, 0), last)
        target = domain.low + place * step
    target = min(max(target, domain.low), domain.high)
    return round(target) if domain.integer else float(target)


def _link_folder(source: Path, target: Path) -> None:
    """Makes `target` a folder with the same files; complete or absent."""
    beside = target.with_name(f".{target.name}")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(source, beside, copy_function=link_file)
    shutil.rmtree(target, ignore_errors=True)
    beside.rename(target)
