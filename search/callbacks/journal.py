"""The driver-side callback that writes the run's journal; it runs before any other callback."""

import re
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from search.events import EventLog

_ERROR_LINE = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Interrupt|Exit))(?:\([^)]*\))?: ?(.*)$")


class JournalCallback(Callback):  # type: ignore[misc]
    """Appends each report and each failure to the journal."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Records an epoch: what the trainable reported, without Ray's own bookkeeping."""
        if "epoch" not in result:
            return
        metrics = {
            key: value
            for key, value in result.items()
            if ("/" in key and isinstance(value, int | float)) or key in ("lr", "best_epoch", "finished")
        }
        self._log.epoch(int(result["number"]), int(result["epoch"]), metrics)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Records why a trial failed."""
        kind, message = describe_failure(trial)
        self._log.error(int(trial.config["number"]), kind, message)


def describe_failure(trial: Trial) -> tuple[str, str]:
    """`(kind, message)` of a failed trial: the exception's name and first line, or that the worker died."""
    text = Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
    for line in reversed(text.strip().splitlines()):
        match = _ERROR_LINE.match(line.strip())
        if match:
            kind = "out of memory" if "OutOfMemory" in match[1] else match[1]
            return kind, match[2].strip()[:500]
    lines = text.strip().splitlines()
    return "unknown", (lines[-1][:500] if lines else "the trial's process ended without a message")
