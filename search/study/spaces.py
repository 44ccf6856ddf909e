"""The space that a run searches, with those that it searched before it was extended."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from optuna.distributions import CategoricalDistribution

from search.runs.paths import RunPaths
from search.space.parse import parse_space
from search.space.search import Search
from search.space.tree import Space
from search.study.recording import Recorded, distribution_of, in_space, points_of
from segcore.config import TrainConfig
from segcore.errors import ConfigError


@dataclass(frozen=True)
class Spaces:
    """A run's spaces.

    Attributes:
        text: The present one as JSON, which says whether it has changed.
        base: The config that the searched keys are put into.
        present: The present one.
        earlier: Those before, newest first.
    """

    text: str
    base: TrainConfig
    present: Space
    earlier: tuple[Space, ...] = ()

    @classmethod
    def of(cls, search: Search, paths: RunPaths | None = None) -> "Spaces":
        """The space of a search, and those of the configs that the run had before."""
        earlier = _earlier(paths, search.base) if paths is not None else []
        return cls(json.dumps(search.config.space, sort_keys=True), search.base, search.space, tuple(earlier))

    def holds(self, flat: Mapping[str, Any]) -> bool:
        """Whether a trial of the present space would run with just these flat parameters."""
        return in_space(self.present, self.base, flat)

    def own(self) -> Recorded:
        """Every parameter of the present space, without a value."""
        return {node.name: (None, distribution_of(node.domain)) for node in self.present.parameters()}

    def recorded(self, flat: Mapping[str, Any]) -> Recorded:
        """A trial's parameters, as recorded for the space in which it was proposed.

        If no known space holds the trial, each value becomes a choice with that one option.
        """
        for space in (self.present, *self.earlier):
            try:
                point = points_of(space, flat)
            except (KeyError, ValueError):
                continue
            if set(space.from_params({name: value for name, (value, _) in point.items()})) == set(flat):
                return point
        scalars = {key: value for key, value in flat.items() if isinstance(value, str | int | float | bool)}
        return {key: (value, CategoricalDistribution([value])) for key, value in scalars.items()}


def _earlier(paths: RunPaths, base: TrainConfig) -> list[Space]:
    found: list[Space] = []
    while (path := paths.earlier_config(len(found) + 1)).exists():
        try:
            found.append(parse_space(yaml.safe_load(path.read_text(encoding="utf-8")).get("space", {}), base))
        except (OSError, ConfigError, yaml.YAMLError):
            found.append(Space())  # of a version that this one cannot read
    return found[::-1]
