"""How a trial's parameters are kept in the study's file, also where the space changes between two sessions.

Optuna ties a parameter's name to one distribution: a choice that gains or loses an option, or a range that becomes a
choice, is refused for the rest of the study, and importances look only at parameters whose distribution is the same
in all trials. So what is recorded is not the present space but the widest that the study has seen: a name's
distribution covers all values of all trials (the mirror is rebuilt where the space has changed), and only where no
distribution could, a value beside a number, the parameter continues under a versioned name, `threshold#2`.

What a trial ran with is its user attribute `params`; what is recorded here serves optuna-dashboard and importances.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from search.space.domains import Choice, Range
from search.space.parse import apply
from search.space.tree import Space, flatten
from search.study.optuna_internals import refresh, set_param, trial_of
from segcore.config import TrainConfig

Recorded = dict[str, tuple[Any, BaseDistribution]]
"""Parameters by the name under which Optuna keeps them, each with its value and its distribution."""


def point_in(space: Space, base: TrainConfig, flat: Mapping[str, Any]) -> dict[str, Any] | None:
    """A trial's flat parameters as a point of this space, or None if they are not one.

    Keys that the trial did not search had the base's values; keys that this space does not search must have them.

    Args:
        space: The space.
        base: The config that the space varies.
        flat: Flat dotted key -> value, as the trial ran.
    """
    ran = apply(base, flat)
    point = space.defaults(ran)
    if point is None:
        return None
    now = flatten(apply(base, point))
    return point if now == flatten(ran) else None


def in_space(space: Space, base: TrainConfig, flat: Mapping[str, Any]) -> bool:
    """Whether a trial of the space would run with just these flat parameters.

    Args:
        space: The space.
        base: The config that the space varies.
        flat: Flat dotted key -> value.
    """
    return point_in(space, base, flat) is not None


def record_params(study: optuna.Study, trial: optuna.trial.Trial, space: Space, flat: Mapping[str, Any]) -> None:
    """Stores parameters and their distributions on a running trial; those that it has already stay.

    Args:
        study: The trial's study.
        trial: A trial that is RUNNING.
        space: The space that `flat` is a point of.
        flat: Flat dotted keys and their values.

    Raises:
        KeyError, ValueError: `flat` is not a point of the space.
    """
    recorded = trial_of(study, trial.number).params
    for name, (value, distribution) in recordable(study.get_trials(deepcopy=False), space, flat).items():
        if name not in recorded:
            set_param(study, trial.number, name, value, distribution)
    refresh(trial)


def points_of(space: Space, flat: Mapping[str, Any]) -> Recorded:
    """A point as the space itself has it, whatever was recorded before.

    Raises:
        KeyError, ValueError: `flat` is not a point of the space.
    """
    domains = {node.name: node.domain for node in space.parameters()}
    return {name: (value, distribution_of(domains[name])) for name, value in space.to_params(flat).items()}


def recordable(trials: Sequence[FrozenTrial], space: Space, flat: Mapping[str, Any]) -> Recorded:
    """A point under the names and with the distributions that Optuna takes after those of `trials`.

    Args:
        trials: Trials recorded so far.
        space: The space that `flat` is a point of.
        flat: Flat dotted key -> value.

    Raises:
        KeyError, ValueError: `flat` is not a point of the space.
    """
    found = {}
    for name, (value, own) in points_of(space, flat).items():
        versioned, distribution = _recordable(trials, name, own)
        found[versioned] = (value, distribution)
    return found


def recorded_together(points: Sequence[Recorded], present: Recorded) -> list[Recorded]:
    """Gives all values of a parameter one distribution, which covers them and the present space.

    Where there is none such, later values get a versioned name, as `recordable` would have given them.

    Args:
        points: What each trial was recorded with, in order of their numbers; versions of names are put together.
        present: The parameters of the present space, whose values do not count.
    """
    versions: dict[str, list[BaseDistribution]] = {}
    places = [{name: _place(versions, name, own) for name, (_, own) in point.items()} for point in points]
    for name, (_, own) in present.items():
        if name in versions:
            _place(versions, name, own)
    found: list[Recorded] = []
    for point, place in zip(points, places, strict=True):
        found.append(
            {
                _versioned(_plain(name), place[name]): (value, versions[_plain(name)][place[name]])
                for name, (value, _) in point.items()
            }
        )
    return found


def _place(versions: dict[str, list[BaseDistribution]], name: str, own: BaseDistribution) -> int:
    """The version of a name whose distribution can be widened to cover another one; it is widened."""
    known = versions.setdefault(_plain(name), [])
    for index, distribution in enumerate(known):
        wide = covering(distribution, own)
        if wide is not None:
            known[index] = wide
            return index
    known.append(own)
    return len(known) - 1


def _plain(name: str) -> str:
    return name.partition("#")[0]


def _versioned(name: str, index: int) -> str:
    return name if index == 0 else f"{name}#{index + 1}"


def distribution_of(domain: Any) -> BaseDistribution:
    """The Optuna distribution of a domain of the space."""
    if isinstance(domain, Choice):
        return CategoricalDistribution([option.label for option in domain.options])
    if not isinstance(domain, Range):
        raise TypeError(f"{domain} is fixed, not searched")
    if domain.integer:
        return IntDistribution(int(domain.low), int(domain.high), step=int(domain.step or 1))
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def covering(a: BaseDistribution, b: BaseDistribution) -> BaseDistribution | None:
    """The narrowest distribution that holds the values of both; None where a choice of text meets a range.

    The order of `a`'s choices stays, so that what is stored as their index keeps its meaning.
    """
    if a == b:
        return a
    if isinstance(a, CategoricalDistribution) and isinstance(b, CategoricalDistribution):
        known = {(type(choice), choice) for choice in a.choices}
        new = [choice for choice in b.choices if (type(choice), choice) not in known]
        return CategoricalDistribution([*a.choices, *new])
    first, second = _as_range(a), _as_range(b)
    if first is None or second is None:
        return None
    low, high = min(first.low, second.low), max(first.high, second.high)
    log, step = first.log and second.log, _common_step(first, second)
    if isinstance(first, IntDistribution) and isinstance(second, IntDistribution):
        return IntDistribution(int(low), int(high), log=log, step=1 if log else int(step or 1))
    return FloatDistribution(float(low), float(high), log=log, step=None if log else step)


def _recordable(trials: Sequence[FrozenTrial], name: str, own: BaseDistribution) -> tuple[str, BaseDistribution]:
    """The first version of a name under which Optuna takes values of `own`, and the distribution to give with them."""
    versioned, version = name, 1
    while True:
        before = next((t.distributions[versioned] for t in reversed(trials) if versioned in t.distributions), None)
        if before is None:
            return versioned, own
        wide = covering(before, own)
        if wide is not None and (wide == before or _differ_in_bounds_alone(before, wide)):
            return versioned, wide
        version += 1
        versioned = f"{name}#{version}"


def _differ_in_bounds_alone(a: BaseDistribution, b: BaseDistribution) -> bool:
    """Whether Optuna takes both for one name: of ranges it compares kind and log."""
    return (
        isinstance(a, IntDistribution | FloatDistribution) and type(a) is type(b) and a.log == getattr(b, "log", None)
    )


def _as_range(distribution: BaseDistribution) -> IntDistribution | FloatDistribution | None:
    """A range, or the range of a choice that has nothing but numbers; None for any other choice."""
    if isinstance(distribution, IntDistribution | FloatDistribution):
        return distribution
    choices = distribution.choices if isinstance(distribution, CategoricalDistribution) else ()
    numbers = [choice for choice in choices if isinstance(choice, int | float) and not isinstance(choice, bool)]
    if len(numbers) < len(choices):
        return None
    if all(isinstance(number, int) for number in numbers):
        return IntDistribution(int(min(numbers)), int(max(numbers)))
    return FloatDistribution(float(min(numbers)), float(max(numbers)))


def _common_step(a: IntDistribution | FloatDistribution, b: IntDistribution | FloatDistribution) -> float | None:
    """The step of both, if one grid holds them both."""
    if a.step is None or a.step != b.step:
        return None
    offset = (a.low - b.low) / a.step
    return float(a.step) if math.isclose(offset, round(offset), abs_tol=1e-9) else None
