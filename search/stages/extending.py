"""More trials for a search that has ended, in the same space or a changed one, with its history kept.

`plan_extension` refuses whatever would make old and new trials incomparable; `begin_extension` writes the new config.
From then on the run counts as interrupted, and `resume` continues it like any other.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.config.load import dump_config, load_config
from search.config.tree import SearchConfig
from search.errors import RunError
from search.runs.folder import (
    absolute_paths,
    held,
    stage_seconds,
    stored_config,
    update_run,
)
from search.runs.paths import RunPaths, write_text
from search.runs.records import ExtensionNote, read_run
from search.sampling.proposals import points_left
from search.space.search import Search
from search.study.lives import read_lives
from search.study.recording import in_space
from search.tune.stopping import SearchStopper
from segcore.errors import ConfigError

log = logging.getLogger("segsearch")

CHANGEABLE = ("space", "search", "resources", "tracking", "export")
_TRAINED_WITH = (
    "the earlier trials were trained with {old}; to vary it, search it: --set 'space.{key}={{choice: [...]}}'"
)
_JUDGED_BY = "the earlier trials were judged by it; start a new run with --name"
REASONS = {
    "data": "the earlier trials saw other data; start a new run with --name",
    "train": "the earlier trials were trained that way, and trials must be comparable; start a new run with --name",
    "search.metric": _JUDGED_BY,
    "search.mode": _JUDGED_BY,
    "search.second_metric": "the earlier trials were chosen and judged with it as it was; start a new run with --name",
    "name": "a run keeps its name",
    "results": "a run stays where it is",
}
"""Why a key cannot change in an extension; a longer key goes before its section."""


@dataclass(frozen=True)
class Extension:
    """What an extension will do.

    Attributes:
        search: What the run searches from now on.
        num_begun: Trials that the run has begun so far.
        num_more: Trials to add to them.
        changed: Dotted key -> `[before, after]`, without the number of trials.
        num_outside: Earlier trials that the space does not hold.
        num_left: Points of the space that were not tried; None where they cannot be counted.
    """

    search: Search
    num_begun: int
    num_more: int
    changed: dict[str, list[Any]]
    num_outside: int
    num_left: int | None = None

    @property
    def config(self) -> SearchConfig:
        """The run's config from now on."""
        return self.search.config


def plan_extension(paths: RunPaths, num_more: int, overrides: Sequence[str]) -> Extension:
    """Works out an extension, changing nothing.

    Args:
        paths: The run.
        num_more: Trials to add to those that were begun.
        overrides: `key=value` changes of its config.

    Raises:
        RunError: It is not a search, or it is being worked on.
        ConfigError: A key that must stay, or a stopping rule that would end the extension at once.
    """
    record = read_run(paths)
    if record.kind != "search":
        raise RunError(f"{paths.name!r} is one training run, not a search; there is nothing to add trials to")
    if record.status_now == "running":
        raise RunError(f"{paths.name!r} is still running; wait for it to end, or stop it, and extend it then")
    lives = [life for life in read_lives(paths).values() if life.state != "waiting"]
    total = len(lives) + num_more
    before = stored_config(paths)
    after = absolute_paths(load_config(paths.config, [*overrides, f"search.num_samples={total}"]))
    changed = _changes(before, after)
    if any(override.partition("=")[0].strip() == "search.num_samples" for override in overrides):
        changed["search.num_samples"] = [before.search.num_samples, total]
    problems = [f"  {key}: {reason}" for key, reason in _refusals(changed)]
    if problems:
        raise ConfigError(f"{paths.name!r} cannot be extended with these changes:\n" + "\n".join(problems))
    if not after.space:
        raise ConfigError("space: nothing would be searched, so all new trials would be the same; keep a key to search")
    if num_more == 0 and not changed:
        raise ConfigError(
            f"--num-samples 0 without a change of {paths.name!r} would do nothing; valid: a number of trials to add, "
            "or a change by --set, e.g. search.confirm.seeds=5"
        )
    stop = SearchStopper(after.search, lives, stage_seconds(paths, "search")).reason()
    if stop is not None and num_more:
        raise ConfigError(
            f"search.{stop.rule}: this rule would end the extension at once: {stop.detail}; "
            f"change it, or switch it off with --set search.{stop.rule}=null"
        )
    search = Search.of(after)
    params = [life.params for life in lives if life.params is not None]
    num_outside = sum(not in_space(search.space, search.base, flat) for flat in params)
    left = points_left(search, params) if num_more else None
    if left == 0:
        raise ConfigError(
            f"space: all {len(search.points.every or ())} points of it were tried, so {paths.name!r} cannot have "
            f"{num_more} more trials; widen it, e.g. " + "--set 'space.optimizer.lr={loguniform: [1e-4, 1e-2]}'"
        )
    return Extension(search, len(lives), num_more, changed, num_outside, left)


def begin_extension(paths: RunPaths, extension: Extension) -> None:
    """Writes the extended config and says what it will do.

    The note in `run.json` goes first and the config last: a run that was killed in between still has its old config,
    is interrupted, and finishes as before when resumed; its note is dropped by the next extension.

    Raises:
        RunError: Another process works on the run.
    """
    with held(paths):
        record = read_run(paths)
        notes = _that_took_place(paths, record.extensions)
        earlier = paths.earlier_config(len(notes) + 1)
        write_text(earlier, paths.config.read_text(encoding="utf-8"))
        note = ExtensionNote(
            when=time.time(),
            trials_before=extension.num_begun,
            num_samples=extension.num_more,
            changed=extension.changed,
            stopped_by=record.stopped_by,
            config_before=earlier.name,
        )
        update_run(paths, status="interrupted", extensions=[*notes, note], stopped_by=None)
        write_text(paths.config, dump_config(extension.config))
    begun, more = extension.num_begun, extension.num_more
    log.info("extending %s: %d trials so far, %d more, %d in all", paths.name, begun, more, begun + more)
    if extension.num_left is not None and extension.num_left < more:
        log.warning("the space has %d points left; %d more trials were asked for", extension.num_left, more)
    for key, (old, new) in extension.changed.items():
        log.info("changed: %s from %s to %s", key, old, new)
    if extension.num_outside:
        log.info(
            "%d earlier trials lie outside of the space now; they stay in the tables and may win, but guide no new one",
            extension.num_outside,
        )


def _that_took_place(paths: RunPaths, notes: list[ExtensionNote]) -> list[ExtensionNote]:
    """Drops the last note if its config was never written."""
    if not notes:
        return []
    config, earlier = (path.read_text(encoding="utf-8") for path in (paths.config, paths.earlier_config(len(notes))))
    return notes[:-1] if config == earlier else notes


def _changes(before: SearchConfig, after: SearchConfig) -> dict[str, list[Any]]:
    """`{dotted key: [before, after]}` of all that differs but the number of trials; a key of the space is one."""
    old, new = (dict(_leaves(config.model_dump(mode="json"))) for config in (before, after))
    keys = [key for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key) and key != "search.num_samples"]
    return {key: [old.get(key), new.get(key)] for key in keys}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value and prefix != "space.":
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _refusals(changed: Mapping[str, list[Any]]) -> Iterator[tuple[str, str]]:
    for key, (old, _) in changed.items():
        section = key.partition(".")[0]
        if key == "search.num_samples":
            yield key, "is set by --num-samples, which counts the trials to add, not all of them"
        elif key in REASONS or section in REASONS:
            yield key, REASONS.get(key) or REASONS[section]
        elif section not in CHANGEABLE:
            yield key, _TRAINED_WITH.format(old=old, key=key)
