"""Which trainings a gain ledger needs: from the config's own values to the winner's, one group of settings at a time.

Nothing is trained here. A cell is a config that has to be trained, whatever the seed; configs that train alike are one
cell, even if several rows need them. The threshold is applied to what was trained, so it makes no cell of its own.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from search.runs.trials import Trials
from search.space.domains import Choice, same_value
from search.space.effects import ignored_keys
from search.space.parse import apply
from search.space.tree import Space, all_nodes, flatten
from segcore.config import TrainConfig
from segcore.errors import ConfigError
from segcore.params import Params, ParamValue

GROUPS = ("architecture", "encoder", "loss", "augmentation", "scheduler", "optimizer", "training", "threshold")
"""In the order of the steps. Each comes before those whose settings depend on it."""
SELECTORS = {
    "architecture": "model.arch",
    "encoder": "model.encoder",
    "augmentation": "augment.policy",
    "scheduler": "lr_scheduler.name",
    "optimizer": "optimizer.name",
}
"""The key of each group that decides which of its other keys apply."""
_GROUP_OF_SECTION = {
    "model": "encoder",
    "loss": "loss",
    "augment": "augmentation",
    "lr_scheduler": "scheduler",
    "optimizer": "optimizer",
    "train": "training",
    "data": "training",
    "threshold": "threshold",
}
_UNTRAINED = frozenset({"threshold", "train.seed"})

Threshold = float | Literal["auto"]
Change = tuple[str, Any, Any]
"""Dotted key, value before, value after; before is None where training did not read the key."""


@dataclass(frozen=True)
class Scored:
    """A cell, and the threshold that its masks are cut at."""

    cell: str
    threshold: Threshold


@dataclass(frozen=True)
class Step:
    """One group's settings change to the winner's; several groups where one without the others is refused."""

    groups: tuple[str, ...]
    changes: tuple[Change, ...]
    before: Scored
    after: Scored

    @property
    def name(self) -> str:
        """`loss`, or `encoder + training`."""
        return " + ".join(self.groups)


@dataclass(frozen=True)
class Alternative:
    """The winner with the settings of one group taken from a trial that chose something else there."""

    group: str
    chosen: tuple[tuple[str, Any], ...]
    instead: tuple[tuple[str, Any], ...]
    of_trial: int
    scored: Scored


@dataclass(frozen=True)
class Plan:
    """What to train, and how the results are to be compared.

    `cells` has the winner first; one that is needed for several rows stands there once. `notes` say in plain words
    which comparisons are limited, and why.
    """

    trial: int
    cells: dict[str, TrainConfig]
    baseline: Scored
    winner: Scored
    steps: tuple[Step, ...]
    alternatives: tuple[Alternative, ...]
    notes: tuple[str, ...]


def group_of(key: str) -> str:
    """The group that a dotted key of a config belongs to."""
    if key in ("model.arch", "model.dropout"):
        return "architecture"
    return _GROUP_OF_SECTION[key.partition(".")[0]]


def make_plan(
    base: TrainConfig,
    space: Space,
    winner: int,
    params: Mapping[int, Mapping[str, ParamValue]],
    trials: Trials,
) -> Plan:
    """Plans the ledger of a search.

    A cell is trained with the threshold of the config, the winner's with the winner's own: where the threshold was
    searched, it may have decided which of its epochs is the best one, and only the row of the last step and that of the
    threshold see the difference.

    Args:
        base: The run's config; its own values are where the steps begin.
        space: The run's space.
        winner: Number of the trial that won.
        params: Of each trial by number, the searched dotted keys and their values; the winner's among them.
        trials: Their results.
    """
    final = apply(base, params[winner])
    cells = _Cells()
    last = Scored(cells.add("winner", final), final.threshold)
    first = Scored(cells.add("baseline", base), base.threshold)
    notes: list[str] = []
    steps = _steps(base, params[winner], space, first, cells, notes)
    if not same_value(base.threshold, final.threshold):
        change = ("threshold", base.threshold, final.threshold)
        steps.append(Step(("threshold",), (change,), Scored(last.cell, base.threshold), last))
    ranked = [row.number for row in trials.furthest_first() if row.number in params]
    alternatives = _alternatives(base, winner, params, ranked, space, cells, notes)
    return Plan(winner, cells.configs, first, last, tuple(steps), tuple(alternatives), tuple(notes))


class _Cells:
    """Configs by name; configs that train alike are there once."""

    def __init__(self) -> None:
        self.configs: dict[str, TrainConfig] = {}
        self._name_of: dict[str, str] = {}

    def add(self, name: str, config: TrainConfig) -> str:
        """The name of the cell that trains like the config: an earlier one's, or `name`."""
        found = self._name_of.setdefault(json.dumps(_trained_with(config), sort_keys=True), name)
        self.configs.setdefault(found, config)
        return found


def _trained_with(config: TrainConfig) -> Params:
    """The settings that training reads, but for the seed."""
    flat = flatten(config)
    unread = _UNTRAINED | ignored_keys(flat)
    return {key: value for key, value in flat.items() if key not in unread}


def _steps(
    base: TrainConfig, own: Mapping[str, ParamValue], space: Space, first: Scored, cells: _Cells, notes: list[str]
) -> list[Step]:
    start = flatten(base)
    changed: dict[str, Params] = {group: {} for group in GROUPS}
    for key, value in own.items():
        if not same_value(value, start[key]):
            changed[group_of(key)][key] = value
    waiting = [group for group in GROUPS[:-1] if changed[group]]
    steps: list[Step] = []
    taken: Params = {}
    here, before = base, first
    while waiting:
        joined = [waiting.pop(0)]
        taken |= changed[joined[0]]
        while waiting and (why := _refusal(base, taken, space)) is not None:  # with all groups it trains as the winner
            allowed = (group for group in waiting if _refusal(base, taken | changed[group], space) is None)
            partner = next(allowed, waiting[0])
            notes.append(f"{' + '.join(joined)} and {partner} are one step: without {partner} it is refused, {why}")
            waiting.remove(partner)
            joined.append(partner)
            taken |= changed[partner]
        there = apply(base, taken)
        changes = _changes(here, there, taken)
        if changes:
            name = " + ".join(joined)
            after = Scored(cells.add(f"after {name}", there), base.threshold)
            steps.append(Step(tuple(joined), changes, before, after))
            here, before = there, after
    return steps


def _changes(before: TrainConfig, after: TrainConfig, keys: Iterable[str]) -> tuple[Change, ...]:
    """Of these keys, those that training reads after the step, with another value than before it."""
    old, new = _trained_with(before), _trained_with(after)
    read = [key for key in keys if key in new]
    return tuple((key, old.get(key), new[key]) for key in read if key not in old or not same_value(old[key], new[key]))


def _alternatives(
    base: TrainConfig,
    winner: int,
    params: Mapping[int, Mapping[str, ParamValue]],
    ranked: Sequence[int],
    space: Space,
    cells: _Cells,
    notes: list[str],
) -> list[Alternative]:
    start, own = flatten(base), params[winner]
    final = apply(base, own)
    found: list[Alternative] = []
    for group, selector in SELECTORS.items():
        choice = flatten(final)[selector]
        others = [n for n in ranked if not same_value(params[n].get(selector, start[selector]), choice)]
        if not same_value(choice, start[selector]) or not others:
            continue
        moved = _moved_with(selector, space) | {key for key in start if group_of(key) == group}
        refusals = []
        for number in others:
            theirs = {**start, **params[number]}
            mixed = {**own, **{key: theirs[key] for key in moved}}
            why = _refusal(base, mixed, space)
            if why is not None:
                refusals.append(f"trial {number}: {why}")
                continue
            config = apply(base, mixed)
            keys = dict.fromkeys(key for key in (*own, *params[number]) if key in moved)
            scored = Scored(cells.add(f"{group} of trial {number}", config), final.threshold)
            chosen, instead = _difference(final, config, keys), _difference(config, final, keys)
            found.append(Alternative(group, chosen, instead, number, scored))
            break
        else:
            notes.append(f"{group}: no other option goes with the winner's other settings ({refusals[0]})")
    return found


def _moved_with(selector: str, space: Space) -> set[str]:
    """The keys that some option of a choice sets, whatever group they belong to."""
    choices = [node.domain for node, _ in all_nodes(space.nodes) if node.key == selector]
    options = [option for choice in choices if isinstance(choice, Choice) for option in choice.options]
    return {node.key for option in options for node, _ in all_nodes(option.nodes)} - {"threshold"}


def _difference(config: TrainConfig, other: TrainConfig, keys: Iterable[str]) -> tuple[tuple[str, Any], ...]:
    """Those of the keys that training with `config` reads and that differ in `other`, with the config's values."""
    return tuple((key, value) for key, _, value in _changes(other, config, keys))


def _refusal(base: TrainConfig, flat: Mapping[str, ParamValue], space: Space) -> str | None:
    """Why a config with these keys set should not be trained; None if it may be."""
    try:
        config = apply(base, flat)
        if config.model.decoder_channels is not None:
            from segcore.models.build import build_model_outline  # brings torch

            build_model_outline(config.model)  # how many widths a decoder needs is known to the encoder alone
    except ConfigError as error:
        return str(error)
    rule = space.forbidden(flatten(config))
    return None if rule is None else f"forbidden by `{rule}`"
