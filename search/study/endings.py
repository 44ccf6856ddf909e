"""How trials end: recorded once, in the journal first and then in the study."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from search.runs.events import EndState
from search.runs.journal import OUT_OF_MEMORY, EventLog
from search.study.observations import FAILURE_ATTR, MEMORY_CONSTRAINT
from search.study.optuna_internals import handle_of, trial_of
from segcore.objective import Objective


@dataclass(frozen=True)
class Ending:
    """How a trial ended: its state, and of one that failed, the kind of its failure."""

    state: EndState
    why: str = ""

    @classmethod
    def of(cls, values: Mapping[int, float], *, finished: bool = False, failure: str | None = None) -> "Ending":
        """Judges a trial by what it reported.

        Args:
            values: Its epochs' values; without any, or with one that is not a number, it failed.
            finished: It reported its last epoch.
            failure: The kind of its failure, if it failed.
        """
        if failure is None and not values:
            failure = "ended before its first report"
        elif failure is None and any(math.isnan(value) for value in values.values()):
            failure = "not a number"
        if failure is not None:
            return cls("failed", failure)
        return cls("complete" if finished else "pruned")

    @property
    def constraint(self) -> float:
        """The value of `MEMORY_CONSTRAINT`."""
        return 1.0 if self.why == OUT_OF_MEMORY else -1.0


def end_trial(
    study: optuna.Study,
    events: EventLog,
    number: int,
    values: Mapping[int, float],
    objective: Objective,
    *,
    finished: bool = False,
    failure: str | None = None,
) -> None:
    """Ends a trial; one that has ended already keeps its state.

    Args:
        study: The study.
        events: The journal, which is written before the study.
        number: The trial's number.
        values: Its epochs' values.
        objective: Says which of its epochs is the best.
        finished: It reported its last epoch.
        failure: The kind of its failure, if it failed.
    """
    if trial_of(study, number).state.is_finished():
        return
    ending = Ending.of(values, finished=finished, failure=failure)
    events.ended(number, ending.state, ending.why)
    tell_end(study, number, values, objective, ending)


def tell_end(
    study: optuna.Study, number: int, values: Mapping[int, float], objective: Objective, ending: Ending
) -> None:
    """Records in the study an end that the journal has.

    Args:
        study: The study, in which the trial is running.
        number: The trial's number.
        values: Its epochs' values.
        objective: Says which of its epochs is the best.
        ending: How it ended.
    """
    trial = handle_of(study, number)
    if MEMORY_CONSTRAINT not in trial.constraints:
        trial.set_constraint(MEMORY_CONSTRAINT, ending.constraint)
    if ending.state == "failed":
        trial.set_user_attr(FAILURE_ATTR, ending.why)
        study.tell(number, state=TrialState.FAIL)
    elif ending.state == "complete":
        study.tell(number, objective.best(values.values()))
    else:
        study.tell(number, state=TrialState.PRUNED)


def end_running(study: optuna.Study, events: EventLog, objective: Objective) -> list[int]:
    """Ends the trials that a rule cut off: PRUNED at their last report, FAIL without one; returns their numbers.

    Args:
        study: The study.
        events: The journal, which is written before the study.
        objective: Says which epoch of a trial is the best.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for frozen in running:
        end_trial(study, events, frozen.number, frozen.intermediate_values, objective)
    return [frozen.number for frozen in running]
