"""The lives of a run's trials, from its journal; what an earlier version's journal lacks comes from its study.

Reading them loads no Optuna where the journal says it all, and writes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from search.runs.journal import read_events
from search.runs.lives import LifeState, TrialLife, lives_of
from search.runs.paths import RunPaths

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

STATES: Mapping[str, LifeState] = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
    "WAITING": "waiting",
}
"""Optuna's name of a trial's state, and ours."""


def read_lives(paths: RunPaths) -> dict[int, TrialLife]:
    """Every trial of a run, by number and in order; none for a run that is not a search.

    Raises:
        RunError: The study is needed, and cannot be read.
    """
    lives = lives_of(read_events(paths.events))
    is_told = lives and all(life.params is not None or life.state != "running" for life in lives.values())
    if is_told or not paths.study.exists():
        return lives
    from search.study.storage import stored_trials

    return with_study(lives, stored_trials(paths.storage_url, paths.name))


def with_study(lives: Mapping[int, TrialLife], trials: Iterable["FrozenTrial"]) -> dict[int, TrialLife]:
    """Lives completed from the study; where both say something, the journal is right."""
    known = {trial.number: trial for trial in trials}
    numbers = sorted({*lives, *known})
    return {
        number: _with_trial(lives.get(number) or TrialLife(number), known[number]) if number in known else lives[number]
        for number in numbers
    }


def _with_trial(life: TrialLife, trial: "FrozenTrial") -> TrialLife:
    # Imported here: this brings Optuna, which lives that the journal tells do not need.
    from search.study.adoption import parent_of
    from search.study.observations import COST_ATTR, FAILURE_ATTR, ORIGIN_ATTR, PARAMS_ATTR, RAY_IDS_ATTR
    from search.study.optuna_internals import fixed_params

    attrs = trial.user_attrs
    if life.params is None:
        started = trial.datetime_start
        life = replace(
            life, params=attrs.get(PARAMS_ATTR), enqueued=fixed_params(trial), origin=str(attrs.get(ORIGIN_ATTR, "")),
            parent=parent_of(trial), ray_ids=tuple(attrs.get(RAY_IDS_ATTR, ())), stored_cost=attrs.get(COST_ATTR),
            began=None if started is None else started.timestamp(), state=STATES[trial.state.name],
        )  # fmt: skip
    if trial.state.is_finished() and life.ended is None:
        ended = trial.datetime_complete
        life = replace(
            life, state=STATES[trial.state.name], why=str(attrs.get(FAILURE_ATTR, "")),
            ended=None if ended is None else ended.timestamp(),
        )  # fmt: skip
    return life
