"""Earlier trials seen from the present space: which lie outside of it, and under what distributions they are kept.

Optuna lets nobody touch a trial that has ended, so this is the one place that writes to the tables of `study.db`
itself: one transaction, before the study is opened, and again only when the space has changed.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial

from search.space.parse import parse_space
from search.space.tree import Space
from search.study.endings import tell_end
from search.study.observations import PARAMS_ATTR
from search.study.recording import (
    OUTSIDE_ATTR,
    covering,
    distribution_of,
    in_space,
)
from segcore.config import TrainConfig
from segcore.objective import Objective

SPACE_ATTR = "space"
"""User attribute of the study: the space that its trials were last compared with."""


def fit_history(study_file: Path, raw_space: Mapping[str, Any], base: TrainConfig) -> None:
    """Marks the trials outside of the space, unmarks the others, and widens recorded distributions to hold the space.

    Args:
        study_file: `study.db`; where there is none, nothing is done.
        raw_space: The config's `space` section.
        base: The config that the searched keys are put into.
    """
    if not study_file.exists():
        return
    text = json.dumps(raw_space, sort_keys=True)
    with closing(sqlite3.connect(study_file, timeout=60)) as connection, connection:
        studies = connection.execute("SELECT study_id FROM studies").fetchall() if _has_tables(connection) else []
        if not studies or _last_space(connection) == text:
            return
        space = parse_space(raw_space, base)
        _mark(connection, space, base)
        for node in space.parameters():
            _widen(connection, node.name, distribution_of(node.domain))
        connection.execute("DELETE FROM study_user_attributes WHERE key = ?", (SPACE_ATTR,))
        connection.execute(
            "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (?, ?, ?)",
            (studies[0][0], SPACE_ATTR, json.dumps(text)),
        )


def _has_tables(connection: sqlite3.Connection) -> bool:
    """A process may have died after it had made the file."""
    return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'trial_params'").fetchone())


def _last_space(connection: sqlite3.Connection) -> str | None:
    row = connection.execute("SELECT value_json FROM study_user_attributes WHERE key = ?", (SPACE_ATTR,)).fetchone()
    return None if row is None else str(json.loads(row[0]))


def _mark(connection: sqlite3.Connection, space: Space, base: TrainConfig) -> None:
    rows = connection.execute("SELECT trial_id, value_json FROM trial_user_attributes WHERE key = ?", (PARAMS_ATTR,))
    outside = [trial_id for trial_id, params in rows.fetchall() if not in_space(space, base, json.loads(params))]
    connection.execute("DELETE FROM trial_user_attributes WHERE key = ?", (OUTSIDE_ATTR,))
    connection.executemany(
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, 'true')",
        [(trial_id, OUTSIDE_ATTR) for trial_id in outside],
    )


def _widen(connection: sqlite3.Connection, name: str, own: BaseDistribution) -> None:
    """Gives all values of a parameter one distribution that covers them and `own`; nothing where there is none such."""
    rows = connection.execute(
        "SELECT param_id, param_value, distribution_json FROM trial_params WHERE param_name = ? ORDER BY param_id",
        (name,),
    ).fetchall()
    if not rows:
        return
    stored = {text: json_to_distribution(text) for _, _, text in rows}
    wide: BaseDistribution | None = next(iter(stored.values()))
    for distribution in (*stored.values(), own):
        wide = None if wide is None else covering(wide, distribution)
    if wide is None:
        return
    changes = [
        (distribution_to_json(wide), wide.to_internal_repr(stored[text].to_external_repr(value)), param_id)
        for param_id, value, text in rows
        if stored[text] != wide
    ]
    connection.executemany("UPDATE trial_params SET distribution_json = ?, param_value = ? WHERE param_id = ?", changes)


def end_outside(study: optuna.Study, requeue: Sequence[FrozenTrial], objective: Objective) -> list[FrozenTrial]:
    """Ends the unfinished trials that the space no longer holds, at their last report, and returns the others."""
    outside = [trial for trial in requeue if trial.user_attrs.get(OUTSIDE_ATTR)]
    for trial in outside:
        tell_end(study, trial.number, trial.intermediate_values, objective)
    return [trial for trial in requeue if trial not in outside]
