"""All file names of a run, and writing those files so that no reader ever sees half of one."""

import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.commands import remedy
from search.errors import RunError


@dataclass(frozen=True)
class RunPaths:
    """File names below a run's folder, `results/<name>/`."""

    root: Path

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return self.root.name

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.root / "config.yaml"

    def earlier_config(self, extension: int) -> Path:
        """The config that the run had before its extension of that number, from 1."""
        return self.root / f"config.{extension}.yaml"

    @property
    def run(self) -> Path:
        """Status, versions, seed, host and timings."""
        return self.root / "run.json"

    @property
    def lock(self) -> Path:
        """Held by the one process that works on the run."""
        return self.root / ".lock"

    @property
    def study(self) -> Path:
        """Optuna's SQLite storage."""
        return self.root / "study.db"

    @property
    def storage_url(self) -> str:
        """`study.db` in Optuna's spelling."""
        return f"sqlite:///{self.study.resolve()}"

    @property
    def events(self) -> Path:
        """Append-only journal: a JSON line for each epoch and each error, written before anything else is updated."""
        return self.root / "events.jsonl"

    @property
    def trials(self) -> Path:
        """One row per trial."""
        return self.root / "trials.parquet"

    @property
    def epochs(self) -> Path:
        """One row per epoch."""
        return self.root / "epochs.parquet"

    @property
    def tune(self) -> Path:
        """Ray's files: `session-K/trial_NNNNN[-ATTEMPT]/checkpoint_NNNNNN/`; of forks: `snapshots/`, `forks/`."""
        return self.root / "tune"

    @property
    def reruns(self) -> "RunPaths":
        """Trainings made again beside the search, with a journal and checkpoints of their own."""
        return RunPaths(self.root / "reruns")

    @property
    def trainings(self) -> Path:
        """In `reruns`: the list of its trainings, by number."""
        return self.root / "trainings.json"

    @property
    def confirmation(self) -> Path:
        """The results of the best trials with other seeds."""
        return self.root / "confirm.json"

    @property
    def ledger(self) -> Path:
        """What each change from the config's own values to the winner's is worth."""
        return self.root / "ledger.json"

    @property
    def best(self) -> Path:
        """The sealed model."""
        return self.root / "best"

    @property
    def export(self) -> Path:
        """What each export target holds."""
        return self.root / "export.json"

    @property
    def gate(self) -> Path:
        """The batch that was overfitted before anything else: images, masks, predictions."""
        return self.root / "gate.png"

    @property
    def report(self) -> Path:
        """The run as one HTML page."""
        return self.root / "report.html"

    @property
    def log(self) -> Path:
        """What the command said, with times."""
        return self.root / "segsearch.log"

    def trial_checkpoints(self, number: int) -> list[Path]:
        """Checkpoint folders of a trial over all sessions, newest first.

        The newest may be of an epoch whose report never arrived, when the process was killed; the one before it is
        still there then.
        """
        folders = reversed(self._trial_folders(number))
        return [path for folder in folders for path in sorted(folder.glob("checkpoint_*"), reverse=True)]

    def checkpoints(self) -> dict[int, list[Path]]:
        """`trial_checkpoints` of every trial that has any."""
        found: dict[int, list[Path]] = {}
        for path in self.tune.glob("session-*/trial_*/checkpoint_*"):
            found.setdefault(trial_number(path.parent.name), []).append(path)
        for paths in found.values():
            paths.sort(key=_age, reverse=True)
        return found

    def half_made_checkpoints(self, number: int | None = None) -> list[Path]:
        """Partial checkpoints that killed processes were writing or deleting, of one trial or all."""
        if number is None:
            return list(self.tune.glob("session-*/trial_*/.checkpoint_*"))
        return [path for folder in self._trial_folders(number) for path in folder.glob(".checkpoint_*")]

    def fork_checkpoints(self) -> list[Path]:
        """Snapshots of all trials, and what forks begin with."""
        return [*self.tune.glob("snapshots/trial_*/epoch_*"), *self.tune.glob("forks/trial_*")]

    def begin_attempt(self, session: str, number: int) -> int:
        """Makes a folder for a trial's next attempt in a session, and returns the attempt's number, from 0."""
        attempt = len(_attempts(self.tune / session, number))
        self.attempt(session, number, attempt).mkdir(parents=True)
        return attempt

    def attempt(self, session: str, number: int, attempt: int) -> Path:
        """A trial's folder in a session; its checkpoints are in it.

        Args:
            session: Name of the session.
            number: The trial.
            attempt: Number of the attempt in the session, from 0.
        """
        return self.tune / session / trial_dirname(number, attempt)

    def snapshot(self, number: int, epoch: int) -> Path:
        """A trial's checkpoint of that epoch, kept for forks of it."""
        return self.tune / "snapshots" / trial_dirname(number) / f"epoch_{epoch:06d}"

    def fork_start(self, number: int) -> Path:
        """The checkpoint of its parent that a fork begins with."""
        return self.tune / "forks" / trial_dirname(number)

    def _trial_folders(self, number: int) -> list[Path]:
        sessions = sorted(self.tune.glob("session-*"), key=lambda path: _trailing_int(path.name))
        return [folder for session in sessions for folder in _attempts(session, number)]

    def next_session(self) -> str:
        """The name of the next `tune/session-K` folder."""
        taken = [_trailing_int(path.name) for path in self.tune.glob("session-*")]
        return f"session-{max(taken, default=0) + 1}"


def trial_dirname(number: int, attempt: int = 0) -> str:
    """Name of a trial's folder; sorts in trial order up to 99,999. Attempts after the first one are numbered."""
    return f"trial_{number:05d}" + (f"-{attempt}" if attempt else "")


def trial_number(dirname: str) -> int:
    """The trial whose folder has that name."""
    return int(dirname.removeprefix("trial_").partition("-")[0])


def find_run(name_or_path: str, results: Path) -> RunPaths:
    """The run that a user named: a folder, or a name below `results`.

    Raises:
        RunError: Neither exists, with the runs that do.
    """
    for candidate in (results / name_or_path, Path(name_or_path)):
        paths = RunPaths(candidate)
        if paths.run.is_file() or (paths.config.is_file() and paths.events.is_file()):  # a run without its record
            return RunPaths(candidate.resolve())
    names = [paths.name for paths in list_runs(results)]
    known = f"runs there: {', '.join(names)}" if names else "there are no runs there yet"
    raise RunError(f"no run {name_or_path!r}: looked for {results / name_or_path} and {name_or_path}; {known}")


def list_runs(results: Path) -> list[RunPaths]:
    """All runs below `results`, newest first."""
    found = {path.parent.resolve() for name in ("run.json", "events.jsonl") for path in results.glob(f"*/{name}")}
    return sorted(map(RunPaths, found), key=_written, reverse=True)


def set_aside(path: Path) -> Path:
    """Renames a damaged file, so that it is kept when it is made anew; returns its new name."""
    count = 1
    while (aside := path.with_name(f"{path.name}.damaged-{count}")).exists():
        count += 1
    return path.rename(aside)


def _written(paths: RunPaths) -> float:
    """When a run was last written, by its record where there is one."""
    return (paths.run if paths.run.exists() else paths.events).stat().st_mtime


def write_text(path: Path, text: str) -> None:
    """Writes a file under a temporary name and moves it into place: a reader sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Writes a JSON object, indented, by `write_text`."""
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        RunError: The file is missing or not a JSON object.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}{remedy(path)}") from error
    if not isinstance(record, dict):
        raise RunError(f"{path} should hold a JSON object, found {type(record).__name__}{remedy(path)}")
    return record


def _attempts(session: Path, number: int) -> list[Path]:
    """A trial's folders in a session, oldest first."""
    candidates = (session / trial_dirname(number, attempt) for attempt in itertools.count())
    return list(itertools.takewhile(Path.is_dir, candidates))


def _age(checkpoint: Path) -> tuple[int, int, str]:
    """Sorts a trial's checkpoints by session, attempt and epoch."""
    folder = checkpoint.parent
    attempt = folder.name.partition("-")[2]
    return _trailing_int(folder.parent.name), int(attempt or 0), checkpoint.name


def _trailing_int(name: str) -> int:
    digits = name.rsplit("-", 1)[-1]
    return int(digits) if digits.isdigit() else 0
