"""How far a search has come: its study and its journal, brought up to date with each other, and what is left to do."""

import logging
from collections.abc import Collection, Container
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.runs.folder import stage_seconds, update_run
from search.runs.journal import OUT_OF_MEMORY, EventLog, read_events, waiting_alone
from search.runs.lives import lives_of
from search.runs.paths import RunPaths
from search.runs.records import StoppedBy
from search.runs.tables import Tables, build_tables, write_tables
from search.sampling.proposals import points_left
from search.space.search import Search
from search.study.endings import end_running
from search.study.lives import with_study
from search.study.mirror import catch_up, end_outside, open_mirror
from search.study.observations import observations
from search.study.spaces import Spaces
from search.study.storage import close_study
from search.tune.stopping import SearchStopper, Stop
from segcore.objective import Objective

log = logging.getLogger("segsearch")


@dataclass(frozen=True)
class Standing:
    """A search at the beginning of a session, and how it ends.

    Attributes:
        search: What is searched.
        paths: The run's folder.
        study: Its study.
        events: Its journal.
        unfinished: The trials that were running when an earlier session ended; those that wait at a rung among them.
        num_asked: Trials that have begun.
    """

    search: Search
    paths: RunPaths
    study: optuna.Study
    events: EventLog
    unfinished: tuple[FrozenTrial, ...]
    num_asked: int

    @classmethod
    def of(cls, search: Search, paths: RunPaths) -> "Standing":
        """Opens the study of a run and brings it up to the journal.

        Args:
            search: What is searched from now on.
            paths: The run's folder; `study.db` and `events.jsonl` there say what is done already.

        Raises:
            RunError: The study is missing or damaged, and the journal cannot make up for it.
        """
        objective, events = search.objective, EventLog(paths.events)
        study = open_mirror(paths, Spaces.of(search, paths), objective, events)
        unfinished = catch_up(study, lives_of(read_events(paths.events)), objective, events)
        unfinished = end_outside(study, unfinished, objective, events)
        num_asked = sum(trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False))
        return cls(search, paths, study, events, tuple(unfinished), num_asked)

    @property
    def num_new(self) -> int:
        """How many trials have yet to begin: as many as were asked for, or as the space has points left."""
        asked = self.search.config.search.num_samples - self.num_asked
        left = self._points_left() if asked > 0 else None
        return asked if left is None else min(asked, left)

    def _points_left(self) -> int | None:
        return points_left(self.search, (trial.params for trial in observations(self.study)))

    @property
    def is_done(self) -> bool:
        """Whether nothing was left to do when the session began."""
        return self.num_new + len(self.unfinished) <= 0

    @property
    def is_unfinished(self) -> bool:
        """Whether something is left to do now."""
        states = [trial.state for trial in self.study.get_trials(deepcopy=False)]
        if TrialState.RUNNING in states:
            return True
        missing = self.search.config.search.num_samples - len(states)
        return missing > 0 and self._points_left() != 0

    def stopper(self) -> SearchStopper:
        """The stopping rules, with the values and the time of earlier sessions."""
        lives = lives_of(read_events(self.paths.events)).values()
        return SearchStopper(self.search.config.search, lives, stage_seconds(self.paths, "search"))

    def end_by(self, stop: Stop, waiting: Container[int] = ()) -> None:
        """Ends what had not ended when a stopping rule was met, says which rule, and writes the tables.

        Args:
            stop: The rule and what met it.
            waiting: Trials that waited at a rung.
        """
        for number, event in waiting_alone(read_events(self.paths.events)).items():
            self.events.error(number, OUT_OF_MEMORY, event.message)
        catch_up(self.study, lives_of(read_events(self.paths.events)), self.search.objective, self.events)
        ended = end_running(self.study, self.events, self.search.objective)
        log.info("stopped by search.%s: %s; %s", stop.rule, stop.detail, ended_text(ended, waiting))
        update_run(self.paths, stopped_by=StoppedBy(rule=stop.rule, detail=stop.detail))
        self.save_tables()

    def say_if_used_up(self) -> None:
        """Says why the search ended before its last trial, where all points of its space were tried."""
        num_trials, asked = len(self.study.get_trials(deepcopy=False)), self.search.config.search.num_samples
        if num_trials < asked and self._points_left() == 0:
            num_points = len(self.search.points.every or ())
            log.info(
                "every point of the space was tried, %d in all: the search ends after %d of %d trials",
                num_points,
                num_trials,
                asked,
            )

    def save_tables(self) -> Tables:
        """Writes the tables as they stand."""
        return save_tables(self.study, self.paths, self.search.objective)

    def close(self) -> None:
        """Closes journal and study."""
        self.events.close()
        close_study(self.study)


def ended_text(ended: Collection[int], waiting: Container[int]) -> str:
    """Which trials a stopping rule ended: those that ran, and those that waited at a rung.

    Args:
        ended: All of them.
        waiting: Those that waited, and maybe others.
    """
    num_waiting = sum(number in waiting for number in ended)
    num_running = len(ended) - num_waiting
    parts = [f"{num_running} running"] if num_running else []
    parts += [f"{num_waiting} waiting at a rung"] if num_waiting else []
    return f"trials that end here: {', '.join(parts) or 'none'}"


def save_tables(study: optuna.Study, paths: RunPaths, objective: Objective) -> Tables:
    """Writes `trials.parquet` and `epochs.parquet` as they stand.

    Args:
        study: The run's study.
        paths: The run's folder.
        objective: What trials are compared by.
    """
    lives = with_study(lives_of(read_events(paths.events)), study.get_trials(deepcopy=False))
    tables = build_tables(lives.values(), objective)
    write_tables(tables, paths.trials, paths.epochs)
    return tables
