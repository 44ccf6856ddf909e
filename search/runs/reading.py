"""The one reader of a run that runs, has ended or was killed: each of its files is read when it is asked for."""

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from search.commands import remedy, run_command
from search.errors import BundleError, RunError
from search.runs.journal import read_journal
from search.runs.lives import TrialLife, lives_of
from search.runs.paths import RunPaths
from search.runs.records import ExportRecord, RunRecord, read_exports, read_run
from search.runs.rerun_records import Confirmation, Ledger, read_confirmation, read_ledger
from search.runs.rows import EpochRow, TrialRow, epoch_rows
from search.runs.sealed_training import SealedTraining, sealed_training
from search.runs.trials import Trials
from segcore.objective import Objective
from segcore.sealed.card import CARD_FILE, Card, read_card

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from search.config.tree import SearchConfig

log = logging.getLogger("segsearch")


class Run:
    """A run as its files have it; a file that is not there yet reads as None or empty.

    What was read once is kept: open the run again to see later changes. Any part raises a RunError
    where its file is damaged, and a BundleError where the card is.

    Args:
        paths: Where its files are.
    """

    def __init__(self, paths: RunPaths) -> None:
        self.paths = paths

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Opens the run in a folder.

        Raises:
            RunError: There is no run.
        """
        paths = RunPaths(Path(path).resolve())
        if not paths.run.is_file():
            raise RunError(f"{path} is no run: it has no {paths.run.name}")
        return cls(paths)

    def __fspath__(self) -> str:
        """Its folder, so that it can be given for a path."""
        return str(self.paths.root)

    @property
    def name(self) -> str:
        """The run's name, which is its folder's."""
        return self.paths.name

    @cached_property
    def record(self) -> RunRecord:
        """`run.json`."""
        return read_run(self.paths)

    @cached_property
    def status(self) -> str:
        """Its present status: `running`, `stopped`, or what it recorded when it ended."""
        return self.record.status_now

    @cached_property
    def config_tree(self) -> dict[str, Any]:
        """The resolved config as its file has it, which is quicker to read than `config`."""
        import yaml

        try:
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as quick, where it is there
            tree = yaml.load(self.paths.config.read_text(encoding="utf-8"), loader)
        except (OSError, ValueError, yaml.YAMLError) as error:
            what = str(error).replace("\n", " ")
            raise RunError(f"{self.paths.config} cannot be read: {what}{remedy(self.paths.config)}") from error
        if not isinstance(tree, dict) or not isinstance(tree.get("search"), dict):
            raise RunError(f"{self.paths.config} is not the config of a run{remedy(self.paths.config)}")
        return tree

    @cached_property
    def config(self) -> "SearchConfig":
        """The resolved config, checked."""
        from search.config.load import load_config

        return load_config(self.paths.config)

    @cached_property
    def objective(self) -> Objective:
        """What its trials are judged by."""
        search = self.config_tree["search"]
        if "metric" not in search or "mode" not in search:
            return self.config.search.objective
        return Objective(search["metric"], search["mode"], search.get("second_metric"))

    @cached_property
    def trials(self) -> Trials:
        """The search's trials; empty for a single training run."""
        return self._tables[0]

    @cached_property
    def num_trials(self) -> int:
        """How many trials there are, reading as little as possible; 0 for a single training run."""
        if self.record.kind == "train":
            return 0
        if self.status in ("done", "export_failed"):
            if self.record.trials is not None:
                return self.record.trials
            if self.card is not None and self.card.origin.trials is not None and not self.record.extensions:
                return self.card.origin.trials  # format 1 counts them on the card alone
        return len(self.told)

    @cached_property
    def told(self) -> Trials:
        """The trials from the journal alone: quick to read, but without the parameters in a run of format 1."""
        lives = self._journal.values() if self.record.kind == "search" else ()
        return Trials.of_lives(lives, self.objective)

    @cached_property
    def epochs(self) -> list[EpochRow]:
        """Every report, in order of trial and epoch."""
        return self._tables[1]

    @cached_property
    def lives(self) -> dict[int, TrialLife]:
        """Every trial of a search from its beginning to its end, by number."""
        from search.study.lives import read_lives

        return read_lives(self.paths) if self.record.kind == "search" else {}

    @cached_property
    def frozen(self) -> list["FrozenTrial"]:
        """The study's trials; empty for a single training run."""
        if not self.paths.study.exists():
            return []
        from search.study.storage import stored_trials

        return stored_trials(self.paths.storage_url, self.name)

    @cached_property
    def card(self) -> Card | None:
        """The sealed model's card."""
        if not (self.paths.best / CARD_FILE).is_file():
            return None
        try:
            return read_card(self.paths.best)
        except BundleError as error:
            again = run_command("resume", self.paths.root)
            raise BundleError(f"{error}. The model is sealed anew from its trial's checkpoint by: {again}") from error

    @cached_property
    def sealed(self) -> SealedTraining | None:
        """The training that is sealed: a trial's own, or one of its settings with another seed."""
        return None if self.card is None else sealed_training(self.card.origin, self.paths)

    @cached_property
    def confirmation(self) -> Confirmation | None:
        """The results of the best trials with other seeds."""
        return read_confirmation(self.paths)

    @cached_property
    def ledger(self) -> Ledger | None:
        """What each part of the winner's settings is worth."""
        return read_ledger(self.paths)

    @cached_property
    def exports(self) -> list[ExportRecord]:
        """The latest outcome of each export target."""
        return read_exports(self.paths)

    @cached_property
    def winner(self) -> int | None:
        """The sealed trial, or the best one while nothing is sealed; None for a single training run."""
        if self.card is not None and self.card.origin.trial is not None:
            return self.card.origin.trial
        best = self.trials.best()
        return best.number if best else None

    @cached_property
    def winning(self) -> TrialRow | None:
        """The row of `winner`."""
        return self.trials.get(self.winner)

    @cached_property
    def checkpoints(self) -> list[Path]:
        """Checkpoint folders of the training that is sealed, newest first; of the winner while nothing is.

        What is sealed may be the winner trained again with another seed. A single training run has its own.
        """
        if self.card is not None and self.card.origin.rerun is not None:
            return self.paths.reruns.trial_checkpoints(self.card.origin.rerun)
        number = self.winner if self.record.kind == "search" else 0
        return [] if number is None else self.paths.trial_checkpoints(number)

    @cached_property
    def _journal(self) -> dict[int, TrialLife]:
        journal = read_journal(self.paths.events)
        journal.warn()
        return lives_of(journal.events)

    @cached_property
    def _tables(self) -> tuple[Trials, list[EpochRow]]:
        """The trials from the journal, where it has what they ran with; else from the tables or the study."""
        if self.record.kind == "search":
            lives = self._journal
            if lives and all(life.params is not None or life.state == "waiting" for life in lives.values()):
                return self.told, epoch_rows(lives.values())
            if self._is_ahead_of_tables and self.lives:
                return Trials.of_lives(self.lives.values(), self.objective), epoch_rows(self.lives.values())
        try:
            trials, epochs = self._rows(self.paths.trials), self._rows(self.paths.epochs)
        except RunError as error:
            if not self.lives:
                raise
            log.warning("%s. What follows is from the journal", error)
            return Trials.of_lives(self.lives.values(), self.objective), epoch_rows(self.lives.values())
        return Trials.from_table(trials, self.objective), [_epoch(row) for row in epochs if "epoch" in row]

    @staticmethod
    def _rows(path: Path) -> list[dict[str, Any]]:
        from search.runs.tables import read_table

        try:
            return read_table(path) if path.exists() else []
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise RunError(f"{path} cannot be read: {reason}{remedy(path)}") from error

    @property
    def _is_ahead_of_tables(self) -> bool:
        """Whether the journal may have more than the tables, which are written when a session ends."""
        trials, events = self.paths.trials, self.paths.events
        if not trials.exists():
            return True
        return events.exists() and events.stat().st_mtime > trials.stat().st_mtime


def _epoch(row: Mapping[str, Any]) -> EpochRow:
    metrics = {key: v for key, v in row.items() if key not in ("number", "epoch", "time") and v is not None}
    return EpochRow(row["number"], row["epoch"], row["time"], metrics)
