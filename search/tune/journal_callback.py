"""The driver-side callback that writes the run's journal, then updates the study; it runs before any other callback."""

import logging
import time
from typing import Any, Protocol

from ray.tune import Callback
from ray.tune.experiment import Trial

from search.errors import DiskError
from search.runs.journal import DISK, INTERRUPTED, MOVED, NODE_AT_FAULT, RETRIED_ALONE, EventLog
from search.tune.cluster.nodes import NodesOfTrials
from search.tune.failures import describe_failure
from segcore.spec import RayResult, TrialReport, mark_waiting, number_of

log = logging.getLogger("segsearch")

SWEEP_S = 1.0


class Told(Protocol):
    """The part of the searcher that the journal callback calls."""

    @property
    def live(self) -> frozenset[str]: ...  # noqa: D102

    def is_waiting(self, number: int) -> bool: ...  # noqa: D102

    def fail(self, trial_id: str, kind: str, node: str = "") -> None:
        """Ends a trial after an error, or queues it to continue.

        Args:
            trial_id: Ray's id of the trial.
            kind: One of those of `search.tune.failures`.
            node: Ray's id of the node that it ran on.
        """

    def flush_if_due(self) -> None: ...  # noqa: D102


class JournalCallback(Callback):  # type: ignore[misc]
    """Appends each report, failure and interruption to the journal, and passes a trial's failure to the searcher.

    Ray only tells a searcher that there was an error; a callback gets the trial with its error file.
    """

    def __init__(self, log: EventLog, searcher: Told) -> None:
        self._log = log
        self._searcher = searcher
        self._nodes = NodesOfTrials()
        self._swept = time.monotonic()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Records on which node an attempt starts.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            **info: Whatever else Ray passes; not used.
        """
        node = self._nodes.placed(trial)
        if node is not None:
            self._log.placed(number_of(trial), node.id, node.address, node.host)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: RayResult, **info: Any
    ) -> None:
        """Records an epoch without Ray's bookkeeping; before the first one, what was read back of the trial.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            result: Its report, with Ray's own bookkeeping.
            **info: Whatever else Ray passes; not used.
        """
        report = TrialReport.from_ray(result)
        if report is None:
            return
        best = {} if report.best_epoch is None else {"best_epoch": report.best_epoch}
        if report.applied is not None:
            self._log.applied(report.number, dict(report.applied), dict(report.machine or {}))
        self._log.epoch(report.number, report.epoch, {**report.metrics, **best, "finished": report.finished})
        if report.note:
            log.info("trial %d: %s", report.number, report.note)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Marks the last result of a trial that only waits at a rung, for the callbacks that come after this one.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            **info: Whatever else Ray passes; not used.
        """
        if self._searcher.is_waiting(number_of(trial)):
            mark_waiting(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Records why a trial failed, or that it continues: its worker died, its share was small, its node broken.

        Where a disk is full or at fault, nothing is recorded and the session ends: the other trials would meet the
        same, and each goes on from its checkpoint when there is room.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            **info: Whatever else Ray passes; not used.

        Raises:
            DiskError: With what the trial said.
        """
        kind, message = describe_failure(trial)
        if kind == DISK:
            raise DiskError(f"trial {number_of(trial)}: {message}")
        last = TrialReport.last_of(trial)
        number, epoch = number_of(trial), last.epoch if last else 0
        node = self._nodes.node_of(trial)
        node_id = "" if node is None else node.id
        if kind == INTERRUPTED:
            self._log.interrupted(number, epoch, message)
        elif kind == RETRIED_ALONE:
            self._log.retried(number, epoch, message)
        elif kind == MOVED:
            self._log.moved(number, epoch, node_id, message)
        else:
            where = f" (on node {node})" if kind == NODE_AT_FAULT and node is not None else ""
            self._log.error(number, kind, message + where)
        if kind in (MOVED, NODE_AT_FAULT) and node is not None:
            then = "it goes on elsewhere" if kind == MOVED else "there is no other node to try"
            log.warning("trial %d failed through node %s, and %s: %s", number, node, then, message)
        self._searcher.fail(trial.trial_id, kind, node_id)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Lets the study write its reports, and looks for trials that Ray ended with an error without a callback.

        Ray does that when a worker could not be prepared for its next trial in time.
        """
        self._searcher.flush_if_due()
        if time.monotonic() - self._swept < SWEEP_S:
            return
        self._swept = time.monotonic()
        missing = set(self._searcher.live)
        for trial in reversed(trials):
            if not missing:
                return
            if trial.trial_id in missing:
                missing.remove(trial.trial_id)
                if trial.status == Trial.ERROR:
                    self.on_trial_error(iteration, trials, trial)
