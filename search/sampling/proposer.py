"""What is tried next: known points first, then a random start, then what a sampler makes of all trials so far.

A proposer keeps no state of its own but the trials: what it proposes follows from the seed, the number of the trial and
the results of the others, so a search that was stopped continues as if it had not been.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from search.config.choices import SAMPLERS
from search.sampling.cube import Cube
from search.sampling.past import Past, with_values
from search.sampling.sampler import Question, Sampler, SamplerRule, Setting
from search.sampling.scalarization import WEIGHTS, scalarized
from search.sampling.spread import Spread
from search.space.points import Key, Points
from search.space.tree import Space
from segcore.errors import ConfigError
from segcore.objective import Objective
from segcore.params import Params, ParamValue

_CANDIDATES = 50
_DRAWS = 1000
_FEWEST_FAILURES = 3
_ABSENT = object()


class Proposer:
    """Proposes the settings of trials.

    Args:
        space: What is searched.
        sampler: Its name.
        seed: Seed of everything random.
        num_samples: Trials of the whole search; the even start is an eighth of them, within limits.
        max_epochs: Epochs of a whole trial.
        rungs: Epochs at which the scheduler compares trials, ascending; empty when it stops none.
        objective: What trials are compared by; where it has a cost, each proposal weighs the two again.
        first: Points to try before all others, in this order.
        points: Which points of the space train the same; by default those that are equal.

    Raises:
        ConfigError: No such sampler.
    """

    def __init__(
        self,
        space: Space,
        sampler: str,
        *,
        seed: int,
        num_samples: int,
        max_epochs: int,
        rungs: Sequence[int] = (),
        objective: Objective,
        first: Iterable[tuple[Mapping[str, ParamValue], str]] = (),
        points: Points | None = None,
    ) -> None:
        if sampler not in SAMPLERS:
            raise ConfigError(f"search.sampler: unknown sampler {sampler!r}; valid: {', '.join(SAMPLERS.names)}")
        self.trials: dict[int, Past] = {}
        self._points = points or Points(space, {})
        self._tried: set[Key] = set()
        self._space, self._cube = space, Cube(space)
        self._seed = seed % 2**32
        self._sign = objective.sign
        self._first = [(dict(flat), origin) for flat, origin in first]
        self._num_start = min(max(4, num_samples // 8), max(5, self._cube.num_axes))
        self._has_cost = objective.second is not None
        self._spread = Spread(self._cube, self._seed)
        self._shares = _rule(sampler).shares or {sampler: 1.0}
        weights = WEIGHTS if self._has_cost else (1.0,)
        setting = Setting(space, self._cube, sorted({*rungs, max_epochs}), weights, self._seed)
        self._samplers = {name: _built(name, setting) for name in self._shares}

    def started(self, number: int, flat: Mapping[str, ParamValue], origin: str = "") -> None:
        """Takes note of a trial that runs with these settings; one outside of the space is ignored.

        Args:
            number: The trial.
            flat: Flat dotted key -> value.
            origin: Who proposed it.
        """
        try:
            position = self._cube.position(flat)
        except (KeyError, ValueError):
            return
        self.trials[number] = Past(number, dict(flat), position, origin=origin)
        self._tried.add(self._points.key(flat))

    def reported(self, number: int, epoch: int, value: float) -> None:
        """Takes a report, in the metric's own direction.

        Args:
            number: The trial.
            epoch: The epoch, from 1.
            value: The metric.
        """
        if number in self.trials:
            self.trials[number].report(epoch, self._sign * value)

    def cost(self, number: int, cost: float) -> None:
        """Takes the cost of a trial's model."""
        if number in self.trials:
            self.trials[number].cost = cost

    def ended(self, number: int, *, failed: bool = False) -> None:
        """Notes that a trial ended: it finished, was stopped, or `failed` because of its settings."""
        if number in self.trials:
            self.trials[number].running = False
            self.trials[number].failed = failed

    def propose(self, number: int) -> tuple[Params, str]:
        """The settings of trial `number`: flat dotted key -> value, and where they come from."""
        for flat, origin in self._first:
            if self._points.key(flat) not in self._tried:
                return flat, origin
        rng = np.random.default_rng([self._seed, number])
        trials = [self.trials[known] for known in sorted(self.trials)]
        weight = 1.0
        if self._has_cost:
            weight = float(rng.choice(WEIGHTS))
            trials = scalarized(trials, weight)
        name = str(rng.choice(list(self._shares), p=list(self._shares.values())))
        is_known = any(trial.values for trial in trials) and len(with_values(trials)) >= self._num_start
        learns = _rule(name).learns
        if learns and not is_known:
            name = "start"
        if self._space.priors and rng.random() < self._prior_share(trials):
            name = "prior"
        candidates = islice(self._candidates(name, Question(number, trials, weight, rng, _CANDIDATES)), _CANDIDATES)
        found = self._pick(candidates, trials if learns or name == "prior" else (), rng)
        if found is None:  # what the sampler likes best was tried or is forbidden
            found = self._untried(rng)
        if found is None:  # a small space is used up, and its scheduler needs more trials all the same
            drawn = (self._space.sample_uniform(rng) for _ in range(_DRAWS))
            found = next((flat for flat in drawn if self._space.forbidden(flat) is None), None)
        if found is None:
            raise ConfigError(f"space.forbid: {_DRAWS} random points were all forbidden; nothing is left to try")
        return found, name

    @property
    def is_used_up(self) -> bool:
        """Whether every point of the space was tried."""
        return self._points.left(self._tried) == 0

    def _untried(self, rng: np.random.Generator) -> Params | None:
        """A random point that was not tried; None where there is none, or many random points were all tried."""
        every = self._points.every
        if every is None:
            return self._pick((self._space.sample_uniform(rng) for _ in range(_DRAWS)), (), rng)
        left = [flat for key, flat in every.items() if key not in self._tried]
        return left[int(rng.integers(len(left)))] if left else None

    def _pick(self, candidates: Iterable[Params], trials: Sequence[Past], rng: np.random.Generator) -> Params | None:
        """The first candidate that is allowed, new, and not too like those that failed; None if there is none."""
        for flat in candidates:
            if self._space.forbidden(flat) is not None or self._points.key(flat) in self._tried:
                continue
            if rng.random() < self._chance_to_work(flat, trials):
                return flat
        return None

    def _chance_to_work(self, flat: Mapping[str, ParamValue], trials: Sequence[Past]) -> float:
        """Chance to accept a point, given how often trials with the same values failed.

        Models of the metric learn nothing from a trial without one, such as one that ran out of memory. For each value
        of a choice or a stepped range, the share of its trials that worked, with one of each kind added, is compared
        with that of all trials; the worst of them counts. A value that always fails is still tried now and then.
        """
        ended = [trial for trial in trials if not trial.running]
        if not any(trial.failed for trial in ended):
            return 1.0
        works = [not trial.failed for trial in ended]
        overall = (sum(works) + 1) / (len(works) + 2)
        chance = 1.0
        for key, value in flat.items():
            same = [work for trial, work in zip(ended, works, strict=True) if trial.flat.get(key, _ABSENT) == value]
            if len(same) >= _FEWEST_FAILURES:
                chance = min(chance, (sum(same) + 1) / (len(same) + 2) / overall)
        return chance

    def _candidates(self, name: str, question: Question) -> Iterable[Params]:
        if name == "start":
            return [self._cube.point(self._spread.position(question.number))]
        if name == "prior":
            return _endless(lambda: self._space.sample_prior(question.rng))
        return self._samplers[name].propose(question)

    def _prior_share(self, trials: Sequence[Past]) -> float:
        """How often the user's belief is asked instead of the sampler.

        Every other time at the start; then less and less, as trials say more than beliefs, and less still when the
        trials that it brought are not among the best as often as they should be: a wrong belief costs some of the first
        trials, not the search.

        References:
            Mallik et al., PriorBand, NeurIPS 2023, arXiv:2306.12370.
        """
        known = sorted((trial for trial in trials if trial.values), key=lambda trial: -trial.best)
        if len(known) < self._num_start:
            return 0.5
        believed = [trial.origin == "prior" for trial in known]
        top = believed[: max(1, len(known) // 4)]
        merit = (sum(top) / len(top)) / (sum(believed) / len(believed)) if any(believed) else 1.0
        return 0.5 * min(1.0, merit) * self._num_start / len(known)


def _endless(draw: Callable[[], Params]) -> Iterator[Params]:
    while True:
        yield draw()


def _rule(sampler: str) -> SamplerRule:
    rule: SamplerRule = SAMPLERS[sampler].build
    return rule


def _built(sampler: str, setting: Setting) -> Sampler:
    build = _rule(sampler).build
    assert build is not None, f"{sampler} is a mixture, which cannot be a part of another"
    return build(setting)
