"""Tree-structured Parzen estimators over our own scores, using Optuna's sampler.

Optuna's sampler asks its study for trials and splits them by their values. Here it is handed a view of the trials in
which each carries a score that makes it comparable with the others, however far it got; see `score_by_rung`.

References:
    Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011 (TPE).
    Falkner, Klein and Hutter, BOHB, ICML 2018 (TPE on the values of one budget).
"""

import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats import spearmanr

from search.sampling.past import Past
from search.sampling.sampler import Question
from search.space.tree import Space
from search.study.recording import distribution_of
from segcore.params import Params

Scores = dict[int, float]
"""Trial number -> score, larger is better; trials without one are left out of the model."""

_FEWEST_TO_TRUST = 5


def score_by_progress(trials: Sequence[Past], rungs: Sequence[int], num_parameters: int) -> Scores:
    """Later epochs first, then the value: how Optuna itself ranks pruned trials below complete ones.

    Args:
        trials: What the trials reported.
        rungs: Not used.
        num_parameters: Not used.
    """
    order = sorted((trial for trial in trials if trial.values), key=lambda trial: (trial.last, trial.best))
    return {trial.number: float(rank) for rank, trial in enumerate(order)}


def score_by_rung(trials: Sequence[Past], rungs: Sequence[int], num_parameters: int) -> Scores:
    """Compares trials at one epoch that they all reached: the highest rung that enough have reached.

    Those that stopped below that rung are left out, as in BOHB: they were not good enough for it, but how they would
    have ended is unknown. Where the lower rungs have proved to rank trials as the higher ones do, though, their ends
    are as good as known, and every trial takes part, its value carried upwards by what trials gained from rung to rung.

    Args:
        trials: What the trials reported.
        rungs: Epochs at which trials are compared, ascending.
        num_parameters: Number of searched parameters; a rung needs 3 trials more than that.
    """
    at_rung = [{t.number: t.values[rung] for t in trials if rung in t.values} for rung in rungs]
    if _low_rungs_rank_like_high(at_rung):
        return _carried_upwards(trials, rungs, at_rung)
    enough = num_parameters + 3
    return next((values for values in reversed(at_rung) if len(values) >= enough), at_rung[0] if at_rung else {})


def _low_rungs_rank_like_high(at_rung: Sequence[Scores]) -> bool:
    """Whether values at each rung say nearly all about the next one, judged by the trials that reached both."""
    correlations, weights = [], []
    for lower, upper in pairwise(at_rung):
        both = [number for number in upper if number in lower]
        if len(both) >= _FEWEST_TO_TRUST:
            x, y = [lower[n] for n in both], [upper[n] for n in both]
            is_known = min(x) < max(x) and min(y) < max(y)
            correlations.append(float(spearmanr(x, y).statistic) if is_known else 0.0)
            weights.append(len(both))
    return bool(weights) and float(np.average(correlations, weights=weights)) > RANKS_ALIKE


RANKS_ALIKE = 0.8
"""Rank correlation from rung to rung above which stopped trials are compared with finished ones."""


def _carried_upwards(trials: Sequence[Past], rungs: Sequence[int], at_rung: Sequence[Scores]) -> Scores:
    """Each trial's value at its highest rung, carried to the last rung by a line fitted from each rung to the next."""
    lines = []
    for lower, upper in pairwise(at_rung):
        both = [number for number in upper if number in lower]
        if len(both) < 2:
            lines.append((0.0, 1.0))
            continue
        x, y = np.array([lower[n] for n in both]), np.array([upper[n] for n in both])
        ridge = 2.0 * x.var() + 1e-6  # pulls the slope towards 1: trials keep their distances
        dx = x - x.mean()
        slope = max(0.0, float((dx @ (y - y.mean()) + ridge) / (dx @ dx + ridge)))
        lines.append((float(y.mean() - slope * x.mean()), slope))
    scores = {}
    for trial in trials:
        reached = [index for index, values in enumerate(at_rung) if trial.number in values]
        if not reached:
            continue
        value = at_rung[reached[-1]][trial.number]
        for offset, slope in lines[reached[-1] :]:
            value = offset + slope * value
        scores[trial.number] = max(value, trial.best)
    return scores


class ParzenSampler:
    """Multivariate TPE, in groups for conditional spaces, over scored trials.

    Args:
        space: The space.
        score: Makes trials comparable.
        rungs: Epochs at which trials are compared, ascending, the last epoch included.
    """

    def __init__(
        self, space: Space, score: Callable[[Sequence[Past], Sequence[int], int], Scores], rungs: Sequence[int]
    ) -> None:
        self._space = space
        self._score = score
        self._rungs = tuple(rungs)
        self._distributions = {node.name: distribution_of(node.domain) for node in space.parameters()}

    def propose(self, question: Question) -> Iterator[Params]:
        """An endless sequence of points, none preferred to another; see `Sampler.propose`."""
        trials, rng = question.trials, question.rng
        scores = self._score(trials, self._rungs, len(self._distributions))
        worst = min(scores.values(), default=0.0) - 1.0
        # Failed trials, and running ones of which nothing is known yet, count as bad: failed ones because they are,
        # running ones so that no other trial gets their point (the constant liar).
        scores |= {t.number: worst for t in trials if t.failed or (t.running and not t.values)}
        view = _View([self._frozen(trial, scores[trial.number]) for trial in trials if trial.number in scores])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = TPESampler(
                seed=int(rng.integers(2**31)), n_startup_trials=0, multivariate=True, group=True, constant_liar=False
            )
        while True:
            yield self._space.suggest(_Question(sampler, view))  # type: ignore[arg-type]

    def _frozen(self, trial: Past, score: float) -> FrozenTrial:
        params = self._space.to_params(trial.flat)
        distributions = {name: self._distributions[name] for name in params}
        frozen = create_trial(params=params, distributions=distributions, value=score)
        frozen.number = trial.number
        return frozen


class _View(optuna.Study):
    """A study of trials that were made for it; it is read by a sampler, and nothing is ever written to it."""

    def __init__(self, trials: list[FrozenTrial]) -> None:
        self.__dict__.update(_empty_study().__dict__)
        self._made = trials

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return [trial for trial in self._made if states is None or trial.state in states]

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return self.get_trials(deepcopy, states)


@cache
def _empty_study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize")


class _Question:
    """Asks a sampler for the parameters one by one, as `optuna.Trial` does; nothing is stored."""

    def __init__(self, sampler: TPESampler, view: _View) -> None:
        self._sampler, self._view = sampler, view
        self._trial = create_trial(state=TrialState.RUNNING)
        self._trial.number = 1 + max((trial.number for trial in view.get_trials()), default=-1)
        self._relative_space = sampler.infer_relative_search_space(view, self._trial)
        self._relative = sampler.sample_relative(view, self._trial, self._relative_space)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._suggest(name, optuna.distributions.CategoricalDistribution(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        return int(self._suggest(name, optuna.distributions.IntDistribution(low, high, step=step)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._suggest(name, optuna.distributions.FloatDistribution(low, high, log=log, step=step)))

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        if name in self._relative and self._relative_space[name] == distribution:
            return self._relative[name]
        if distribution.single():
            return distribution.to_external_repr(distribution.to_internal_repr(_only(distribution)))
        return self._sampler.sample_independent(self._view, self._trial, name, distribution)


def _only(distribution: Any) -> Any:
    return distribution.choices[0] if hasattr(distribution, "choices") else distribution.low
