"""A searcher on a study of its own, told of trials as Ray tells it; and the study of a driver that was killed."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from specs import new_spec

from search.config.tree import SearchConfig
from search.runs.journal import EventLog, read_events
from search.runs.lives import lives_of
from search.sampling.proposer import Proposer
from search.schedulers.rungs import Promotions
from search.space.parse import parse_space
from search.space.search import Search
from search.study.mirror import catch_up
from search.study.storage import open_study, stored_trials
from search.tune.retries import Retries, WholeGpu
from search.tune.searcher import StudySearcher
from segcore.config import TrainConfig
from segcore.objective import Mode, Objective

METRIC = "val/iou"
OBJECTIVE = Objective(METRIC)
BASE = TrainConfig()
SPACE = parse_space(
    {
        "optimizer.lr": {"loguniform": [1e-5, 1e-1]},
        "lr_scheduler": {"choice": {"plateau": {"patience": {"int": [1, 50]}}, "cosine": {}}},
    },
    BASE,
)


def reopen(url: str) -> optuna.Study:
    """The study as a new process finds it."""
    return open_study(url, "birds", mode="max", sampler=None)


def journal_of(study: optuna.Study) -> EventLog:
    """The journal beside a study's file."""
    return EventLog(Path(study._storage._backend.engine.url.database).with_name("events.jsonl"))  # type: ignore


def unfinished(study: optuna.Study) -> list[FrozenTrial]:
    """Brings the study up to the journal beside it."""
    events = journal_of(study)
    return catch_up(study, lives_of(read_events(events.path)), OBJECTIVE, events)


def new_searcher(
    study: optuna.Study,
    *,
    num_samples: int = 10,
    mode: Mode = "max",
    requeue: list[FrozenTrial] | None = None,
    alone: Collection[int] = (),
    promotions: Promotions | None = None,
) -> StudySearcher:
    """A searcher with random samples on a study, with its journal beside it."""
    config = SearchConfig.model_validate({"name": "birds", "search": {"num_samples": num_samples}})
    return StudySearcher(
        study, Search(config, BASE, SPACE, Objective(METRIC, mode)), new_spec,
        Proposer(SPACE, "random", seed=0, num_samples=10, max_epochs=5, objective=Objective(METRIC, mode)),
        journal_of(study),
        retries=Retries(requeue or [], alone, WholeGpu(2.0)), promotions=promotions,
    )  # fmt: skip


def suggested(searcher: StudySearcher, trial_id: str) -> dict[str, Any]:
    """What Ray would start a trial with; fails if there is nothing to start."""
    spec = searcher.suggest(trial_id)
    assert isinstance(spec, dict)
    return spec


def result(epoch: int, value: float, *, finished: bool = False) -> dict[str, Any]:
    """One epoch's report, as Ray passes it on."""
    return {"number": 0, "epoch": epoch, METRIC: value, "finished": finished}


def fail(searcher: StudySearcher, trial_id: str, kind: str) -> None:
    """As Ray and the journal's callback tell it."""
    searcher.on_trial_complete(trial_id, None, error=True)
    searcher.fail(trial_id, kind)


def report(searcher: StudySearcher, trial_id: str, *values: float) -> None:
    """Epochs 1, 2, ... of a trial that Ray passes on."""
    for epoch, value in enumerate(values, start=1):
        searcher.on_trial_result(trial_id, result(epoch, value))


def stored(url: str) -> list[FrozenTrial]:
    """The trials as another process reads them."""
    return stored_trials(url, "birds")


def killed_in_the_middle(url: str, journal: Path) -> None:
    """Leaves behind what a driver that was killed leaves: six trials, the journal ahead of the study.

    0 complete. 1 running, with an epoch that only the journal has. 2 running, its last epoch only in the journal.
    3 running, no report. 4 asked for, and killed before its parameters were settled. 5 running, and never told its end
    by the study.
    """
    study = reopen(url)
    searcher = new_searcher(study)
    log = EventLog(journal)
    for i in range(4):
        searcher.suggest(f"ray-{i}")
    study.ask()
    searcher.suggest("ray-5")
    for number, epoch, value in [(0, 1, 0.4), (1, 1, 0.3), (1, 2, 0.5), (2, 1, 0.8), (5, 1, 0.1)]:
        log.epoch(number, epoch, result(epoch, value))
        searcher.on_trial_result(f"ray-{number}", result(epoch, value))
    log.epoch(0, 2, result(2, 0.3, finished=True))
    searcher.on_trial_complete("ray-0", result(2, 0.3, finished=True))
    log.epoch(1, 3, result(3, 0.6))
    log.epoch(2, 2, result(2, 0.7, finished=True))
    searcher.on_trial_result("ray-5", result(2, 0.2, finished=True))
    log.epoch(5, 2, result(2, 0.2, finished=True))
    log.close()
