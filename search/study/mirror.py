"""`study.db` as a mirror of the journal: updated when a session starts, rebuilt from the journal where necessary.

It is rebuilt where the file is missing or damaged, where it disagrees with the journal, and where the space has
changed: Optuna does not allow changes to an ended trial, and the trials' distributions have to cover the new space.
"""

import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.errors import RunError
from search.runs.journal import EventLog, read_events
from search.runs.lives import LifeState, TrialLife, lives_of
from search.runs.paths import RunPaths
from search.study.adoption import adopt
from search.study.endings import Ending, end_trial, tell_end
from search.study.observations import (
    COST_ATTR,
    FAILURE_ATTR,
    MEMORY_CONSTRAINT,
    ORIGIN_ATTR,
    OUTSIDE_ATTR,
    PARAMS_ATTR,
    PARENT_ATTR,
    RAY_IDS_ATTR,
)
from search.study.optuna_internals import FIXED_PARAMS, set_attr, write_reports
from search.study.recording import Recorded, recorded_together
from search.study.spaces import Spaces
from search.study.storage import close_study, open_study
from segcore.objective import Objective

log = logging.getLogger("segsearch")

SPACE_ATTR = "space"
"""User attribute of the study: the space that its trials were last compared with."""
_STATES: Mapping[LifeState, TrialState] = {
    "waiting": TrialState.WAITING,
    "running": TrialState.RUNNING,
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def open_mirror(paths: RunPaths, spaces: Spaces, objective: Objective, events: EventLog) -> optuna.Study:
    """Opens a run's study, which then says of each trial's beginning what the journal says.

    Args:
        paths: The run.
        spaces: What it searches, and has searched.
        objective: What trials are judged by.
        events: The journal, which gets what only the study has.

    Raises:
        RunError: `study.db` is missing or damaged, and the journal, of an earlier version, cannot make up for it.
    """
    lives = lives_of(read_events(paths.events))
    can_rebuild = all(life.params is not None or life.has_ended or life.state == "waiting" for life in lives.values())
    _look_at(paths.study, lives, can_rebuild=can_rebuild)
    study = open_study(paths.storage_url, paths.name, mode=objective.mode, sampler=None)
    trials = study.get_trials(deepcopy=False)
    if adopt(trials, lives, events, objective):
        lives = lives_of(read_events(paths.events))
    if not trials and not lives:
        study.set_user_attr(SPACE_ATTR, spaces.text)
    elif study.user_attrs.get(SPACE_ATTR) != spaces.text or not _agree(trials, lives):
        attrs = {**study.user_attrs, SPACE_ATTR: spaces.text}
        close_study(study)
        _build(paths, templates(lives, trials, spaces, objective), attrs, objective)
        study = open_study(paths.storage_url, paths.name, mode=objective.mode, sampler=None)
    return study


def catch_up(
    study: optuna.Study, lives: Mapping[int, TrialLife], objective: Objective, events: EventLog
) -> list[FrozenTrial]:
    """After a stop, updates the study's running trials from the journal.

    The journal is written first, so it may have reports, a last epoch, a failure or an end that never reached the
    study. A trial whose last epoch is there is recorded as complete, one that failed as failed; any other continues
    from its checkpoint under its own number, or starts, if the stop came while it was given its parameters.

    Args:
        study: The study.
        lives: What the journal says.
        objective: What trials are judged by.
        events: The journal, for the ends that it does not have.

    Returns:
        The trials that have to continue.
    """
    unfinished = []
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        number, life = frozen.number, lives.get(frozen.number) or TrialLife(frozen.number)
        values = life.values(objective.metric)
        write_reports(study, {(number, epoch): value for epoch, value in values.items()})
        for key, value in _attrs(life, objective).items():
            if frozen.user_attrs.get(key) != value:
                set_attr(study, number, key, value)
        if life.has_ended:
            tell_end(study, number, values, objective, _ending(life))
        elif life.is_finished:
            end_trial(study, events, number, values, objective, finished=True)
        elif life.error is not None:
            end_trial(study, events, number, values, objective, failure=life.error.kind)
        else:
            unfinished.append(number)
    trials = study.get_trials(deepcopy=True)
    return [trials[number] for number in unfinished]


def end_outside(
    study: optuna.Study, unfinished: Sequence[FrozenTrial], objective: Objective, events: EventLog
) -> list[FrozenTrial]:
    """Ends the unfinished trials that the space no longer holds, at their last report, and returns the others.

    Args:
        study: The study.
        unfinished: Trials that have to continue.
        objective: What trials are judged by.
        events: The journal, which is written before the study.
    """
    outside = [trial for trial in unfinished if trial.user_attrs.get(OUTSIDE_ATTR)]
    for trial in outside:
        end_trial(study, events, trial.number, trial.intermediate_values, objective)
    return [trial for trial in unfinished if trial not in outside]


def templates(
    lives: Mapping[int, TrialLife], known: Sequence[FrozenTrial], spaces: Spaces, objective: Objective
) -> list[FrozenTrial]:
    """The study's trials as the journal has them, in order of their number, for `study.add_trial`.

    Args:
        lives: What the journal says.
        known: Trials of the study to rebuild, as far as it can be read: what other programs stored there stays.
        spaces: What the run searches, and has searched.
        objective: What trials are judged by.

    Returns:
        A trial for each number. One that neither has becomes a waiting trial, so that the others keep their numbers.
    """
    numbers = range(max([*lives, len(known) - 1], default=-1) + 1)
    before = {trial.number: trial for trial in known}
    points = [_point(lives.get(number), before.get(number), spaces) for number in numbers]
    recorded = recorded_together(points, spaces.own())
    return [
        _template(lives.get(number) or TrialLife(number, "waiting"), before.get(number), point, spaces, objective)
        for number, point in zip(numbers, recorded, strict=True)
    ]


def _template(
    life: TrialLife, before: FrozenTrial | None, point: Recorded, spaces: Spaces, objective: Objective
) -> FrozenTrial:
    state, why = _STATES[life.state], life.why
    if before is not None and life.params is None and not life.has_ended:
        state = before.state  # it was killed before it got its parameters
    attrs = {**(before.user_attrs if before else {}), **_attrs(life, objective)}
    attrs.pop(OUTSIDE_ATTR, None)
    if life.params is not None and not spaces.holds(life.params):
        attrs[OUTSIDE_ATTR] = True
    system_attrs = dict(before.system_attrs) if before else {}
    if life.enqueued is not None:
        system_attrs[FIXED_PARAMS] = life.enqueued
    values = {**(before.intermediate_values if before else {}), **life.values(objective.metric)}
    value = None
    if state == TrialState.COMPLETE:
        value = objective.best(values.values()) if values else before.value if before else None
        if value is None:
            state, why = TrialState.FAIL, "its reports are lost"
    if state == TrialState.FAIL and why:
        attrs[FAILURE_ATTR] = why
    trial = create_trial(
        state=state,
        value=value,
        params={name: value for name, (value, _) in point.items()},
        distributions={name: distribution for name, (_, distribution) in point.items()},
        user_attrs=attrs,
        system_attrs=system_attrs,
        intermediate_values=values,
    )
    if state.is_finished() and MEMORY_CONSTRAINT not in trial.constraints:
        trial.set_constraint(MEMORY_CONSTRAINT, _ending(life).constraint)
    if life.began is not None:
        trial.datetime_start = datetime.fromtimestamp(life.began)
    if life.ended is not None:
        trial.datetime_complete = datetime.fromtimestamp(life.ended)
    return trial


def _attrs(life: TrialLife, objective: Objective) -> dict[str, Any]:
    """User attributes of a trial, without those that its end and the space give it."""
    cost = life.cost(objective.second) if objective.second is not None else None
    found = {
        ORIGIN_ATTR: life.origin or None,
        PARAMS_ATTR: life.params,
        RAY_IDS_ATTR: list(life.ray_ids) or None,
        PARENT_ATTR: None if life.parent is None else list(life.parent),
        COST_ATTR: cost,
    }
    return {key: value for key, value in found.items() if value is not None}


def _point(life: TrialLife | None, before: FrozenTrial | None, spaces: Spaces) -> Recorded:
    if before is not None and before.params:
        return {name: (value, before.distributions[name]) for name, value in before.params.items()}
    return spaces.recorded(life.params) if life is not None and life.params is not None else {}


def _ending(life: TrialLife) -> Ending:
    return Ending(life.state, life.why) if life.state in ("pruned", "complete") else Ending("failed", life.why)


def _agree(trials: Iterable[FrozenTrial], lives: Mapping[int, TrialLife]) -> bool:
    """Whether the study has every trial of the journal, with its parameters, and ended those that ended alike."""
    known = {trial.number: trial for trial in trials}
    for number, life in lives.items():
        if number not in known:
            return False
        trial = known[number]
        if life.state == "waiting" or life.params is None:
            continue
        if trial.state == TrialState.WAITING or trial.user_attrs.get(PARAMS_ATTR) != life.params:
            return False
        if trial.state.is_finished() and trial.state != _STATES[life.state]:
            return False
    return True


def _look_at(study_file: Path, lives: Mapping[int, TrialLife], *, can_rebuild: bool) -> None:
    """Sets a damaged file aside and reports that; also reports a missing file if there were trials."""
    if not study_file.exists():
        if not can_rebuild:
            raise RunError(
                f"{study_file} is missing, and the journal beside it, of an earlier version, does not say what its "
                "trials ran with: put the file back"
            )
        if lives:
            log.info("%s is missing: it is built anew from the journal, with %d trials", study_file, len(lives))
        return
    damage = damage_of_study(study_file)
    if damage and can_rebuild:
        aside = _set_aside(study_file)
        log.warning(
            "%s is damaged (%s): it is kept as %s, and built anew from the journal, with %d trials",
            study_file, damage, aside.name, len(lives),
        )  # fmt: skip


def damage_of_study(study_file: Path) -> str | None:
    """What is wrong with a file of SQLite's; None for one that is whole, or that cannot be looked into now."""
    if not study_file.exists():
        return None
    try:
        with closing(sqlite3.connect(study_file)) as connection:
            (word,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        return None
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if word == "ok" else str(word).replace("\n", " ")


def _set_aside(study_file: Path) -> Path:
    count = 1
    while (aside := study_file.with_name(f"{study_file.name}.damaged-{count}")).exists():
        count += 1
    for suffix in ("", "-wal", "-shm"):
        part = study_file.with_name(study_file.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _build(paths: RunPaths, trials: Sequence[FrozenTrial], attrs: Mapping[str, Any], objective: Objective) -> None:
    """Builds the study in a temporary file, and then moves it into place; a stop in between leaves the old one."""
    beside = paths.study.with_name(f".{paths.study.name}.new")
    _delete(beside)
    study = open_study(f"sqlite:///{beside.resolve()}", paths.name, mode=objective.mode, sampler=None)
    for key, value in attrs.items():
        study.set_user_attr(key, value)
    for trial in trials:
        study.add_trial(trial)
    close_study(study)
    _delete(paths.study, "-wal", "-shm")  # a log of the old file would be read as one of the new
    beside.replace(paths.study)


def _delete(path: Path, *suffixes: str) -> None:
    for suffix in suffixes or ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
