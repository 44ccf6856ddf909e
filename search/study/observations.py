"""What the study holds of its trials, as plain records; nothing here writes."""

from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from search.runs.journal import NODE_AT_FAULT

PARAMS_ATTR = "params"
"""User attribute of a trial: the searched dotted keys and the values that ran, as JSON."""
RAY_IDS_ATTR = "ray_trial_ids"
"""User attribute: Ray's ids of the trial, one per attempt."""
ORIGIN_ATTR = "origin"
"""User attribute: who proposed the trial: config, enqueued, start, prior, fork, or a sampler's name."""
PARENT_ATTR = "parent"
"""User attribute of a fork: `[number, epoch]`, the trial and the epoch that it continues."""
OUTSIDE_ATTR = "outside_space"
"""User attribute, true for a trial whose point the run's present space does not hold; absent for the others."""
COST_ATTR = "second_metric"
"""User attribute: the trial's value of `search.second_metric`.

It is not a second objective of the study: Optuna takes no intermediate values from a trial of several objectives
(`Trial.report is not supported for multi-objective optimization`), and those are what trials are stopped by.
"""
FAILURE_ATTR = "failure"
"""User attribute of a failed trial: the kind of its failure, as in the journal."""
MEMORY_CONSTRAINT = "out_of_memory"
"""Optuna's constraint on every trial that ended: 1 when it ran out of memory, else -1, which is feasible."""


@dataclass(frozen=True)
class Observation:
    """What the study knows of one trial, for proposing the next one.

    `params` are the searched dotted keys that ran; `values` maps epochs to the searched metric; `cost` is the trial's
    value of the second metric, where the search has one and the trial has reported; `is_nodes_fault` says that its
    settings are not why it failed.
    """

    number: int
    params: dict[str, Any]
    values: dict[int, float]
    state: TrialState
    out_of_memory: bool
    origin: str
    cost: float | None = None
    is_nodes_fault: bool = False


def observations(study: optuna.Study) -> list[Observation]:
    """All trials that got their parameters, in order of their number; nothing is written."""
    return [
        Observation(
            number=trial.number,
            params=dict(trial.user_attrs[PARAMS_ATTR]),
            values=dict(trial.intermediate_values),
            state=trial.state,
            out_of_memory=trial.constraints.get(MEMORY_CONSTRAINT, -1.0) > 0,
            origin=str(trial.user_attrs.get(ORIGIN_ATTR, "")),
            cost=trial.user_attrs.get(COST_ATTR),
            is_nodes_fault=trial.user_attrs.get(FAILURE_ATTR) == NODE_AT_FAULT,
        )
        for trial in study.get_trials(deepcopy=False)
        if PARAMS_ATTR in trial.user_attrs
    ]


def curves_of(study: optuna.Study) -> dict[int, dict[int, float]]:
    """Epoch values of every trial that reported, for the scheduler's rungs."""
    return {
        trial.number: dict(trial.intermediate_values)
        for trial in study.get_trials(deepcopy=False)
        if trial.intermediate_values
    }


def costs_of(study: optuna.Study) -> dict[int, float]:
    """The second metric of every trial that has one."""
    trials = study.get_trials(deepcopy=False)
    return {trial.number: float(trial.user_attrs[COST_ATTR]) for trial in trials if COST_ATTR in trial.user_attrs}
