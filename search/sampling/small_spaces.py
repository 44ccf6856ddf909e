"""A search whose space has fewer points than trials: each point is tried once, and the search ends with the last."""

from search.schedulers.build import population_of
from search.space.points import too_few
from search.space.search import Search


def has_an_end(search: Search) -> bool:
    """Whether the space can be used up: its points can be counted, and no new trial is made of another one's."""
    return population_of(search.config.search.scheduler, search.base.train.epochs) is None and bool(search.points.every)


def too_few_points(search: Search) -> str | None:
    """A line for the user where the space has fewer points than trials were asked for, else None."""
    every = search.points.every if has_an_end(search) else None
    return None if every is None else too_few(len(every), search.config.search.num_samples)
