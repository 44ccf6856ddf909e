"""What every scheduler is built from, besides its own options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from segcore.objective import Objective

if TYPE_CHECKING:
    from search.schedulers.forks import Snapshots
    from search.schedulers.rungs import Promotions

Curves = Mapping[int, Mapping[int, float]]
"""Trial number -> epoch -> value of the metric, of trials that ran before."""


@dataclass(frozen=True)
class Setting:
    """The search that a scheduler belongs to, and its progress so far.

    Attributes:
        objective: What trials are compared by.
        max_epochs: Epochs of a trial that is not stopped.
        seed: Seed of what a scheduler draws.
        history: What trials reported in earlier sessions; they are not judged again there.
        unfinished: Those of them that continue.
        costs: Trial number -> cost, of trials that ran before.
        snapshots: Where checkpoints are kept that forks may begin with.
        promotions: Which trials wait at which rung, for a scheduler that lets trials wait.
    """

    objective: Objective
    max_epochs: int
    seed: int = 0
    history: Curves = field(default_factory=dict)
    unfinished: frozenset[int] = frozenset()
    costs: Mapping[int, float] = field(default_factory=dict)
    snapshots: "Snapshots | None" = None
    promotions: "Promotions | None" = None
