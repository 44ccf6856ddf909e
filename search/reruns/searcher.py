"""Gives Ray Tune a list of trainings, one after the other, with the retries that trials of a search get."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ray.tune.search import Searcher

from search.runs.journal import INTERRUPTED, MOVED, RETRIED_ALONE
from search.tune.retries import Retries, WholeGpu
from segcore.config import TrainConfig
from segcore.objective import Objective
from segcore.spec import RayResult, RaySpec, TrialReport, TrialSpec


@dataclass
class Rerun:
    """A training to be made.

    Attributes:
        number: Its number among the run's trainings.
        label: A description for people, e.g. `trial 9, seed 2`.
        train: What it trains with; the seed is in it.
        intermediate_values: The metric by epoch, from earlier sessions.
    """

    number: int
    label: str
    train: TrainConfig
    intermediate_values: dict[int, float] = field(default_factory=dict)


class RerunSearcher(Searcher):  # type: ignore[misc]
    """Suggests trainings in order; one that lost its worker continues, one that failed is not repeated.

    Args:
        reruns: Those that are to start or to continue.
        spec_of: Makes a training's spec for the trainable from its number and its config.
        objective: What trainings are compared by.
        alone: Numbers of those that ran out of memory beside others.
        whole_gpu: What one that runs alone gets; see `Retries`.
    """

    def __init__(
        self,
        reruns: Sequence[Rerun],
        spec_of: Callable[[int, TrainConfig], TrialSpec],
        objective: Objective,
        *,
        alone: frozenset[int] = frozenset(),
        whole_gpu: WholeGpu | None = None,
    ) -> None:
        super().__init__(metric=objective.metric, mode=objective.mode)
        self._spec_of = spec_of
        self._queue: Retries[Rerun] = Retries(reruns, alone, whole_gpu)
        self._live: dict[str, Rerun] = {}
        self._max_concurrent: float = len(reruns)

    @property
    def live(self) -> frozenset[str]:
        """Ray's ids of the trainings that were suggested and have not ended."""
        return frozenset(self._live)

    def is_waiting(self, number: int) -> bool:
        """Always false: trainings do not wait at rungs."""
        return False

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Takes the limit over from Ray."""
        self._max_concurrent = max_concurrent
        return True

    def suggest(self, trial_id: str) -> RaySpec | str | None:
        """The next training's spec; None while a live one may have to continue, `FINISHED` when none is left."""
        if len(self._live) >= self._max_concurrent:
            return None
        rerun = self._queue.next_shared() or self._queue.next_alone()
        if rerun is None:
            return None if self._live else str(Searcher.FINISHED)
        self._queue.begin(rerun)
        self._live[trial_id] = rerun
        spec = replace(self._spec_of(rerun.number, rerun.train), label=rerun.label)
        return self._queue.told(spec).to_ray()

    def on_trial_result(self, trial_id: str, result: RayResult) -> None:
        """Notes how far a training has come."""
        report = TrialReport.from_ray(result)
        if report is not None:
            self._live[trial_id].intermediate_values[report.epoch] = float(report.metrics[self.metric])

    def on_trial_complete(self, trial_id: str, result: RayResult | None = None, error: bool = False) -> None:
        """Ends a training that left its worker; after an error, `fail` does that.

        Args:
            trial_id: Ray's id of the trial.
            result: Its last report; None if it never reported.
            error: Whether it ended with an error.
        """
        if not error:
            self._live.pop(trial_id, None)

    def fail(self, trial_id: str, kind: str, node: str = "") -> None:
        """Ends a training that had an error, or queues it to continue.

        Args:
            trial_id: Ray's id of the trial.
            kind: One of those of `search.tune.failures`.
            node: Ray's id of the node that it ran on.
        """
        rerun = self._live.pop(trial_id, None)
        if rerun is not None and kind == INTERRUPTED:
            self._queue.lost_worker(rerun, max(rerun.intermediate_values, default=0))
        elif rerun is not None and kind == MOVED:
            self._queue.moved(rerun, max(rerun.intermediate_values, default=0), node)
        elif rerun is not None and kind == RETRIED_ALONE:
            self._queue.out_of_memory(rerun)

    def flush_if_due(self) -> None:
        """Does nothing: no report is buffered."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the journal is the state."""
        Path(checkpoint_path).write_text("the state is in events.jsonl\n", encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the journal is the state."""
