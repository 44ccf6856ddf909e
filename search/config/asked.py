"""What a choice of the config is checked against: the size of the search that uses it."""

from dataclasses import dataclass

from search.space.tree import Space


@dataclass(frozen=True)
class Asked:
    """The part of a search that a scheduler's options depend on.

    Attributes:
        given: The options that the file sets; the defaults of the others adapt to a short search.
        epochs: Epochs of a trial.
        num_samples: Trials of the search.
        space: What is searched.
    """

    given: frozenset[str]
    epochs: int
    num_samples: int
    space: Space
