"""How trials begin: with a number and parameters, in the journal first and then in the study, whole in one transaction.

Optuna's own `ask` and `suggest` are a transaction for the trial and one for each parameter and attribute.
"""

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.runs.journal import EventLog
from search.space.tree import Space
from search.study.adoption import parent_of
from search.study.observations import ORIGIN_ATTR, PARAMS_ATTR, RAY_IDS_ATTR
from search.study.optuna_internals import fixed_params, handle_of, set_attr, trial_of
from search.study.recording import record_params, recordable
from segcore.params import Params

Propose = Callable[[int], tuple[Mapping[str, Any], str]]
"""From a trial's number to what it runs with, and who proposed it."""


def begin_trial(study: optuna.Study, events: EventLog, space: Space, propose: Propose, ray_id: str) -> FrozenTrial:
    """Begins the trial that waits in the study, or a new one.

    Args:
        study: The study.
        events: The journal, which is written before the study.
        space: What is searched.
        propose: Chooses the parameters of a trial that was not enqueued with any.
        ray_id: Ray's id of the attempt.

    Returns:
        The trial, which is running, with its parameters among its attributes.
    """
    trials = study.get_trials(deepcopy=False)
    waiting = next((trial for trial in trials if trial.state == TrialState.WAITING), None)
    if waiting is not None:
        params, origin = _give(events, waiting, space, propose, ray_id)
        study.ask()  # gives the first that waits
        _note(study, waiting.number, space, params, origin, ray_id)
        return trial_of(study, waiting.number)
    number = len(trials)
    proposed, origin = propose(number)
    params = dict(proposed)
    events.began(number, params, origin, ray_id=ray_id)
    point = recordable(trials, space, params)
    study.add_trial(
        create_trial(
            state=TrialState.RUNNING,
            params={name: value for name, (value, _) in point.items()},
            distributions={name: distribution for name, (_, distribution) in point.items()},
            user_attrs={ORIGIN_ATTR: origin, PARAMS_ATTR: params, RAY_IDS_ATTR: [ray_id]},
        )
    )
    return trial_of(study, number)


def begin_again(
    study: optuna.Study, events: EventLog, space: Space, propose: Propose, number: int, ray_id: str
) -> FrozenTrial:
    """Gives a trial that has begun another attempt; one that was killed before it got its parameters gets them now.

    Args:
        study: The study.
        events: The journal, which is written before the study.
        space: What is searched.
        propose: Chooses the parameters of a trial that has none yet.
        number: The trial's number.
        ray_id: Ray's id of the attempt.

    Returns:
        The trial, with its parameters among its attributes.
    """
    trial = trial_of(study, number)
    if PARAMS_ATTR in trial.user_attrs:
        events.resumed(number, ray_id)
        set_attr(study, number, RAY_IDS_ATTR, [*trial.user_attrs.get(RAY_IDS_ATTR, []), ray_id])
    else:
        params, origin = _give(events, trial, space, propose, ray_id)
        _note(study, number, space, params, origin, ray_id)
    return trial_of(study, number)


def _give(events: EventLog, trial: FrozenTrial, space: Space, propose: Propose, ray_id: str) -> tuple[Params, str]:
    """Decides the parameters of a trial that is in the study already, and writes them to the journal."""
    fixed = fixed_params(trial)  # of a fork
    params, origin = propose(trial.number) if fixed is None else (space.from_params(fixed), "fork")
    events.began(trial.number, dict(params), origin, ray_id=ray_id, parent=parent_of(trial))
    return dict(params), origin


def _note(study: optuna.Study, number: int, space: Space, params: Params, origin: str, ray_id: str) -> None:
    for key, value in ((ORIGIN_ATTR, origin), (PARAMS_ATTR, params), (RAY_IDS_ATTR, [ray_id])):
        set_attr(study, number, key, value)
    record_params(study, handle_of(study, number), space, params)
