"""What each stage of a run gets: its files, its search, its data, and where progress is shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from search.config.tree import SearchConfig
from search.runs.paths import RunPaths
from search.space.search import Search
from segcore.data.pairs.samples import DatasetIndex, Sample


@dataclass(frozen=True)
class Work:
    """A run that is ready to be worked on: its config is whole, and its data is decoded.

    Attributes:
        paths: The run's folder.
        search: What its config describes; of a single training run, without a space.
        index: Its images and masks.
        cache_path: Its decoded samples.
        console: Where progress is shown.
    """

    paths: RunPaths
    search: Search
    index: DatasetIndex
    cache_path: Path
    console: Console

    @property
    def config(self) -> SearchConfig:
        """The run's config."""
        return self.search.config

    @property
    def val(self) -> Sequence[Sample]:
        """The validation samples, in the order of the cache."""
        return self.index.split("val")
