"""Which training the sealed model comes from: a trial's own, or one of the same settings with another seed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from search.runs.journal import epochs_by_trial, read_events
from search.runs.paths import RunPaths
from segcore.sealed.card import Origin


@dataclass(frozen=True)
class SealedTraining:
    """A training whose weights are sealed.

    Attributes:
        epoch: Whose weights they are.
        trial: The trial, or the one that was trained again; None for a single training run.
        seed: Of a trial that was trained again; None where the weights are the trial's own.
        reports: By epoch, the metrics of a training that was made again; empty where the trial's own are meant.
    """

    epoch: int | None
    trial: int | None = None
    seed: int | None = None
    reports: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    @property
    def is_again(self) -> bool:
        """Whether the trial was trained again, so that what the search recorded belongs to other weights."""
        return self.seed is not None

    @property
    def metrics(self) -> Mapping[str, float]:
        """What the sealed epoch of a training that was made again reported; empty where that is not known."""
        return {} if self.epoch is None else self.reports.get(self.epoch, {})


def sealed_training(origin: Origin, paths: RunPaths) -> SealedTraining:
    """The training that a card names.

    Args:
        origin: The card's.
        paths: The run's, whose `reruns` hold what was trained again.
    """
    reports: Mapping[int, Mapping[str, float]] = {}
    if origin.rerun is not None:
        rows = epochs_by_trial(read_events(paths.reruns.events)).get(origin.rerun, {})
        reports = {epoch: row.metrics for epoch, row in rows.items()}
    return SealedTraining(origin.epoch, origin.trial, origin.seed, reports)
