"""What a sampler is: how it proposes points, and what it declares for the config and the docs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from segcore.params import Params

if TYPE_CHECKING:
    import numpy as np

    from search.sampling.cube import Cube
    from search.sampling.past import Past
    from search.space.tree import Space


@dataclass(frozen=True)
class Setting:
    """The search that a sampler belongs to.

    Attributes:
        space: What is searched.
        cube: The space as the unit cube.
        rungs: Epochs at which trials are compared, ascending; the last epoch of a trial is the last of them.
        weights: What the metric may weigh in a proposal, in [0, 1]; 1 alone in a search without a cost.
        seed: Seed of everything random.
    """

    space: "Space"
    cube: "Cube"
    rungs: Sequence[int]
    weights: Sequence[float]
    seed: int


@dataclass(frozen=True)
class Question:
    """What a sampler is asked: the settings of the next trial.

    Attributes:
        number: The trial that is asked for.
        trials: All trials so far; where there is a cost, their values weigh it already.
        weight: What the metric weighs in these values, one of the setting's weights.
        rng: Where everything random comes from, so that the answer follows from seed, number and trials.
        count: How many points will be looked at, at most.
    """

    number: int
    trials: "Sequence[Past]"
    weight: float
    rng: "np.random.Generator"
    count: int


class Sampler(Protocol):
    """A sampler that was built for a search."""

    def propose(self, question: Question) -> Iterable[Params]:
        """Points of the space, flat dotted key -> value, the preferred one first; may be endless."""


@dataclass(frozen=True)
class SamplerRule:
    """How one sampler is built, and what the rest of the program has to know about it.

    Attributes:
        does: What it does, for the docs.
        when: When it is the right one, for the docs.
        build: Builds it; None for a mixture.
        shares: Of a mixture: sampler -> chance that it is the one which proposes.
        learns: Whether it learns from the trials: then the search begins with an even start, and settings that
            failed are avoided.
    """

    does: str
    when: str
    build: Callable[[Setting], Sampler] | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    learns: bool = True
