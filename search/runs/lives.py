"""What the journal says of each trial, gathered into one record: what it ran with, how far it came, how it ended.

This is the record that tables, reports, samplers and stages read. A journal of an earlier version says neither what a
trial ran with nor how it ended; `search.study.lives.read_lives` takes that from the run's study.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from search.runs.events import (
    Applied,
    Began,
    Dropped,
    Ended,
    Enqueued,
    Epoch,
    Error,
    Event,
    Metrics,
    Resumed,
    Retried,
)
from segcore.params import Params

LifeState = Literal["waiting", "running", "complete", "pruned", "failed"]


@dataclass(frozen=True)
class TrialLife:
    """A trial from its beginning to its end, as far as it has come.

    Attributes:
        number: Its number in the run, from 0.
        state: `waiting` has no parameters yet; `running` has not ended, whether or not a session works on it now.
        params: What it runs with, as flat dotted config keys; None where that is not known (yet).
        enqueued: What it waits with, in the study's own names; None for one that began without waiting.
        origin: Who proposed it: config, enqueued, start, prior, fork, or a sampler's name; empty where unknown.
        parent: Of a fork, the number and the epoch of the trial that it continues.
        began: When, as Unix time in seconds.
        ended: The same, of its end; None while it has none.
        why: Of one that failed, the kind of its failure, as in its error.
        ray_ids: Ray's ids, one per attempt.
        epochs: What it reported, by epoch and in order; one that was trained again is there once, as last reported.
        first: What it reported first; the second metric in it is the cost that it is judged by.
        error: Its last error.
        applied: What was read back of it and where it trained, one record per attempt.
        retried: It ran out of its share's memory once and continued, or is to continue, alone.
        dropped: Its checkpoint was deleted to save space.
        stored_cost: The value of the second metric that an earlier version kept in the study alone.
    """

    number: int
    state: LifeState = "running"
    params: Params | None = None
    enqueued: Params | None = None
    origin: str = ""
    parent: tuple[int, int] | None = None
    began: float | None = None
    ended: float | None = None
    why: str = ""
    ray_ids: tuple[str, ...] = ()
    epochs: Mapping[int, Epoch] = field(default_factory=dict)
    first: Metrics = field(default_factory=dict)
    error: Error | None = None
    applied: tuple[Applied, ...] = ()
    retried: bool = False
    dropped: bool = False
    stored_cost: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it has ended for good."""
        return self.state in ("complete", "pruned", "failed")

    @property
    def is_finished(self) -> bool:
        """Whether it reported its last epoch."""
        return any(epoch.metrics.get("finished") for epoch in self.epochs.values())

    def values(self, metric: str) -> dict[int, float]:
        """A metric by epoch; epochs that did not report it are left out."""
        rows = self.epochs.items()
        return {epoch: float(row.metrics[metric]) for epoch, row in rows if metric in row.metrics}

    def cost(self, second_metric: str) -> float | None:
        """The value of the second metric that it is judged by: the first that it reported."""
        return self.first.get(second_metric, self.stored_cost)


def lives_of(events: Iterable[Event]) -> dict[int, TrialLife]:
    """The life of every trial that the journal names, by number and in order.

    Where the journal of an earlier version does not say that a trial began, `params` is None and `state` is `running`.
    """
    found: dict[int, TrialLife] = {}
    for number, told in _by_number(events).items():
        life = TrialLife(number)
        epochs: dict[int, Epoch] = {}
        for event in told:
            if isinstance(event, Epoch):
                life = life if epochs else replace(life, first=event.metrics)
                epochs[event.epoch] = event
            else:
                life = _after(life, event)
        found[number] = replace(life, epochs=dict(sorted(epochs.items())))
    return dict(sorted(found.items()))


def _by_number(events: Iterable[Event]) -> dict[int, list[Event]]:
    told: dict[int, list[Event]] = {}
    for event in events:
        told.setdefault(event.number, []).append(event)
    return told


def _after(life: TrialLife, event: Event) -> TrialLife:
    match event:
        case Enqueued():
            waiting: LifeState = "waiting" if life.params is None and not life.has_ended else life.state
            return replace(life, state=waiting, enqueued=event.params, parent=event.parent)
        case Began():
            ray_ids = (event.ray_id,) if event.ray_id else ()
            state: LifeState = "running" if life.state == "waiting" else life.state
            return replace(
                life, state=state, params=event.params, origin=event.origin, parent=event.parent, began=event.time,
                ray_ids=ray_ids,
            )  # fmt: skip
        case Resumed():
            return replace(life, ray_ids=(*life.ray_ids, event.ray_id))
        case Applied():
            return replace(life, applied=(*life.applied, event))
        case Error():
            return replace(life, error=event)
        case Retried():
            return replace(life, retried=True)
        case Ended() if not life.has_ended:  # a trial ends once
            return replace(life, state=event.state, ended=event.time, why=event.why)
        case Dropped():
            return replace(life, dropped=True)
    return life
