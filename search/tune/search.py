"""The Ray Tune part of a run: what is left of a search, from nothing or after a stop."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune

from search.interrupts import terminate_as_interrupt
from search.runs.paths import RunPaths
from search.space.search import Search
from search.tune.cluster.watch import memory_kills_end_one_trial
from search.tune.session import Session, waiting_at_rungs
from search.tune.standing import Standing
from segcore.trainable import train_trial


def run_search(
    search: Search,
    paths: RunPaths,
    cache_path: Path,
    callbacks: Sequence[tune.Callback] = (),
    trainable: Callable[[dict[str, Any]], None] = train_trial,
) -> bool:
    """Runs what is left of a search, from nothing or after a stop, and writes the tables.

    Args:
        search: What is searched.
        paths: The run's folder; `study.db` and `events.jsonl` there say what is done already.
        cache_path: The decoded samples.
        callbacks: Further driver-side callbacks; they are called after the journal's.
        trainable: What trains a trial; it takes the spec of `train_trial` and reports what that does.

    Returns:
        Whether the search finished; False when it was interrupted and can be resumed.

    Raises:
        ResourceError: No node could ever run a trial.
    """
    standing = Standing.of(search, paths)
    try:
        if standing.is_done:
            standing.save_tables()
            return True
        stopper = standing.stopper()
        if stopper.stop_all() and stopper.stopped_by is not None:
            standing.end_by(stopper.stopped_by, waiting_at_rungs(standing))
            return True
        session = Session.begin(standing, cache_path)
        with terminate_as_interrupt() as interrupted, memory_kills_end_one_trial():
            session.tuner(stopper, callbacks, trainable).fit()
        session.searcher.flush()
        stop = stopper.stopped_by if standing.is_unfinished and not interrupted else None
        if stop is not None:
            standing.end_by(stop, session.waiting)
        else:
            standing.save_tables()
            standing.say_if_used_up()
        is_whole = stop is not None or not (interrupted or standing.is_unfinished)
        session.budget.settle()
        return is_whole
    finally:
        standing.close()
