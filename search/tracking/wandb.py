"""Tracks trials with Weights & Biases from the driver: one wandb run per trial, grouped by the search.

Trials themselves know nothing of it, so it costs them nothing, and a dead server cannot reach them.
"""

import logging
import math
import re
from collections.abc import Callable, Mapping
from functools import wraps
from numbers import Real
from pathlib import Path
from typing import Any, ParamSpec

from ray.tune import Callback
from ray.tune.experiment import Trial

from search import secrets
from search.config.choices import secret_variables
from search.runs.journal import GOES_ON
from search.runs.paths import RunPaths
from search.tracking.wandb_log import RunLog
from search.tracking.wandb_run import Destination, Ending
from search.tune.failures import describe_failure
from segcore.objective import Objective
from segcore.spec import RayResult, TrialReport, TrialSpec, number_of

log = logging.getLogger("segsearch")

P = ParamSpec("P")


METRICS_WITHOUT_SLASH = ("lr",)
_SECRET_NAME = re.compile(r"(token|secret|passw|api_?key|credential)", re.IGNORECASE)

STATE_COMPLETE, STATE_PRUNED, STATE_FAIL, STATE_INTERRUPTED = "COMPLETE", "PRUNED", "FAIL", "INTERRUPTED"
EXIT_CODES = {STATE_COMPLETE: 0, STATE_PRUNED: 0, STATE_FAIL: 1, STATE_INTERRUPTED: 130}


def trial_config(trial: Trial) -> Mapping[str, object]:
    """What the run page shows as config: the trial's number and the whole `TrainConfig`."""
    spec = TrialSpec.from_ray(trial.config)
    return {"trial": spec.number, **spec.train.model_dump(mode="json")}


def trial_key(trial: Trial) -> str:
    """What names a trial across sessions: its number."""
    return f"{number_of(trial):05d}"


def never_raises(hook: Callable[P, None]) -> Callable[P, None]:
    """Keeps an error of tracking out of the search: it is logged, and the trial continues."""

    @wraps(hook)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            hook(*args, **kwargs)
        except Exception as error:
            log.warning("W&B tracking left something out (%s): %s", hook.__name__, redact(repr(error)))

    return guarded


class WandbCallback(Callback):  # type: ignore[misc]
    """Logs each epoch, and at a trial's end its state, best epoch, threshold curve and overlays.

    Nothing here waits for a server or raises: see `search.tracking.wandb_log`.

    Args:
        to: Where the runs go.
        objective: What decides the best epoch and the best trial.
        config_of: What to show as a trial's config. Values that look like secrets are left out.
        run_id_of: A trial's name across sessions; with the run's folder it makes the run's id.
        checkpoints: Whose checkpoints the trials write; default: the run's.
    """

    def __init__(
        self,
        to: Destination,
        objective: Objective,
        *,
        config_of: Callable[[Trial], Mapping[str, object]] = trial_config,
        run_id_of: Callable[[Trial], str] = trial_key,
        checkpoints: RunPaths | None = None,
    ) -> None:
        self._destination = to
        self._objective = objective
        self._config_of, self._run_id_of = config_of, run_id_of
        self._checkpoints = checkpoints or RunPaths(to.run_dir)
        self._open: dict[str, str] = {}
        self._waiting: dict[str, Trial] = {}
        self._best: dict[str, tuple[float, dict[str, float]]] = {}
        self._best_of_run = -math.inf
        self._log: RunLog | None = None

    def __getstate__(self) -> dict[str, object]:
        """Ray pickles its callbacks; threads stay here."""
        return {**self.__dict__, "_log": None, "_open": {}, "_waiting": {}}

    @never_raises
    def setup(self, *args: Any, **info: Any) -> None:
        """Starts the background thread, which finds out whether the server answers while the search begins."""
        if self._destination.mode != "disabled" and self._log is None:
            self._log = RunLog(self._destination)

    @never_raises
    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Opens the trial's run, or resumes it.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            **info: Whatever else Ray passes; not used.
        """
        self._key(trial)

    @never_raises
    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: RayResult, **info: Any
    ) -> None:
        """Logs one epoch.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            result: Its report, with Ray's own bookkeeping.
            **info: Whatever else Ray passes; not used.
        """
        report = TrialReport.from_ray(result)
        if self._log is None or report is None:
            return
        key = self._key(trial)
        row = metrics_of(report.metrics)
        self._log.row(key, report.epoch, row)
        value = self._objective.sign * row.get(self._objective.metric, math.nan)
        if value > self._best.get(key, (-math.inf, {}))[0]:
            self._best[key] = value, {"epoch": report.epoch, **row}

    @never_raises
    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Ends the run of a trial that came to its end or was stopped early; `finished` in its last report tells.

        The run of a trial that waits at a rung stays open: it may continue.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            **info: Whatever else Ray passes; not used.
        """
        last = TrialReport.last_of(trial)
        if last is not None and last.waiting:
            self._waiting[self._key(trial)] = trial
            del self._open[trial.trial_id]
            return
        self._end(trial, STATE_COMPLETE if last is not None and last.finished else STATE_PRUNED)

    @never_raises
    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Ends the run of a failed trial, with its error in one line; one that continues opens it again.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            **info: Whatever else Ray passes; not used.
        """
        try:
            kind, message = describe_failure(trial)
        except OSError:
            kind, message = "unknown", "its error file cannot be read"
        state = STATE_INTERRUPTED if kind in GOES_ON else STATE_FAIL
        self._end(trial, state, error=redact(f"{kind}: {message}"))

    @never_raises
    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Ends what is still open, as interrupted or stopped at a rung, and waits for the uploads, at most a minute."""
        if self._log is None:
            return
        for key in list(self._open.values()):
            self._log.end(key, Ending(EXIT_CODES[STATE_INTERRUPTED], self._summary(key, STATE_INTERRUPTED)))
        self._open.clear()
        for trial in list(self._waiting.values()):
            self._end(trial, STATE_PRUNED)
        self._log.close()
        self._log = None

    def _key(self, trial: Trial) -> str:
        """The trial's key; opens its run if it is not open."""
        key = self._open.get(trial.trial_id)
        if key is None:
            key = self._open[trial.trial_id] = self._run_id_of(trial)
            if self._waiting.pop(key, None) is None and self._log is not None:
                self._log.open(key, name=str(trial), config=public(self._config_of(trial)))
        return key

    def _end(self, trial: Trial, state: str, error: str | None = None) -> None:
        if self._log is None:
            return
        key = self._key(trial)
        del self._open[trial.trial_id]
        summary = self._summary(key, state) | ({"error": error} if error else {})
        value = self._best.pop(key, (-math.inf, {}))[0]
        is_best = state != STATE_FAIL and value > self._best_of_run
        self._best_of_run = max(self._best_of_run, value) if is_best else self._best_of_run
        self._log.end(key, Ending(EXIT_CODES[state], summary, self._checkpoint(trial), with_overlays=is_best))

    def _checkpoint(self, trial: Trial) -> Path | None:
        found = self._checkpoints.trial_checkpoints(number_of(trial))
        return found[0] if found else None

    def _summary(self, key: str, state: str) -> dict[str, object]:
        _, best = self._best.get(key, (0.0, {}))
        return {"state": state, **{f"best/{name}": value for name, value in best.items()}}


def log_run_summary(to: Destination, scores: Mapping[str, object], config: Mapping[str, object] | None = None) -> None:
    """Logs the sealed model's scores as one run of job type `summary` in the search's group; waits at most 55 s.

    A server that does not answer means offline, as for trials; the search has warned of it already, so this does not.

    Args:
        to: Where the search's runs go; with the mode `disabled`, nothing is done.
        scores: Numbers and short texts; nested mappings are joined with `/`.
        config: The sealed model's config.
    """
    if to.mode == "disabled":
        return
    run_log = RunLog(to, quiet=True)
    run_log.open("summary", name=f"{to.group} summary", config=public(config or {}), job_type="summary")
    run_log.end("summary", Ending(0, {"state": STATE_COMPLETE, **_flat(scores)}))
    run_log.close()


def metrics_of(result: Mapping[str, object]) -> dict[str, float]:
    """The finite numbers of a report that are metrics: keys with a slash, and the learning rate."""
    return {
        key: float(value)
        for key, value in result.items()
        if ("/" in key or key in METRICS_WITHOUT_SLASH)
        and not key.startswith("config/")
        and isinstance(value, Real)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def public(value: Any) -> Any:
    """A config as it may be shown: without keys that name a secret, and without our tokens in any text."""
    if isinstance(value, Mapping):
        return {str(key): public(item) for key, item in value.items() if not _SECRET_NAME.search(str(key))}
    if isinstance(value, list | tuple):
        return [public(item) for item in value]
    if isinstance(value, str):
        return redact(value)
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))


def redact(text: str) -> str:
    """`text` with the tokens of this environment cut out."""
    return secrets.redact(text, secret_variables(), instead="[secret]")


def _flat(scores: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in scores.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}/")
        elif isinstance(value, bool | str) or (isinstance(value, Real) and math.isfinite(value)):
            flat[f"{prefix}{key}"] = redact(value) if isinstance(value, str) else value
    return flat
