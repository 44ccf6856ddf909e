"""What a run keeps of its trials' checkpoints: of an ended trial its best epoch, and all together within a budget.

Never deleted are the checkpoints of trials that have not ended, which are running, wait at a rung or will continue;
those of the best trial and, with a second metric, of the front; and what forks begin with. Trials that failed go first,
then the worst ones.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.experiment import Trial

from search.runs.journal import EventLog
from search.runs.paths import RunPaths
from search.runs.rows import TrialRow
from search.runs.trials import Trials
from search.study.lives import STATES
from search.study.observations import COST_ATTR
from search.study.optuna_internals import trial_of
from segcore.checkpoint.files import delete_checkpoint, drop_state, folder_bytes
from segcore.objective import Objective
from segcore.spec import RayResult, TrialReport, number_of

log = logging.getLogger("segsearch")

GIGABYTE = 1e9
_ENDED = ("complete", "pruned", "failed")


def drop_order(trials: Trials) -> list[int]:
    """The trials whose checkpoints may be deleted, in the order of deletion; never the best trial or the front."""
    ended = Trials([row for row in trials if row.state in _ENDED], trials.objective)
    kept = {row.number for row in (ended.best(), *ended.front()) if row is not None}
    return [row.number for row in reversed(ended.ranked()) if row.number not in kept]


class CheckpointBudget(tune.Callback):  # type: ignore[misc]
    """Deletes what ended trials no longer need, and drops checkpoints while their total size exceeds the budget.

    Sizes are taken from the run's folder when the session begins, from reports, and at a trial's end; a snapshot that
    shares its files with a checkpoint is counted as well.

    Args:
        paths: The run.
        study: Says which trials have ended, and what they are worth.
        events: The journal, which records each checkpoint before it is dropped.
        objective: What trials are compared by.
        limit_gb: The budget in gigabytes; None: no limit.
    """

    def __init__(
        self,
        paths: RunPaths,
        study: optuna.Study,
        events: EventLog,
        objective: Objective,
        *,
        limit_gb: float | None,
    ) -> None:
        self._paths = paths
        self._study = study
        self._events = events
        self._limit_gb = limit_gb
        self._objective = objective
        self._left: set[int] = set()
        self._open: set[int] = set()
        self._is_told = self._is_warned = False
        for path in paths.half_made_checkpoints():
            shutil.rmtree(path, ignore_errors=True)
        ended = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}
        self._sizes: dict[int, int] = {}
        for number, folders in paths.checkpoints().items():
            self._account(number, folders, has_ended=number in ended)
        self._kept_for_forks = self._fork_bytes()
        self._has_changed = True

    @property
    def num_bytes(self) -> int:
        """The size of all checkpoints in bytes."""
        return sum(self._sizes.values()) + self._kept_for_forks

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: RayResult, **info: Any
    ) -> None:
        """Takes the size of a trial's newest checkpoint from its report.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            result: Its report, with Ray's own bookkeeping.
            **info: Whatever else Ray passes; not used.
        """
        number, report = number_of(trial), TrialReport.from_ray(result)
        size = report.checkpoint_bytes if report else 0
        self._open.add(number)
        if size > self._sizes.get(number, 0):
            self._sizes[number] = size
            self._has_changed = True

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Deletes what is older than the newest checkpoint of a trial that has left its worker.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            **info: Whatever else Ray passes; not used.
        """
        number = number_of(trial)
        for older in self._paths.trial_checkpoints(number)[1:]:
            delete_checkpoint(older)
        self._left.add(number)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Notes a trial that failed or will continue; one that continues may need its second newest checkpoint.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            **info: Whatever else Ray passes; not used.
        """
        number = number_of(trial)
        for path in self._paths.half_made_checkpoints(number):
            shutil.rmtree(path, ignore_errors=True)
        self._left.add(number)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Deletes what ended trials no longer need, and enforces the budget; the study has their ends by now."""
        for number in self._left:
            state = trial_of(self._study, number).state
            self._account(number, self._paths.trial_checkpoints(number), has_ended=state.is_finished())
        if self._left:
            self._kept_for_forks = self._fork_bytes()
            self._has_changed = True
            self._left.clear()
        if self._has_changed:
            self._has_changed = False
            self._keep_to_budget()

    def settle(self) -> None:
        """Does the same at the end of the session, for trials whose end was recorded after they left, as at a rung."""
        self._left |= self._open
        self.on_step_end(0, [])
        self._events.close()

    def _account(self, number: int, folders: Sequence[Path], *, has_ended: bool) -> None:
        """Notes the size of a trial's checkpoints; of an ended trial, only the newest one's best epoch is kept."""
        (self._open.discard if has_ended else self._open.add)(number)
        if has_ended and folders:
            for older in folders[1:]:
                delete_checkpoint(older)
            drop_state(folders[0])
            folders = folders[:1]
        self._sizes[number] = folder_bytes(folders)

    def _keep_to_budget(self) -> None:
        if self._limit_gb is None or (excess := self.num_bytes - self._limit_gb * GIGABYTE) <= 0:
            return
        rows = [_row(trial, self._objective) for trial in self._study.get_trials(deepcopy=False)]
        for number in drop_order(Trials(rows, self._objective)):
            if excess <= 0:
                return
            if self._sizes.get(number, 0):
                self._drop(number)
                excess -= self._sizes.pop(number)
        if excess > 0 and not self._is_warned:
            self._is_warned = True
            log.warning(
                "the checkpoints that must be kept, of trials that continue and of the best, take %.2f GB, more than "
                "resources.checkpoints_gb=%g; the search continues, and needs that much space",
                self.num_bytes / GIGABYTE, self._limit_gb,
            )  # fmt: skip

    def _drop(self, number: int) -> None:
        if not self._is_told:
            self._is_told = True
            log.info("resources.checkpoints_gb=%g is reached: checkpoints of the worst trials go", self._limit_gb)
        self._events.dropped(number, self._sizes[number])
        for folder in self._paths.trial_checkpoints(number):
            delete_checkpoint(folder)

    def _fork_bytes(self) -> int:
        return folder_bytes(self._paths.fork_checkpoints())


def _row(trial: optuna.trial.FrozenTrial, objective: Objective) -> TrialRow:
    cost = trial.user_attrs.get(COST_ATTR) if objective.second else None
    return TrialRow(
        number=trial.number,
        state=STATES[trial.state.name],
        value=objective.best(trial.intermediate_values.values()),
        metrics={} if objective.second is None or cost is None else {objective.second: cost},
    )
