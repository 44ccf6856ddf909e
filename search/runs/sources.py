"""The report's view of a run while its sections move to `search.runs.reading.Run`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from search.config.tree import SearchConfig
from search.errors import RunError
from search.runs.folder import status_now, stored_config
from search.runs.journal import read_events
from search.runs.paths import RunPaths, read_json
from search.runs.tables import best_trial, build_tables, read_table
from segcore.objective import Objective
from segcore.sealed.card import CARD_FILE, read_card

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Sources:
    """A run as its files tell it.

    Attributes:
        run: `run.json`, with the status that holds now.
        config: The resolved config.
        config_tree: The same as its file has it.
        card: The sealed model's card, if there is one.
        trials: `trials.parquet`; empty for a single training run.
        epochs: `epochs.parquet`.
        frozen: The study's trials; empty for a single training run.
        checkpoints: Checkpoint folders of the winner, newest first; of a single training run, its own.
        confirmation: `confirm.json`, if there is one.
        ledger: `ledger.json`, if there is one.
    """

    run: dict[str, Any]
    config: SearchConfig
    config_tree: dict[str, Any]
    card: dict[str, Any] | None
    trials: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    frozen: list["FrozenTrial"]
    checkpoints: list[Path]
    confirmation: dict[str, Any] | None = None
    ledger: dict[str, Any] | None = None

    @property
    def sign(self) -> float:
        """Times a value of the metric: larger is better."""
        return 1.0 if self.config.search.mode == "max" else -1.0

    @property
    def winner(self) -> int | None:
        """The sealed trial, or the best one while nothing is sealed; None for a single training run."""
        return winner_of(self.card, self.trials, self.config.search.objective)

    def row(self, number: int | None) -> dict[str, Any] | None:
        """A trial's row."""
        return next((row for row in self.trials if row["number"] == number), None)


def read_sources(paths: RunPaths) -> Sources:
    """Reads a run's files; one that is not there yet is empty.

    Raises:
        RunError: A file cannot be read.
    """
    run, config = read_json(paths.run), stored_config(paths)
    card = read_card(paths.best) if (paths.best / CARD_FILE).is_file() else None
    frozen: list[FrozenTrial] = []
    if paths.study.exists():
        from search.study.storage import stored_trials

        frozen = stored_trials(paths.storage_url, paths.name)
    trials, epochs = _table(paths.trials), _table(paths.epochs)
    if trials is not None:
        epochs = epochs or []
    elif frozen:  # a search that has not come to its first table
        tables = build_tables(frozen, read_events(paths.events), config.search.objective)
        trials, epochs = tables.trials, tables.epochs
    else:
        trials, epochs = [], epochs or []
    winner = winner_of(card, trials, config.search.objective) if run["kind"] == "search" else 0
    return Sources(
        run={**run, "status": status_now(run)},
        config=config,
        config_tree=yaml.safe_load(paths.config.read_text(encoding="utf-8")),
        card=card,
        trials=trials,
        epochs=epochs,
        frozen=frozen,
        checkpoints=_checkpoints(paths, card, winner),
        confirmation=read_json(paths.confirmation) if paths.confirmation.exists() else None,
        ledger=read_json(paths.ledger) if paths.ledger.exists() else None,
    )


def _checkpoints(paths: RunPaths, card: dict[str, Any] | None, winner: int | None) -> list[Path]:
    """Of what is sealed, which may be the winner trained again with another seed."""
    again = card["origin"].get("rerun") if card else None
    if again is not None:
        return paths.reruns.trial_checkpoints(again)
    return [] if winner is None else paths.trial_checkpoints(winner)


def _table(path: Path) -> list[dict[str, Any]] | None:
    if not path.exists():
        return None
    try:
        return read_table(path)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def winner_of(card: dict[str, Any] | None, trials: list[dict[str, Any]], objective: Objective) -> int | None:
    """The trial that was sealed; the best one, where none is."""
    if card is not None and "trial" in card["origin"]:
        return int(card["origin"]["trial"])
    best = best_trial(trials, objective)
    return best["number"] if best else None
