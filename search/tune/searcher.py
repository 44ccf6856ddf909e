"""Ray Tune's searcher over a persistent Optuna study that records how every trial really ended.

Ray's own `OptunaSearch` records a trial that ASHA stopped as complete, at its last low-epoch value. Here every report
is an intermediate value, a stopped trial is PRUNED, a failed one FAIL, and a complete one gets the value of its best
epoch. The study lives in the run's `study.db`; nothing about the search is kept only in memory, so a search whose
driver was killed resumes from that file and the journal.
"""

import math
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from search.runs.journal import INTERRUPTED, MOVED, NODE_AT_FAULT, RETRIED_ALONE, EventLog
from search.sampling.proposer import Proposer
from search.schedulers.forks import Forks
from search.schedulers.rungs import Promotions
from search.space.search import Search
from search.study.beginnings import begin_again, begin_trial
from search.study.endings import end_trial
from search.study.observations import ORIGIN_ATTR, PARAMS_ATTR, costs_of
from search.study.optuna_internals import trial_of
from search.study.storage import ReportBuffer
from search.tune.retries import Retries
from segcore.config import TrainConfig
from segcore.spec import RayResult, RaySpec, TrialReport, TrialSpec


class StudySearcher(Searcher):  # type: ignore[misc]
    """Suggests trials from the study, and records in it how each one went.

    Args:
        study: The run's study.
        search: What is searched, and how many trials the study is to hold in the end.
        spec_of: Makes a trial's spec for the trainable from its number and its config.
        proposer: Chooses what new trials run with.
        events: The journal, which records each beginning and end before the study does.
        retries: Which trials continue under their number, those that were running when an earlier session ended first.
        promotions: Which trials wait at which rung, for schedulers that pause trials instead of stopping them.
        forks: Enqueues the fork that is due, where the scheduler replaces trials by forks of others.
    """

    def __init__(
        self,
        study: optuna.Study,
        search: Search,
        spec_of: Callable[[int, TrainConfig], TrialSpec],
        proposer: Proposer,
        events: EventLog,
        *,
        retries: Retries[FrozenTrial] | None = None,
        promotions: Promotions | None = None,
        forks: Forks | None = None,
    ) -> None:
        super().__init__(metric=search.objective.metric, mode=search.objective.mode)
        self._search = search
        self._objective = search.objective
        self._study = study
        self._events = events
        self._spec_of = spec_of
        self._retries: Retries[FrozenTrial] = retries or Retries()
        self._proposer = proposer
        self._promotions = promotions
        self._forks = forks
        self._costs = costs_of(study)
        self._numbers: dict[str, int] = {}
        self._values: dict[int, dict[int, float]] = {}
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
        """Takes over the limit from Ray, whose own limiter counts a trial until it hears of its end."""
        self._max_concurrent = max_concurrent
        return True

    def suggest(self, trial_id: str) -> RaySpec | str | None:
        """The next trial's spec; None while live trials may still continue, `FINISHED` when nothing is left."""
        if len(self._live) >= self._max_concurrent:
            return None
        self._reports.flush()
        trial = self._next(trial_id)
        if trial is None:
            if self._live:
                return None  # a live one may lose its worker and come back, or let another one pass a rung
            self._end_waiting()
            return str(Searcher.FINISHED)
        number = trial.number
        self._numbers[trial_id] = number
        self._live.add(trial_id)
        params = trial.user_attrs[PARAMS_ATTR]
        return self._retries.told(self._spec_of(number, self._search.trained_with(params))).to_ray()

    def is_waiting(self, number: int) -> bool:
        """Whether a trial that ended for Ray only waits at a rung."""
        return self._promotions is not None and number in self._promotions.waiting

    def _next(self, trial_id: str) -> FrozenTrial | None:
        """Which trial comes next: an interrupted one, one that may pass its rung, a new one; or none for now.

        A trial that needs a whole GPU comes when none of these is left.
        """
        is_last_call = self._num_trials >= self._search.config.search.num_samples or self._is_used_up
        if (frozen := self._retries.next_shared()) is not None:
            return self._again(frozen, trial_id)
        if (number := self._next_promoted(is_last_call)) is not None:
            return self._again(self._frozen(number), trial_id)
        if not is_last_call and (self._forks is None or self._forks.prepare(self._study)):
            self._num_trials += 1
            return self._started(
                begin_trial(self._study, self._events, self._search.space, self._proposer.propose, trial_id)
            )
        if (frozen := self._retries.next_alone()) is not None:
            return self._again(frozen, trial_id)
        return None  # of forks: the population is full, or no trial has come far enough to be copied

    @property
    def _is_used_up(self) -> bool:
        """Whether no point is left for a new trial; forks of others need none."""
        return self._forks is None and self._proposer.is_used_up

    def _frozen(self, number: int) -> FrozenTrial:
        return trial_of(self._study, number)

    def _next_promoted(self, is_last_call: bool) -> int | None:
        """The trial that may pass its rung, if any.

        Ray may ask for the next trial between the scheduler's decision and a trial's end: a trial that has yet to end,
        whose last report is not in the study, is passed over.
        """
        if self._promotions is None:
            return None
        leaving = {self._numbers[trial_id] for trial_id in self._live}
        return self._promotions.next(is_last_call=is_last_call, leaving=leaving)

    def _again(self, frozen: FrozenTrial, trial_id: str) -> FrozenTrial:
        """A trial that continues."""
        number = frozen.number
        self._values[number] = dict(frozen.intermediate_values)
        self._retries.begin(frozen)
        trial = begin_again(self._study, self._events, self._search.space, self._proposer.propose, number, trial_id)
        return trial if PARAMS_ATTR in frozen.user_attrs else self._started(trial)

    def _started(self, trial: FrozenTrial) -> FrozenTrial:
        attrs = trial.user_attrs
        self._proposer.started(trial.number, attrs[PARAMS_ATTR], attrs[ORIGIN_ATTR])
        return trial

    def _end_waiting(self) -> None:
        """Records the trials that still wait as stopped at a rung, because no further trial comes."""
        for number in sorted(self._promotions.waiting if self._promotions else ()):
            frozen = trial_of(self._study, number)  # of an earlier session, maybe
            end_trial(self._study, self._events, number, frozen.intermediate_values, self._objective)

    def on_trial_result(self, trial_id: str, result: RayResult) -> None:
        """Takes a report; it reaches the study within `storage.FLUSH_S` seconds, or at the trial's end."""
        report = TrialReport.from_ray(result)
        if report is not None:
            self._take(self._numbers[trial_id], report)

    def _take(self, number: int, report: TrialReport) -> None:
        value = float(report.metrics[self._objective.metric])
        self._values.setdefault(number, {})[report.epoch] = value
        if self._objective.second is not None and number not in self._costs:
            self._take_cost(number, report.metrics[self._objective.second])
        self._proposer.reported(number, report.epoch, value)
        self._reports.add(number, report.epoch, value)

    def _take_cost(self, number: int, cost: float) -> None:
        self._costs[number] = cost
        self._reports.add_cost(number, cost)
        self._proposer.cost(number, cost)

    def on_trial_complete(self, trial_id: str, result: RayResult | None = None, error: bool = False) -> None:
        """Records in the study that a trial is COMPLETE, or was PRUNED by the scheduler.

        Of an error, Ray only says here that there was one; `fail` gets its kind.

        Args:
            trial_id: Ray's id of the trial.
            result: Its last report; None if it never reported.
            error: Whether it ended with an error.
        """
        if error or trial_id not in self._live:
            return
        report = TrialReport.from_ray(result)
        if report is not None:
            self._take(self._numbers[trial_id], report)
        number = self._end(trial_id)
        self._proposer.ended(number)
        if self.is_waiting(number):
            return
        values = self._values.get(number, {})
        finished = report is not None and report.finished
        end_trial(self._study, self._events, number, values, self._objective, finished=finished)

    def fail(self, trial_id: str, kind: str, node: str = "") -> None:
        """Ends a trial after an error, or queues it to continue.

        Args:
            trial_id: Ray's id of the trial.
            kind: One of those of `search.tune.failures`.
            node: Ray's id of the node that it ran on.
        """
        if trial_id not in self._live:
            return
        number = self._end(trial_id)
        values = self._values.get(number, {})
        if kind == INTERRUPTED:
            self._retries.lost_worker(self._frozen(number), max(values, default=0))
        elif kind == MOVED:
            self._retries.moved(self._frozen(number), max(values, default=0), node)
        elif kind == RETRIED_ALONE:
            self._retries.out_of_memory(self._frozen(number))
        else:
            self._proposer.ended(number, failed=kind != NODE_AT_FAULT)
            end_trial(self._study, self._events, number, values, self._objective, failure=kind)

    def flush_if_due(self) -> None:
        """Writes collected reports to the study when `storage.FLUSH_S` has passed."""
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
