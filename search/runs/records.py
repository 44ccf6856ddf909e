"""What `run.json` and `export.json` hold, checked when they are read.

`run.json` has a version: older ones are read, a newer one is refused in one line.
"""

import os
import socket
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from search.commands import remedy
from search.errors import RunError
from search.runs.paths import RunPaths, read_json
from segcore.record import Record, why_unreadable, wrong_fields

FORMAT = 2
"""Of `run.json`; format 1 named none."""

_R = TypeVar("_R", bound=Record)

Status = Literal["running", "done", "export_failed", "interrupted", "failed"]
"""What `run.json` says. `stopped` is what a run is that says `running` while its process is gone."""
RESUMABLE = ("stopped", "interrupted", "failed")


class Worker(Record):
    """The process that works on a run, or did last."""

    host: str
    pid: int
    since: float = 0.0


class Stage(Record):
    """The stage that a run is in, and since when."""

    name: str
    since: float


class StoppedBy(Record):
    """The rule of `search` that ended it early."""

    rule: str
    detail: str


class Packing(Record):
    """How many trials share a GPU, and the measurements behind that.

    Attributes:
        key: Identifies what was measured; the measurement holds while this is unchanged.
        limit: The most that may, whatever their memory.
        largest: Settings of the largest configuration.
        estimate_bytes: What it was estimated to take.
        peak_bytes: What it was measured to take.
        overhead_bytes: What its process holds beside that.
        free_bytes: Free memory of the GPU.
        total_bytes: The GPU's memory.
        mps: Pipe directory of a running NVIDIA MPS.
        images_per_s: Images per second of all together, by number of trials on a GPU.
        error: Why it could not be measured.
        trials_per_gpu: The answer.
    """

    key: str
    limit: int = 0
    largest: str | None = None
    estimate_bytes: int | None = None
    peak_bytes: int | None = None
    overhead_bytes: int | None = None
    free_bytes: int | None = None
    total_bytes: int | None = None
    mps: str | None = None
    images_per_s: dict[str, float] | None = None
    error: str | None = None
    trials_per_gpu: int


class ExtensionNote(Record):
    """One `extend`.

    Attributes:
        when: In seconds since 1970.
        num_samples: Trials that were added.
        trials_before: Trials that there were.
        changed: Dotted key -> `[before, after]`.
        stopped_by: What had ended the search before.
        config_before: Name of the file of the config until then.
    """

    when: float
    num_samples: int
    trials_before: int | None = None
    changed: dict[str, list[Any]] = Field(default_factory=dict)
    stopped_by: StoppedBy | None = None
    config_before: str = ""


class RunRecord(Record):
    """`run.json`: what a run is, its status, and what its numbers may depend on beside its config.

    Attributes:
        status: As it was last written; see `status_now`.
        created: In seconds since 1970.
        worker: The process that works on it, or did last.
        command: What was typed.
        host: Name, cores, platform, and GPUs of the machine.
        versions: Of segsearch and the packages that it needs.
        code: The commit that ran, of a checkout, and whether files of it were changed.
        trials: How many there were when a session last finished the search.
        timings: Seconds by stage, `total_s` among them, over all sessions.
        stage: The stage that it is in.
        data_fingerprint: Of the decoded samples.
        gate: The verdict of the gate.
        packing: How many trials share a GPU, and how that was found.
        error: Why it failed.
    """

    format: int = 1
    name: str = ""
    kind: Literal["search", "train"] = "search"
    status: Status
    worker: Worker | None = None
    created: float = 0.0
    command: list[str] = Field(default_factory=list)
    host: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    code: dict[str, Any] | None = None
    seed: int | None = None
    trials: int | None = None
    timings: dict[str, float] = Field(default_factory=dict)
    stage: Stage | None = None
    data_fingerprint: str | None = None
    gate: dict[str, Any] | None = None
    packing: Packing | None = None
    stopped_by: StoppedBy | None = None
    extensions: list[ExtensionNote] = Field(default_factory=list)
    error: str | None = None

    @property
    def status_now(self) -> str:
        """The status, or `stopped` for a run that claims to be running while its process is gone.

        A process on another host cannot be checked; its recorded status is taken.
        """
        if self.status != "running":
            return self.status
        if self.worker is None:
            return "stopped"
        if self.worker.host != socket.gethostname():
            return self.status
        try:
            os.kill(self.worker.pid, 0)
        except ProcessLookupError:
            return "stopped"
        except PermissionError:
            pass
        return self.status


class Digest(Record):
    """What a file must hash to."""

    sha256: str
    size: int


class ExportRecord(Record):
    """The latest outcome of one export target."""

    target: str
    location: str
    status: str = ""
    files: dict[str, Digest] = Field(default_factory=dict)
    url: str | None = None
    error: str | None = None
    time: str = ""
    seconds: float = 0.0


def read_run(paths: RunPaths) -> RunRecord:
    """Reads `run.json`.

    Raises:
        RunError: It is missing, damaged, or of a newer version.
    """
    tree = read_json(paths.run)
    if (why := why_unreadable(paths.run, tree, FORMAT)) is not None:
        raise RunError(why)
    return parse_record(RunRecord, tree, paths.run)


def read_exports(paths: RunPaths) -> list[ExportRecord]:
    """Reads `export.json`; empty where nothing was exported."""
    return parse_list(ExportRecord, paths.export, "targets")


def parse_list(kind: type[_R], path: Path, key: str) -> list[_R]:
    """The records of a kind that a JSON object lists; none where its file is not there.

    Args:
        kind: What each should be.
        path: The file.
        key: Where in the object.

    Raises:
        RunError: It is damaged.
    """
    if not path.exists():
        return []
    entries = read_json(path).get(key, [])
    if not isinstance(entries, list):
        raise RunError(f"{path} cannot be read: {key} should be a list{remedy(path)}")
    return [parse_record(kind, entry, path) for entry in entries]


def parse_record(kind: type[_R], tree: object, path: Path) -> _R:
    """A record of a kind, checked.

    Args:
        kind: What it should be.
        tree: The JSON object.
        path: Its file, for the message.

    Raises:
        RunError: A field is missing or of a wrong type, each with its name.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise RunError(f"{path} cannot be read: {wrong_fields(error)}{remedy(path)}") from error
