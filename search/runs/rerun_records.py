"""What `trainings.json`, `confirm.json` and `ledger.json` hold: repeated trainings and their results."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from search.commands import remedy
from search.errors import RunError
from search.runs.paths import RunPaths, read_json
from search.runs.records import parse_list, parse_record
from segcore.params import Params
from segcore.record import Record

Interval = tuple[float, float]


class KnownTraining(Record):
    """A training of `reruns/`: its number there, a description for people, and its config."""

    number: int
    label: str
    train: Mapping[str, object]


class Difference(Record):
    """How far a candidate is from the first one, and whether the two cannot be told apart."""

    value: float
    interval: Interval | None
    tied: bool


class ConfirmedTrial(Record):
    """A candidate, trained again with other seeds.

    Attributes:
        trial: Its number in the search.
        searched: The value that the search saw.
        mean: Over the seeds; None where no training finished.
        interval: Of the mean.
        values: `(seed, value)`.
        failed: `(seed, why)`.
        reruns: `(seed, number of the training)`.
        parameters: Of its model.
        latency_ms: Milliseconds per image.
        settings: Searched dotted key -> value.
        difference: From the first candidate; None for that one itself.
    """

    trial: int
    searched: float | None
    mean: float | None
    interval: Interval | None
    values: list[tuple[int, float]]
    failed: list[tuple[int, str]]
    reruns: list[tuple[int, int]] = Field(default_factory=list)
    parameters: float | None = None
    latency_ms: float | None = None
    settings: Params = Field(default_factory=dict)
    difference: Difference | None = None


class Confirmation(Record):
    """`confirm.json`: the best trials trained again with other seeds, best mean first, and which of them won."""

    metric: str
    mode: Literal["max", "min"]
    seeds: list[int]
    num_images: int | None
    confidence: float
    seed_sd: float | None
    seed_df: int
    candidates: list[ConfirmedTrial]
    tied: list[int]
    winner: int
    reason: str

    @property
    def is_tie(self) -> bool:
        """Whether another trial cannot be told apart from the first."""
        return len(self.tied) > 1

    @property
    def winning(self) -> ConfirmedTrial:
        """The candidate that won."""
        return next(row for row in self.candidates if row.trial == self.winner)


class Level(Record):
    """The result of a config over the seeds."""

    mean: float | None
    interval: Interval | None


class Worth(Record):
    """How much better one config is than another: positive is better; `clear`: 0 lies outside of the interval."""

    worth: float | None
    interval: Interval | None
    clear: bool


class GainStep(Worth):
    """One group of settings, changed to the winner's: `changes` are `(key, before, after)`."""

    group: str
    changes: list[tuple[str, Any, Any]]
    mean: float | None
    importance: float | None


class GainAlternative(Worth):
    """A choice at the winner against another one, as some trial had it: `chosen` and `instead` are `(key, value)`."""

    group: str
    chosen: list[tuple[str, Any]]
    instead: list[tuple[str, Any]]
    of_trial: int
    importance: float | None


class GainThreshold(Worth):
    """A threshold that is `auto` against a fixed one."""

    chosen: float | str
    instead: float | str


class GainNoise(Record):
    """How much trainings of one config differ; `two_trainings`: what two of them seldom differ by more than."""

    sd: float | None
    df: int
    num_configs: int
    two_trainings: float | None


class ImportanceShare(Record):
    """How much one searched parameter mattered, of 1 in all."""

    name: str
    share: float


class Ledger(Record):
    """`ledger.json`: what each step from the baseline to the winner is worth; the worths add up to `total`."""

    metric: str
    mode: Literal["max", "min"]
    trial: int
    seeds: list[int]
    num_images: int | None
    confidence: float
    cross_fitted: bool
    baseline: Level
    winner: Level
    steps: list[GainStep]
    total: Worth
    alternatives: list[GainAlternative]
    threshold: GainThreshold | None
    seed_noise: GainNoise
    importances: list[ImportanceShare]
    importance_trials: int
    failed: list[str]
    notes: list[str]
    begin: list[str] = Field(default_factory=list)


def read_trainings(reruns: RunPaths) -> list[KnownTraining]:
    """Reads the list of trainings that were numbered so far.

    Args:
        reruns: The folder `reruns/` of a run.

    Raises:
        RunError: It is damaged.
    """
    return parse_list(KnownTraining, reruns.trainings, "trainings")


def read_confirmation(paths: RunPaths) -> Confirmation | None:
    """Reads `confirm.json`; None where there is none."""
    path = paths.confirmation
    if not path.exists():
        return None
    record = parse_record(Confirmation, read_json(path), path)
    if record.winner not in {row.trial for row in record.candidates}:
        raise RunError(f"{path} cannot be read: its winner, trial {record.winner}, is no candidate{remedy(path)}")
    return record


def read_ledger(paths: RunPaths) -> Ledger | None:
    """Reads `ledger.json`; None where there is none."""
    return parse_record(Ledger, read_json(paths.ledger), paths.ledger) if paths.ledger.exists() else None
