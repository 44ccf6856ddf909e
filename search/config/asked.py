"""What a choice of the config is checked against: the size of the search that it is made for."""

from dataclasses import dataclass

from search.space.tree import Space


@dataclass(frozen=True)
class Asked:
    """A search, as far as a scheduler's options depend on it.

    Attributes:
        given: The options that the file sets; those that it leaves out give way to a short search.
        epochs: Epochs of a trial.
        num_samples: Trials of the search.
        space: What is searched.
    """

    given: frozenset[str]
    epochs: int
    num_samples: int
    space: Space
