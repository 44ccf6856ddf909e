"""What a person sees while the search runs: a live table on a terminal, one line per event in a log."""

import logging
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.runs.journal import GOES_ON, INTERRUPTED, RETRIED_ALONE
from search.tune.failures import describe_failure
from segcore.objective import Objective
from segcore.spec import RayResult, TrialReport, TrialSpec, number_of

log = logging.getLogger("segsearch")

REFRESH_S = 0.5


class ProgressCallback(Callback):  # type: ignore[misc]
    """Shows running trials, counts by state, and the best so far.

    Args:
        console: Where to show it; a live table when it is a terminal, plain lines otherwise.
        objective: What trials are compared by.
        num_samples: Trials of the whole search.
        num_epochs: Epochs of a complete trial.
        done: Trials that ended in earlier sessions, by state.
        best: Value and trial number of the best trial of earlier sessions.
        names: What to call trials, by number; without one it is `trial N`.
    """

    def __init__(
        self,
        console: Console,
        objective: Objective,
        *,
        num_samples: int,
        num_epochs: int,
        done: dict[str, int] | None = None,
        best: tuple[float, int] | None = None,
        names: Mapping[int, str] | None = None,
    ) -> None:
        self._console = console
        self._objective, self._metric = objective, objective.metric
        self._num_samples, self._num_epochs = num_samples, num_epochs
        self._counts: Counter[str] = Counter(done or {})
        self._best = best
        self._names = dict(names or {})
        self._running: dict[int, TrialReport | None] = {}
        self._waiting: set[int] = set()
        self._started = time.monotonic()
        self._shown = 0.0
        self._live: Live | None = None

    def __getstate__(self) -> dict[str, object]:
        """Leaves out the console: Ray pickles its callbacks, a console cannot be pickled."""
        return {key: value for key, value in self.__dict__.items() if key not in ("_console", "_live")}

    def start(self) -> None:
        """Begins the live view; without a terminal, nothing."""
        if self._console.is_terminal:
            self._live = Live(self._render(), console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def stop(self) -> None:
        """Ends the live view and leaves the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Refreshes the live view, at most every `REFRESH_S` seconds."""
        if self._live is not None and time.monotonic() - self._shown > REFRESH_S:
            self._shown = time.monotonic()
            self._live.update(self._render(), refresh=True)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Shows that a trial started, or continues from the rung at which it waited.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            **info: Whatever else Ray passes; not used.
        """
        self._waiting.discard(number_of(trial))
        self._running[number_of(trial)] = None

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: RayResult, **info: Any
    ) -> None:
        """Shows that a trial reported an epoch.

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
        number, metrics = report.number, report.metrics
        value = float(metrics[self._metric])
        self._running[number] = report
        if self._objective.better(value, self._best[0] if self._best else None):
            self._best = (value, number)
            mark = "  best so far"
        else:
            mark = ""
        if self._live is None:
            log.info(
                "%s epoch %d/%d  %s %.4f  threshold %.3f  train/loss %.4f%s",
                self._name(number), report.epoch, self._num_epochs, self._metric, value, metrics["val/threshold"],
                metrics["train/loss"], mark,
            )  # fmt: skip

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Shows that a trial ended, or was stopped at a rung.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            **info: Whatever else Ray passes; not used.
        """
        number, last = number_of(trial), TrialReport.last_of(trial)
        if last is not None and last.waiting:
            self._running.pop(number, None)
            self._waiting.add(number)
            if self._live is None:
                log.info("%s waits after epoch %d  (%s)", self._name(number), last.epoch, self._summary())
            return
        is_whole, epoch = (last.finished, last.epoch) if last else (False, 0)
        self._end(trial, "complete" if is_whole else "pruned", f"after epoch {epoch}")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Shows that a trial failed, or that it continues after its worker died or its share's memory was too small.

        Args:
            iteration: Ray's count of steps of its loop.
            trials: All of Ray's trials.
            trial: The trial that this is about.
            **info: Whatever else Ray passes; not used.
        """
        kind, message = describe_failure(trial)
        if kind not in GOES_ON:
            self._end(trial, "failed", f"{kind}: {message}")
            return
        number = number_of(trial)
        last = self._running.pop(number, None)
        epoch = last.epoch if last else 0
        if kind == RETRIED_ALONE:
            share = TrialSpec.from_ray(trial.config).gpu_fraction
            log.warning(
                "%s ran out of memory on %g of a GPU after epoch %d and will continue alone on a whole one: %s",
                self._name(number), share, epoch, message,
            )  # fmt: skip
        elif kind == INTERRUPTED:
            log.warning("%s lost its worker after epoch %d and continues: %s", self._name(number), epoch, message)

    def _name(self, number: int) -> str:
        return self._names.get(number, f"trial {number}")

    def _end(self, trial: Trial, state: str, detail: str) -> None:
        self._running.pop(number_of(trial), None)
        self._counts[state] += 1
        if self._live is None or state == "failed":
            level = logging.WARNING if state == "failed" else logging.INFO
            log.log(level, "%s %s %s  (%s)", self._name(number_of(trial)), state, detail, self._summary())

    def _summary(self) -> str:
        ended = sum(self._counts.values())
        counts = {**self._counts, **({"waiting": len(self._waiting)} if self._waiting else {})}
        states = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        best = f"; best {self._metric} {self._best[0]:.4f} ({self._name(self._best[1])})" if self._best else ""
        return f"{ended}/{self._num_samples} ended{': ' + states if states else ''}{best}"

    def _render(self) -> RenderableType:
        table = Table(box=None, pad_edge=False)
        for title in ("trial", "epoch", self._metric, "best", "threshold", "train/loss", "images/s"):
            table.add_column(title, justify="right")
        for number, report in sorted(self._running.items()):
            if report is not None:
                metrics = report.metrics
                cells = (
                    f"{report.epoch}/{self._num_epochs}", f"{metrics[self._metric]:.4f}", f"@{report.best_epoch}",
                    f"{metrics['val/threshold']:.3f}", f"{metrics['train/loss']:.4f}",
                    f"{metrics['time/images_per_s']:.0f}",
                )  # fmt: skip
            else:
                cells = ("starting", "", "", "", "", "")
            table.add_row(self._names.get(number, str(number)), *cells)
        elapsed = time.strftime("%H:%M:%S", time.gmtime(time.monotonic() - self._started))
        return Group(Text(f"{elapsed}  {self._summary()}"), table)
