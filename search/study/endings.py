"""How trials end in the study: told once, as what they were; and what a stop left untold, told from the journal."""

import math
from collections.abc import Mapping, Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.runs.events import Event
from search.runs.journal import OUT_OF_MEMORY, epochs_by_trial, errors_by_trial, is_finished
from search.study.observations import COST_ATTR, FAILURE_ATTR, MEMORY_CONSTRAINT
from search.study.optuna_internals import handle_of, set_attr, trial_of, write_reports
from segcore.objective import Objective


def tell_end(
    study: optuna.Study,
    number: int,
    values: Mapping[int, float],
    objective: Objective,
    *,
    finished: bool = False,
    failure: str | None = None,
) -> None:
    """Tells a trial's end; a trial that has ended already keeps its state.

    Args:
        study: The study.
        number: The trial's number.
        values: Its epochs' values; without any, or with one that is no number, it failed.
        objective: Says which of its epochs is the best.
        finished: It reported its last epoch.
        failure: The kind of its failure, if it failed.
    """
    if trial_of(study, number).state.is_finished():
        return
    if failure is None and not values:
        failure = "ended before its first report"
    elif failure is None and any(math.isnan(value) for value in values.values()):
        failure = "not a number"
    trial = handle_of(study, number)
    if MEMORY_CONSTRAINT not in trial.constraints:
        trial.set_constraint(MEMORY_CONSTRAINT, 1.0 if failure == OUT_OF_MEMORY else -1.0)
    if failure is not None:
        trial.set_user_attr(FAILURE_ATTR, failure)
        study.tell(number, state=TrialState.FAIL)
    elif finished:
        study.tell(number, objective.best(values.values()))
    else:
        study.tell(number, state=TrialState.PRUNED)


def reconcile(study: optuna.Study, events: Sequence[Event], objective: Objective) -> list[FrozenTrial]:
    """After a stop, brings the study up to the journal and returns the trials that have to go on.

    The journal is written first, so it may know of reports, of a last epoch, and of a failure that the study was never
    told. A trial whose last epoch is there is told complete, one that failed is told so; any other that is RUNNING goes
    on from its checkpoint under its own number, or starts, if the stop came while it was given its parameters.
    """
    journal, errors = epochs_by_trial(events), errors_by_trial(events)
    to_requeue = []
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        rows = journal.get(frozen.number, {})
        values = {epoch: float(row.metrics[objective.metric]) for epoch, row in rows.items()}
        write_reports(study, {(frozen.number, epoch): value for epoch, value in values.items()})
        if objective.second is not None and rows and COST_ATTR not in frozen.user_attrs:
            cost = rows[min(rows)].metrics[objective.second]
            set_attr(study, frozen.number, COST_ATTR, cost)
        if is_finished(rows):
            tell_end(study, frozen.number, values, objective, finished=True)
        elif frozen.number in errors:
            tell_end(study, frozen.number, values, objective, failure=errors[frozen.number].kind)
        else:
            to_requeue.append(frozen.number)
    trials = study.get_trials(deepcopy=True)
    return [trials[number] for number in to_requeue]


def end_running(study: optuna.Study, objective: Objective) -> int:
    """Ends the trials that a time budget cut off: PRUNED at their last report, FAIL without one; returns how many."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for frozen in running:
        tell_end(study, frozen.number, frozen.intermediate_values, objective)
    return len(running)
