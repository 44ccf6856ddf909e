"""A run's folder from creation to its last status; one process at a time works on it."""

import logging
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from filelock import FileLock, Timeout

from search.commands import remedy, run_command
from search.config.load import dump_config, load_config
from search.config.tree import SearchConfig
from search.errors import DiskError, RunError
from search.machine.full_disk import LogFile, despite_the_disk, disk_stop
from search.runs.environment import describe_environment
from search.runs.events import Began, Enqueued, Placed, Resumed
from search.runs.journal import read_events
from search.runs.paths import (
    RunPaths,
    write_json,
    write_text,
)
from search.runs.records import (
    FORMAT,
    RESUMABLE,
    ExtensionNote,
    Packing,
    RunRecord,
    Stage,
    Status,
    StoppedBy,
    Worker,
    read_run,
)
from segcore.disk import room_at
from segcore.errors import LoaderError

log = logging.getLogger("segsearch")

_IMPORTED = time.time()


def create_run(config: SearchConfig, kind: Literal["search", "train"]) -> RunPaths:
    """Makes `results/<name>/` with the resolved config and a first `run.json`.

    Args:
        config: The config of the run, its paths absolute.
        kind: `search` or `train`.

    Raises:
        RunError: A run of that name is there already, or the folder cannot be made.
    """
    paths = RunPaths(Path(config.results) / config.name)
    require_free(paths)
    if paths.run.exists():
        log.info("an earlier %s in %s never came to its first report; starting anew", config.name, paths.root)
        shutil.rmtree(paths.root)
    try:
        paths.root.mkdir(parents=True, exist_ok=True)
        write_text(paths.config, dump_config(config))
    except OSError as error:
        raise RunError(f"results: the run's folder {paths.root} cannot be written: {error}") from error
    write_json(paths.run, new_record(config, kind).tree())
    return paths


def new_record(config: SearchConfig, kind: Literal["search", "train"]) -> RunRecord:
    """The first `run.json` of a run that begins in this process."""
    return RunRecord(
        format=FORMAT,
        name=config.name,
        kind=kind,
        status="running",
        worker=_this_process(),
        created=time.time(),
        command=[Path(sys.argv[0]).name, *sys.argv[1:]],
        **describe_environment(),
        seed=config.search.seed,
        timings={},
    )


def require_free(paths: RunPaths) -> None:
    """Refuses the name of a run that has reported already, or is being worked on.

    Raises:
        RunError: Names the run and what can be done with it.
    """
    if not paths.run.exists():
        if not paths.events.exists():
            return
        raise RunError(
            f"{paths.root} holds the trials of a run whose {paths.run.name} is gone{remedy(paths.run)}; or give this "
            "run another name with --name"
        )
    status = read_run(paths).status_now
    if status in ("running", "done", "export_failed") or _has_reports(paths):
        hint = run_command("resume" if status in RESUMABLE else "show", paths.root)
        raise RunError(
            f"the run {paths.name!r} is there already ({paths.root}, status: {status}); "
            f"see `{hint}`, or give this one another name with --name"
        )


def require_writable(folder: Path) -> None:
    """Refuses a run's folder in which no file can be written; nothing is left of the attempt.

    A folder that is not there yet is not made: the attempt is made in the first one above it that is.

    Raises:
        RunError: With what the system says.
    """
    try:
        place = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"0" * 4096)
            file.flush()
    except OSError as error:
        raise RunError(f"results: the run's folder {folder} cannot be written: {error.strerror}: {place}") from error


def absolute_paths(config: SearchConfig) -> SearchConfig:
    """The config with every path made absolute, so that a worker, or a resume from elsewhere, finds the same files."""
    model, data = config.model, config.data
    targets = [spec.moved_to(_absolute(spec.location)) if spec.is_path else spec for spec in config.export.targets]
    return config.model_copy(
        update={
            "data": data.model_copy(
                update={
                    "root": data.root if data.root == "synthetic" else _absolute(data.root),
                    "cache_dir": data.cache_dir and _absolute(data.cache_dir),
                }
            ),
            "model": model.model_copy(update={"encoder_weights": _weights(model.encoder_weights)}),
            "space": {key: _absolute_weights(value, key) for key, value in config.space.items()},
            "search": config.search.model_copy(
                update={"enqueue": tuple(_absolute_weights(point, "") for point in config.search.enqueue)}
            ),
            "export": config.export.model_copy(update={"targets": tuple(targets)}),
            "results": _absolute(config.results),
        }
    )


def _has_reports(paths: RunPaths) -> bool:
    """Whether any trial of the run has reported."""
    return any(not isinstance(event, Began | Enqueued | Resumed | Placed) for event in read_events(paths.events))


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def _weights(value: str) -> str:
    return value if value in ("none", "imagenet") else _absolute(value)


def _absolute_weights(tree: Any, key: str) -> Any:
    """Makes the paths below any searched `encoder_weights` absolute."""
    if isinstance(tree, dict):
        is_weights = key.rpartition(".")[2] == "encoder_weights"
        if is_weights and isinstance(tree.get("choice"), list):
            prior = tree.get("prior", {})
            return {
                **tree,
                "choice": [_weights(value) if isinstance(value, str) else value for value in tree["choice"]],
                **({"prior": {**prior, "center": _weights(prior["center"])}} if prior else {}),
            }
        return {name: _absolute_weights(value, str(name)) for name, value in tree.items()}
    if isinstance(tree, str) and key.rpartition(".")[2] == "encoder_weights":
        return _weights(tree)
    return tree


def stored_config(paths: RunPaths) -> SearchConfig:
    """The config that a run was started with."""
    return load_config(paths.config)


@contextmanager
def held(paths: RunPaths) -> Iterator[None]:
    """Holds the run's lock, so that no other process changes the run.

    Raises:
        RunError: Another process works on the run.
    """
    lock = FileLock(paths.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RunError(f"the run {paths.name!r} is being worked on by another process; wait for it to end") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def working_on(paths: RunPaths) -> Iterator[None]:
    """Holds the run's lock, keeps what is logged in `segsearch.log`, and records in `run.json` how the work ended.

    Raises:
        RunError: Another process works on the run.
    """
    with held(paths), logged(paths), _recorded(paths):
        yield


@contextmanager
def logged(paths: RunPaths) -> Iterator[None]:
    """Keeps what is logged in `segsearch.log`."""
    handler = LogFile(paths.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        with suppress(OSError):
            handler.close()


@contextmanager
def _recorded(paths: RunPaths) -> Iterator[None]:
    started = time.time()
    try:
        _begin(paths)
        yield
    except KeyboardInterrupt:
        update_run(paths, status="interrupted")
        raise
    except BaseException as error:
        fault = disk_stop(error)
        if fault is None:
            update_run(paths, status="failed", error=f"{type(error).__name__}: {error}")
            if isinstance(error, LoaderError):
                raise LoaderError(f"{error}. Continue with: {run_command('resume', paths.root)}") from error
            raise
        with despite_the_disk():
            update_run(paths, status="interrupted")
        again = run_command("resume", paths.root)
        raise DiskError(
            f"{fault}. The run stops here, and nothing that was done is lost; on the disk of {paths.root}, "
            f"{room_at(paths.root)} now. When there is room, continue with: {again}"
        ) from error
    finally:
        with despite_the_disk():
            timings = read_run(paths).timings
            total = timings.get("total_s", 0.0) + time.time() - started
            update_run(paths, timings={**timings, "total_s": round(total, 3)})


def record_interruption(paths: RunPaths) -> None:
    """Records that this process, which is about to end without further ado, was interrupted in its work on a run."""
    record = read_run(paths)
    timings = dict(record.timings)
    if record.worker is not None:
        timings["total_s"] = round(timings.get("total_s", 0.0) + time.time() - record.worker.since, 3)
    if record.stage is not None:
        timings[f"{record.stage.name}_s"] = round(stage_seconds(paths, record.stage.name), 3)
    update_run(paths, status="interrupted", timings=timings, stage=None)


def _this_process() -> Worker:
    return Worker(host=socket.gethostname(), pid=os.getpid(), since=time.time())


def _begin(paths: RunPaths) -> None:
    """Records that this process works on the run now.

    Adds the time of an earlier session that was killed before it could record it, up to its last report.
    """
    record = read_run(paths)
    timings = dict(record.timings)
    if record.status == "running" and record.worker is not None:
        lost = max(0.0, _last_report(paths) - record.worker.since)
        timings["total_s"] = round(timings.get("total_s", 0.0) + lost, 3)
    if record.stage is not None:
        timings[f"{record.stage.name}_s"] = round(stage_seconds(paths, record.stage.name), 3)
    update_run(paths, status="running", worker=_this_process(), timings=timings, stage=None)


def _last_report(paths: RunPaths) -> float:
    journals = (paths.events, paths.reruns.events)
    return max((journal.stat().st_mtime for journal in journals if journal.exists()), default=0.0)


class RunChanges(TypedDict, total=False):
    """Fields of a `RunRecord` that change while a run is worked on; None drops a field."""

    status: Status
    worker: Worker
    stage: Stage | None
    timings: dict[str, float]
    trials: int
    data_fingerprint: str
    gate: dict[str, Any]
    packing: Packing
    stopped_by: StoppedBy | None
    extensions: list[ExtensionNote]
    error: str | None


def update_run(paths: RunPaths, **changes: Unpack[RunChanges]) -> None:
    """Changes fields of `run.json`, which is replaced whole; None drops a field.

    An `error` is dropped once the status is not a failure.
    """
    record = read_run(paths).but(format=FORMAT, **changes)
    if record.status not in ("failed", "export_failed"):
        record = record.but(error=None)
    write_json(paths.run, record.tree())


@contextmanager
def timed(paths: RunPaths, stage: str) -> Iterator[None]:
    """Adds the seconds that a stage took to `run.json`, over all sessions."""
    update_run(paths, stage=Stage(name=stage, since=time.time()))
    try:
        yield
    finally:
        timings = {**read_run(paths).timings, f"{stage}_s": round(stage_seconds(paths, stage), 3)}
        update_run(paths, timings=timings, stage=None)


def stage_seconds(paths: RunPaths, stage: str) -> float:
    """Seconds that a stage has taken so far, over all sessions.

    The stage that this process is in counts until now; one in which an earlier process was killed, until its last
    report.
    """
    record = read_run(paths)
    total, entered = record.timings.get(f"{stage}_s", 0.0), record.stage
    if entered is None or entered.name != stage:
        return total
    until = time.time() if entered.since >= _IMPORTED else _last_report(paths)
    return total + max(0.0, until - entered.since)
