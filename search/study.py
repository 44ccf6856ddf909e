"""Ray Tune's searcher over a persistent Optuna study, told the truth about every trial.

Ray's own `OptunaSearch` tells a trial that ASHA stopped as complete, at its last low-epoch value. Here every report is
an intermediate value, a stopped trial is PRUNED, a failed one FAIL, and a complete one is told the value of its best
epoch. The study lives in the run's `study.db`; nothing about the search is kept only in memory, so a driver that was
killed is resumed from that file and the journal.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher
from sqlalchemy.exc import SQLAlchemyError

from search.errors import RunError
from search.events import epochs_by_trial
from search.population import Forks
from search.space import Space, apply
from segcore.config import TrainConfig

PARAMS_ATTR = "params"
"""User attribute of a trial: the searched dotted keys and the values that ran, as JSON."""
RAY_IDS_ATTR = "ray_trial_ids"
"""User attribute: Ray's ids of the trial, one a session that it ran in."""


def open_study(storage_url: str, name: str, *, mode: str, sampler: optuna.samplers.BaseSampler | None) -> optuna.Study:
    """Opens the run's study, or creates it.

    Raises:
        RunError: The file is no Optuna storage that this version can read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            storage=storage_url,
            study_name=name,
            direction="maximize" if mode == "max" else "minimize",
            sampler=sampler,
            load_if_exists=True,
        )
    except _UNREADABLE as error:
        raise _cannot_be_opened(storage_url, error) from error


_UNREADABLE = (RuntimeError, SQLAlchemyError, optuna.exceptions.StorageInternalError)


def _cannot_be_opened(storage_url: str, error: BaseException) -> RunError:
    cause = getattr(error, "orig", None) or error.__cause__ or error
    return RunError(f"{storage_url} cannot be opened as an Optuna study: {cause}")


def best_value(values: Sequence[float], mode: str) -> float:
    """The best of a trial's epochs."""
    return max(values) if mode == "max" else min(values)


class StudySearcher(Searcher):  # type: ignore[misc]
    """Suggests from the study, and tells it how each trial went.

    Args:
        study: The run's study.
        space: What is searched.
        spec_of: Makes a trial's spec for the trainable from its number and its config.
        base: The config that the searched keys are put into.
        metric: Key of the reports that is searched.
        mode: `max` or `min`.
        num_samples: Trials that the study shall hold in the end.
        requeue: Trials that were running when an earlier session ended; they go on first, under their number.
        forks: Enqueues the fork that is due, where the scheduler replaces trials by forks of others.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        spec_of: Callable[[int, TrainConfig], dict[str, Any]],
        *,
        base: TrainConfig,
        metric: str,
        mode: str,
        num_samples: int,
        requeue: Sequence[FrozenTrial] = (),
        forks: Forks | None = None,
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        self._study = study
        self._space = space
        self._spec_of = spec_of
        self._base = base
        self._num_samples = num_samples
        self._requeue = list(requeue)
        self._forks = forks
        self._numbers: dict[str, int] = {}
        self._values: dict[int, dict[int, float]] = {}
        self._num_trials = sum(trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False))

    def number_of(self, trial_id: str) -> int:
        """The study's number of a Ray trial."""
        return self._numbers[trial_id]

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The spec of the next trial, or `FINISHED`."""
        if self._requeue:
            frozen = self._requeue.pop(0)
            number = frozen.number
            self._values[number] = dict(frozen.intermediate_values)
            trial = optuna.trial.Trial(self._study, frozen._trial_id)
            params = frozen.user_attrs.get(PARAMS_ATTR) or self._space.suggest(trial)
            trial.set_user_attr(PARAMS_ATTR, dict(params))
            ray_ids = [*frozen.user_attrs.get(RAY_IDS_ATTR, []), trial_id]
        elif self._num_trials >= self._num_samples:
            return str(Searcher.FINISHED)
        else:
            trial = self._study.ask()
            params = self._space.suggest(trial)
            number = trial.number
            trial.set_user_attr(PARAMS_ATTR, dict(params))
            ray_ids = [trial_id]
            self._num_trials += 1
        trial.set_user_attr(RAY_IDS_ATTR, ray_ids)
        self._numbers[trial_id] = number
        return self._spec_of(number, apply(self._base, params))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Stores a report as an intermediate value."""
        number = self._numbers[trial_id]
        epoch, value = int(result["epoch"]), float(result[self.metric])
        seen = self._values.setdefault(number, {})
        if epoch not in seen:
            optuna.trial.Trial(self._study, self._storage_id(number)).report(value, step=epoch)
        seen[epoch] = value

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the study how the trial ended: COMPLETE, PRUNED by the scheduler, or FAIL."""
        number = self._numbers[trial_id]
        if result is not None and not error and "epoch" in result:
            self.on_trial_result(trial_id, result)
        finished = bool(result and result.get("finished"))
        tell_end(self._study, number, self._values.get(number, {}), finished=finished, error=error, mode=self.mode)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study's file is the state."""
        Path(checkpoint_path).write_text("the state is in study.db\n", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the study's file is the state."""

    def _storage_id(self, number: int) -> int:
        return self._study._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)


def tell_end(
    study: optuna.Study, number: int, values: Mapping[int, float], *, finished: bool, error: bool, mode: str
) -> None:
    """Tells a trial's end; a trial that has ended already keeps its state."""
    if error or not values:
        study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
    elif finished:
        study.tell(number, best_value(list(values.values()), mode), skip_if_finished=True)
    else:
        study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)


def reconcile(study: optuna.Study, events: list[dict[str, Any]], *, metric: str, mode: str) -> list[FrozenTrial]:
    """After a stop, brings the study up to the journal and returns the trials that have to go on.

    The journal is written first, so it may know of reports, and of a last epoch, that the study was never told. A trial
    whose last epoch is there is told complete; any other that is RUNNING goes on from its checkpoint under its own
    number, or starts, if the stop came while it was given its parameters.
    """
    journal = epochs_by_trial(events)
    to_requeue = []
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        rows = journal.get(frozen.number, {})
        trial = optuna.trial.Trial(study, frozen._trial_id)
        for epoch, row in rows.items():
            if epoch not in frozen.intermediate_values:
                trial.report(float(row["metrics"][metric]), step=epoch)
        values = {epoch: float(row["metrics"][metric]) for epoch, row in rows.items()}
        if any(row["metrics"].get("finished") for row in rows.values()):
            tell_end(study, frozen.number, values, finished=True, error=False, mode=mode)
            continue
        to_requeue.append(frozen.number)
    trials = study.get_trials(deepcopy=True)
    return [trials[number] for number in to_requeue]


def end_running(study: optuna.Study, *, mode: str) -> int:
    """Ends the trials that a time budget cut off: PRUNED at their last report, FAIL without one; returns how many."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for frozen in running:
        tell_end(study, frozen.number, frozen.intermediate_values, finished=False, error=False, mode=mode)
    return len(running)


def history_of(study: optuna.Study) -> dict[int, dict[int, float]]:
    """Epoch values of every trial that reported, for the scheduler's rungs."""
    return {
        trial.number: dict(trial.intermediate_values)
        for trial in study.get_trials(deepcopy=False)
        if trial.intermediate_values
    }


def stored_trials(storage_url: str, name: str) -> list[FrozenTrial]:
    """The trials of a run's study as they stand, in order of their number; none when it was never begun.

    Raises:
        RunError: The file is no Optuna storage that this version can read.
    """
    try:
        return optuna.load_study(storage=storage_url, study_name=name).get_trials(deepcopy=False)
    except KeyError:  # a process that died after it had made the file
        return []
    except _UNREADABLE as error:
        raise _cannot_be_opened(storage_url, error) from error


def sample_space(space: Space, count: int) -> list[dict[str, Any]]:
    """Random points of a space, the same ones each time; none for an empty space."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.suggest(study.ask()) for _ in range(count if space else 0)]
