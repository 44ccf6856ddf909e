"""The sampler of a search, with everything that the search has tried so far."""

from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from search.sampling.proposer import Proposer
from search.sampling.small_spaces import has_an_end
from search.schedulers.build import decision_epochs
from search.space.search import Search
from search.study.observations import observations
from search.study.recording import point_in


def build_proposer(search: Search, study: optuna.Study) -> Proposer:
    """The config's sampler, with every trial of the study that is a point of the present space."""
    settings, base, space = search.config.search, search.base, search.space
    own = space.defaults(base)
    first = [*([(own, "config")] if own else []), *((point, "enqueued") for point in search.enqueued_points())]
    proposer = Proposer(
        space,
        settings.sampler,
        seed=settings.seed,
        num_samples=settings.num_samples,
        max_epochs=base.train.epochs,
        rungs=decision_epochs(settings.scheduler, base.train.epochs),
        objective=search.objective,
        first=first,
        points=search.points,
    )
    for trial in observations(study):
        point = point_in(space, base, trial.params)
        if point is None:
            continue
        proposer.started(trial.number, point, trial.origin)
        if trial.cost is not None:
            proposer.cost(trial.number, trial.cost)
        for epoch, value in trial.values.items():
            proposer.reported(trial.number, epoch, value)
        if trial.state != TrialState.RUNNING:
            proposer.ended(trial.number, failed=trial.state == TrialState.FAIL and not trial.is_nodes_fault)
    return proposer


def points_left(search: Search, tried: Iterable[Mapping[str, Any]]) -> int | None:
    """How many points of the space are left; None where there is no end of them, or forks need none.

    Args:
        search: What is searched.
        tried: What trials ran with, as flat dotted keys; some may be no points of the space.
    """
    if not has_an_end(search):
        return None
    points = (point_in(search.space, search.base, flat) for flat in tried)
    return search.points.left({search.points.key(point) for point in points if point is not None})
