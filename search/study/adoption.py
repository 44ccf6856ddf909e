"""Copies into the journal what only the study has: trials of an earlier version, and enqueued points.

An earlier version's journal says neither what trials ran with nor how they ended. Once a session has begun, the journal
says it, and the study can be built from it like that of any other run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.runs.events import Began, Ended, EndState, Enqueued, Epoch, Resumed
from search.runs.journal import EventLog
from search.runs.lives import TrialLife
from search.study.observations import COST_ATTR, FAILURE_ATTR, ORIGIN_ATTR, PARAMS_ATTR, PARENT_ATTR, RAY_IDS_ATTR
from search.study.optuna_internals import fixed_params
from segcore.objective import Objective

END_STATES: Mapping[TrialState, EndState] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def adopt(
    trials: Sequence[FrozenTrial], lives: Mapping[int, TrialLife], events: EventLog, objective: Objective
) -> bool:
    """Appends to the journal what it lacks of the study's trials; returns whether it lacked anything.

    Args:
        trials: The study's.
        lives: What the journal says of them.
        events: The journal.
        objective: Names the metrics that the study keeps.
    """
    found: list[Any] = []
    for trial in trials:
        life = lives.get(trial.number) or TrialLife(trial.number)
        if trial.state == TrialState.WAITING:
            if trial.number not in lives:
                params = fixed_params(trial)
                found += [] if params is None else [Enqueued(trial.number, 0.0, params, parent_of(trial))]
            continue
        found += _beginning(trial) if life.params is None else []
        found += _epochs(trial, life, objective)
        if trial.state in END_STATES and not life.has_ended:
            why = str(trial.user_attrs.get(FAILURE_ATTR, ""))
            found.append(Ended(trial.number, _seconds(trial.datetime_complete), END_STATES[trial.state], why))
    for event in found:
        events.append(event)
    return bool(found)


def parent_of(trial: FrozenTrial) -> tuple[int, int] | None:
    """Of a fork, the number and the epoch of the trial that it continues."""
    parent = trial.user_attrs.get(PARENT_ATTR)
    return None if parent is None else (int(parent[0]), int(parent[1]))


def _beginning(trial: FrozenTrial) -> list[Began | Resumed]:
    """How a trial began; empty for one that was killed before it got its parameters."""
    params = trial.user_attrs.get(PARAMS_ATTR)
    if params is None:
        return []
    time, (first, *more) = _seconds(trial.datetime_start), trial.user_attrs.get(RAY_IDS_ATTR) or [""]
    origin = str(trial.user_attrs.get(ORIGIN_ATTR, ""))
    began = Began(trial.number, time, dict(params), origin, first, parent_of(trial))
    return [began, *(Resumed(trial.number, time, ray_id) for ray_id in more)]


def _epochs(trial: FrozenTrial, life: TrialLife, objective: Objective) -> list[Epoch]:
    """Reports that the study has and the journal lost, as it may where the power failed."""
    time = _seconds(trial.datetime_complete or trial.datetime_start)
    lost = [(epoch, value) for epoch, value in sorted(trial.intermediate_values.items()) if epoch not in life.epochs]
    cost = trial.user_attrs.get(COST_ATTR)
    extra = {objective.second: cost} if objective.second is not None and cost is not None else {}
    return [Epoch(trial.number, epoch, time, {objective.metric: value, **extra}) for epoch, value in lost]


def _seconds(when: Any) -> float:
    return 0.0 if when is None else float(when.timestamp())
