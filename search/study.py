"""Ray Tune's searcher over a persistent Optuna study, told the truth about every trial.

Ray's own `OptunaSearch` tells a trial that ASHA stopped as complete, at its last low-epoch value. Here every report is
an intermediate value, a stopped trial is PRUNED, a failed one FAIL, and a complete one is told the value of its best
epoch. The study lives in the run's `study.db`; nothing about the search is kept only in memory, so a driver that was
killed is resumed from that file and the journal.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from search.events import epochs_by_trial, errors_by_trial
from search.failures import INTERRUPTED, OUT_OF_MEMORY, next_strikes
from search.observations import (
    COST_ATTR,
    FAILURE_ATTR,
    MEMORY_CONSTRAINT,
    ORIGIN_ATTR,
    PARAMS_ATTR,
    RAY_IDS_ATTR,
    Observation,
    costs_of,
    history_of,
    observations,
)
from search.population import Forks
from search.promotion import Promotions
from search.recording import record_params
from search.sampling.proposer import Proposer
from search.space import Space, apply
from search.storage import ReportBuffer, open_study, stored_trials, trial_id_of, write_reports
from segcore.config import TrainConfig

__all__ = [
    "COST_ATTR",
    "FAILURE_ATTR",
    "MEMORY_CONSTRAINT",
    "PARAMS_ATTR",
    "RAY_IDS_ATTR",
    "Observation",
    "StudySearcher",
    "best_value",
    "costs_of",
    "end_running",
    "history_of",
    "observations",
    "open_study",
    "reconcile",
    "stored_trials",
    "tell_end",
]


def best_value(values: Sequence[float], mode: str) -> float:
    """The best of a trial's epochs."""
    return max(values) if mode == "max" else min(values)


class StudySearcher(Searcher):  # type: ignore[misc]
    """Suggests from the study, and tells it how each trial went.

    Args:
        study: The run's study.
        space: What is searched.
        spec_of: Makes a trial's spec for the trainable from its number and its config.
        proposer: Chooses what new trials run with.
        base: The config that the searched keys are put into.
        metric: Key of the reports that is searched.
        mode: `max` or `min`.
        num_samples: Trials that the study shall hold in the end.
        requeue: Trials that were running when an earlier session ended; they go on first, under their number.
        promotions: Who waits at which rung, where trials wait rather than being stopped.
        forks: Enqueues the fork that is due, where the scheduler replaces trials by forks of others.
        second_metric: Key of the reports that is kept low beside the metric: a trial's first one is its cost.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        spec_of: Callable[[int, TrainConfig], dict[str, Any]],
        proposer: Proposer,
        *,
        base: TrainConfig,
        metric: str,
        mode: str,
        num_samples: int,
        requeue: Sequence[FrozenTrial] = (),
        promotions: Promotions | None = None,
        forks: Forks | None = None,
        second_metric: str | None = None,
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        self._study = study
        self._space = space
        self._spec_of = spec_of
        self._base = base
        self._num_samples = num_samples
        self._requeue = list(requeue)
        self._proposer = proposer
        self._promotions = promotions
        self._forks = forks
        self._second_metric = second_metric
        self._costs = costs_of(study)
        self._numbers: dict[str, int] = {}
        self._values: dict[int, dict[int, float]] = {}
        self._retries: dict[int, dict[str, int]] = {}
        self._live: set[str] = set()
        self._max_concurrent: float = math.inf
        self._reports = ReportBuffer(study)
        self._num_trials = sum(trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False))

    def number_of(self, trial_id: str) -> int:
        """The study's number of a Ray trial."""
        return self._numbers[trial_id]

    @property
    def live(self) -> frozenset[str]:
        """Ray's ids of the trials that were suggested and have not ended."""
        return frozenset(self._live)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Takes the limit over from Ray, whose own limiter forgets a trial only when it is told of its end."""
        self._max_concurrent = max_concurrent
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The spec of the next trial; None while all may yet go on, `FINISHED` when nothing is left to do."""
        if len(self._live) >= self._max_concurrent:
            return None
        self._reports.flush()
        trial = self._next()
        if trial is None:
            if self._live:
                return None  # a live one may lose its worker and come back, or let another one pass a rung
            self._end_waiting()
            return str(Searcher.FINISHED)
        number = trial.number
        ray_ids = trial.user_attrs.get(RAY_IDS_ATTR, [])
        trial.set_user_attr(RAY_IDS_ATTR, [*ray_ids, trial_id])
        self._numbers[trial_id] = number
        self._live.add(trial_id)
        params = trial.user_attrs[PARAMS_ATTR]
        return {**self._spec_of(number, apply(self._base, params)), **self._retries.get(number, {})}

    def is_waiting(self, number: int) -> bool:
        """Whether a trial that ended for Ray only waits at a rung."""
        return self._promotions is not None and number in self._promotions.waiting

    def _next(self) -> optuna.trial.Trial | None:
        """Who is trained next: one that was interrupted, one that may pass its rung, a new one; or nobody for now."""
        is_last_call = self._num_trials >= self._num_samples
        if self._requeue:
            trial = self._again(self._requeue.pop(0))
        elif (number := self._next_promoted(is_last_call)) is not None:
            trial = self._again(self._study._storage.get_trial(trial_id_of(self._study, number)))
        elif is_last_call:
            return None
        elif self._forks is not None and not self._forks.prepare(self._study):
            return None  # the population is full, or nobody has come far enough to be copied
        else:
            trial = self._study.ask()
            self._num_trials += 1
        if PARAMS_ATTR not in trial.user_attrs:
            self._give_params(trial)
        return trial

    def _next_promoted(self, is_last_call: bool) -> int | None:
        """Who may pass its rung, if anybody.

        Between the scheduler's word and a trial's end Ray may ask for the next trial: one that is still to end, whose
        last report is not in the study yet, is not the next.
        """
        if self._promotions is None:
            return None
        leaving = {self._numbers[trial_id] for trial_id in self._live}
        return self._promotions.next(is_last_call=is_last_call, leaving=leaving)

    def _again(self, frozen: FrozenTrial) -> optuna.trial.Trial:
        """A trial that goes on; a checkpoint of an epoch whose report never arrived is not to be used."""
        self._values[frozen.number] = dict(frozen.intermediate_values)
        retry = self._retries.setdefault(frozen.number, {"strikes": 0})
        retry["reached"] = max(frozen.intermediate_values, default=0)
        return optuna.trial.Trial(self._study, frozen._trial_id)

    def _give_params(self, trial: optuna.trial.Trial) -> None:
        """Decides what a new trial runs with, and records it; also of one that was killed while it was given them."""
        fixed = self._study._storage.get_trial(trial._trial_id).system_attrs.get("fixed_params")  # of a fork
        if fixed is not None:
            params, origin = self._space.from_params(fixed), "fork"
        else:
            params, origin = self._proposer.propose(trial.number)
        trial.set_user_attr(ORIGIN_ATTR, origin)
        trial.set_user_attr(PARAMS_ATTR, dict(params))
        record_params(self._study, trial, self._space, params)
        self._proposer.started(trial.number, params, origin)

    def _end_waiting(self) -> None:
        """No trial comes any more: those that still wait are told as what they are, stopped at a rung."""
        for number in sorted(self._promotions.waiting if self._promotions else ()):
            frozen = self._study._storage.get_trial(trial_id_of(self._study, number))  # of an earlier session, maybe
            tell_end(self._study, number, frozen.intermediate_values, mode=self.mode)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Takes a report; it is in the study within `storage.FLUSH_S` seconds, or at the trial's end."""
        number = self._numbers[trial_id]
        epoch, value = int(result["epoch"]), float(result[self.metric])
        self._values.setdefault(number, {})[epoch] = value
        if self._second_metric is not None and number not in self._costs:
            self._take_cost(number, result[self._second_metric])
        self._proposer.reported(number, epoch, value)
        self._reports.add(number, epoch, value)

    def _take_cost(self, number: int, cost: float) -> None:
        self._costs[number] = cost
        self._study._storage.set_trial_user_attr(trial_id_of(self._study, number), COST_ATTR, cost)
        self._proposer.cost(number, cost)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the study that a trial is COMPLETE, or was PRUNED by the scheduler.

        Of an error, Ray says no more here than that there was one: `fail` tells what it was.
        """
        if error or trial_id not in self._live:
            return
        if result is not None and "epoch" in result:
            self.on_trial_result(trial_id, result)
        number = self._end(trial_id)
        self._proposer.ended(number)
        if self.is_waiting(number):
            return
        values = self._values.get(number, {})
        tell_end(self._study, number, values, finished=bool(result and result.get("finished")), mode=self.mode)

    def fail(self, trial_id: str, kind: str) -> None:
        """Ends a trial that had an error of a kind of `search.failures`, or queues it to go on."""
        if trial_id not in self._live:
            return
        number = self._end(trial_id)
        values = self._values.get(number, {})
        if kind != INTERRUPTED:
            self._proposer.ended(number, failed=True)
            tell_end(self._study, number, values, failure=kind, mode=self.mode)
            return
        reached = max(values, default=0)
        strikes = next_strikes(self._retries.get(number, {}), reached)
        self._retries[number] = {"strikes": strikes, "reached": reached}
        self._requeue.append(self._study._storage.get_trial(trial_id_of(self._study, number)))

    def flush_if_due(self) -> None:
        """Writes collected reports to the study when it is time to."""
        self._reports.flush_if_due()

    def flush(self) -> None:
        """Writes collected reports to the study now."""
        self._reports.flush()

    def _end(self, trial_id: str) -> int:
        self._live.discard(trial_id)
        self._reports.flush()
        return self._numbers[trial_id]

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study's file is the state."""
        Path(checkpoint_path).write_text("the state is in study.db\n", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the study's file is the state."""


def tell_end(
    study: optuna.Study,
    number: int,
    values: Mapping[int, float],
    *,
    mode: str,
    finished: bool = False,
    failure: str | None = None,
) -> None:
    """Tells a trial's end; a trial that has ended already keeps its state.

    Args:
        study: The study.
        number: The trial's number.
        values: Its epochs' values; without any, or with one that is no number, it failed.
        mode: `max` or `min`.
        finished: It reported its last epoch.
        failure: The kind of its failure, if it failed.
    """
    trial_id = trial_id_of(study, number)
    if study._storage.get_trial(trial_id).state.is_finished():
        return
    if failure is None and not values:
        failure = "ended before its first report"
    elif failure is None and any(math.isnan(value) for value in values.values()):
        failure = "not a number"
    trial = optuna.trial.Trial(study, trial_id)
    if MEMORY_CONSTRAINT not in trial.constraints:
        trial.set_constraint(MEMORY_CONSTRAINT, 1.0 if failure == OUT_OF_MEMORY else -1.0)
    if failure is not None:
        trial.set_user_attr(FAILURE_ATTR, failure)
        study.tell(number, state=TrialState.FAIL)
    elif finished:
        study.tell(number, best_value(list(values.values()), mode))
    else:
        study.tell(number, state=TrialState.PRUNED)


def reconcile(
    study: optuna.Study, events: list[dict[str, Any]], *, metric: str, mode: str, second_metric: str | None = None
) -> list[FrozenTrial]:
    """After a stop, brings the study up to the journal and returns the trials that have to go on.

    The journal is written first, so it may know of reports, of a last epoch, and of a failure that the study was never
    told. A trial whose last epoch is there is told complete, one that failed is told so; any other that is RUNNING goes
    on from its checkpoint under its own number, or starts, if the stop came while it was given its parameters.
    """
    journal, errors = epochs_by_trial(events), errors_by_trial(events)
    to_requeue = []
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        rows = journal.get(frozen.number, {})
        values = {epoch: float(row["metrics"][metric]) for epoch, row in rows.items()}
        write_reports(study, {(frozen._trial_id, epoch): value for epoch, value in values.items()})
        if second_metric is not None and rows and COST_ATTR not in frozen.user_attrs:
            cost = rows[min(rows)]["metrics"][second_metric]
            study._storage.set_trial_user_attr(frozen._trial_id, COST_ATTR, cost)
        if any(row["metrics"].get("finished") for row in rows.values()):
            tell_end(study, frozen.number, values, finished=True, mode=mode)
        elif frozen.number in errors:
            tell_end(study, frozen.number, values, failure=errors[frozen.number]["kind"], mode=mode)
        else:
            to_requeue.append(frozen.number)
    trials = study.get_trials(deepcopy=True)
    return [trials[number] for number in to_requeue]


def end_running(study: optuna.Study, *, mode: str) -> int:
    """Ends the trials that a time budget cut off: PRUNED at their last report, FAIL without one; returns how many."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for frozen in running:
        tell_end(study, frozen.number, frozen.intermediate_values, mode=mode)
    return len(running)
