"""A search as its config describes it, read once: what is varied around what, and what is better."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from search.config.tree import SearchConfig
from search.space.enqueue import enqueued_points
from search.space.parse import apply, parse_space
from search.space.points import Points
from search.space.tree import Space, flatten
from segcore.config import TrainConfig
from segcore.objective import Objective
from segcore.params import Params, ParamValue


@dataclass(frozen=True)
class Search:
    """A config's search, parsed once and passed to everything that works on it.

    Attributes:
        config: The run's config.
        base: What one training run needs of it, with the config's own values.
        space: What is varied in `base`.
        objective: What trials are compared by.
    """

    config: SearchConfig
    base: TrainConfig
    space: Space
    objective: Objective

    @classmethod
    def of(cls, config: SearchConfig) -> "Search":
        """Reads the space of a config.

        Raises:
            ConfigError: The space is not sound; lists every problem.
        """
        base = config.train_config()
        return cls(config, base, parse_space(config.space, base), config.search.objective)

    @cached_property
    def points(self) -> Points:
        """The points of the space that differ in what is trained."""
        return Points(self.space, flatten(self.base))

    def enqueued_points(self) -> list[Params]:
        """The points of `search.enqueue`, each with a value for every key that its branches search or set.

        Raises:
            ConfigError: One is not a point of the space; lists every problem of them all.
        """
        return enqueued_points(self.config, self.space)

    def trained_with(self, params: Mapping[str, ParamValue]) -> TrainConfig:
        """What a trial trains with.

        Args:
            params: Searched dotted keys and the trial's values.

        Raises:
            ConfigError: A key does not exist, or a value breaks a rule.
        """
        return apply(self.base, params)
