"""`study.db` says what the journal says, and can be built from it at any time."""

import logging
import math
import shutil
import sqlite3
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState
from specs import new_spec

from search.config.tree import SearchConfig
from search.errors import RunError
from search.runs.journal import EventLog, read_events
from search.runs.lives import lives_of
from search.runs.paths import RunPaths
from search.sampling.proposer import Proposer
from search.space.search import Search
from search.study.endings import Ending
from search.study.lives import read_lives
from search.study.mirror import catch_up, end_outside, open_mirror
from search.study.observations import MEMORY_CONSTRAINT, OUTSIDE_ATTR, PARAMS_ATTR, PARENT_ATTR
from search.study.spaces import Spaces
from search.study.storage import close_study
from search.tune.retries import Retries
from search.tune.searcher import StudySearcher
from segcore.config import TrainConfig
from segcore.objective import Objective

pytestmark = pytest.mark.slow

BASE = TrainConfig()
COST = "cost/parameters"
OBJECTIVE = Objective("val/iou", second=COST)
SPACE: dict[str, Any] = {
    "optimizer.lr": {"loguniform": [1e-4, 1e-2]},
    "lr_scheduler": {"choice": {"plateau": {"patience": {"int": [1, 50]}}, "cosine": {}}},
}
WIDER = {**SPACE, "optimizer.lr": {"loguniform": [1e-4, 1e-1]}}
NARROWER = {**SPACE, "lr_scheduler": {"choice": {"cosine": {}}}}


class Session:
    """One session of a search in a run's folder, told of trials as Tune's controller tells them."""

    def __init__(self, folder: Path, space: dict[str, Any] = SPACE, num_samples: int = 20) -> None:
        self.paths = RunPaths(folder)
        folder.mkdir(exist_ok=True)
        self.events = EventLog(self.paths.events)
        config = SearchConfig.model_validate({"name": "x", "search": {"num_samples": num_samples}, "space": space})
        search = replace(Search.of(config), base=BASE, objective=OBJECTIVE)
        spaces = Spaces.of(search, self.paths)
        self.study = open_mirror(self.paths, spaces, OBJECTIVE, self.events)
        lives = lives_of(read_events(self.paths.events))
        self.unfinished = catch_up(self.study, lives, OBJECTIVE, self.events)
        self.unfinished = end_outside(self.study, self.unfinished, OBJECTIVE, self.events)
        self.searcher = StudySearcher(
            self.study, search, new_spec,
            Proposer(spaces.present, "random", seed=3, num_samples=num_samples, max_epochs=3, objective=OBJECTIVE),
            self.events, retries=Retries(self.unfinished),
        )  # fmt: skip

    def start(self, ray_id: str) -> int:
        spec = self.searcher.suggest(ray_id)
        assert isinstance(spec, dict)
        return int(spec["number"])

    def report(self, ray_id: str, epoch: int, value: float, *, finished: bool = False) -> dict[str, Any]:
        number, metrics = self.searcher.number_of(ray_id), {"val/iou": value, COST: 100.0 * epoch, "finished": finished}
        result = {"number": number, "epoch": epoch, **metrics}
        self.searcher.on_trial_result(ray_id, result)
        self.events.epoch(number, epoch, metrics)
        return result

    def fail(self, ray_id: str, kind: str) -> None:
        self.events.error(self.searcher.number_of(ray_id), kind, "its message")
        self.searcher.on_trial_complete(ray_id, error=True)
        self.searcher.fail(ray_id, kind)

    def close(self) -> list[FrozenTrial]:
        """Ends the session, and returns what it left in the study."""
        self.searcher.flush()
        self.events.close()
        trials = self.study.get_trials()
        close_study(self.study)
        return trials


def first_session(folder: Path) -> list[FrozenTrial]:
    """Trials that ended in all ways that there are, and two that did not."""
    session = Session(folder)
    for number in range(7):
        assert session.start(f"ray-{number}") == number
    session.report("ray-0", 1, 0.3)
    session.searcher.on_trial_complete("ray-0", session.report("ray-0", 2, 0.2, finished=True))
    session.searcher.on_trial_complete("ray-1", session.report("ray-1", 1, 0.1))
    session.report("ray-2", 1, 0.5)
    session.fail("ray-2", "out of memory")
    session.fail("ray-3", "KeyError")
    session.searcher.on_trial_complete("ray-4", session.report("ray-4", 1, math.nan, finished=True))
    session.report("ray-5", 1, 0.4)
    return session.close()


def told(trials: list[FrozenTrial]) -> list[Any]:
    """All that a trial of the study says but the moment of its times, in words that can be compared."""
    return [
        (
            trial.number, trial.state.name, trial.value if trial.state == TrialState.COMPLETE else None, trial.params,
            trial.distributions, str(trial.intermediate_values), trial.user_attrs, trial.constraints,
        )
        for trial in trials
    ]  # fmt: skip


def seconds(when: datetime | None) -> float | None:
    return None if when is None else when.timestamp()


def test_a_study_that_was_deleted_is_built_from_the_journal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = first_session(tmp_path / "run")
    assert [trial.state.name for trial in before] == [
        "COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL", "RUNNING", "RUNNING",
    ]  # fmt: skip
    (tmp_path / "run" / "study.db").unlink()
    with caplog.at_level(logging.INFO, logger="segsearch"):
        session = Session(tmp_path / "run")
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}/run/study.db is missing: it is built anew from the journal, with 7 trials"
    ]
    after = session.close()
    assert told(after) == told(before)
    for old, new in zip(before, after, strict=True):
        assert seconds(new.datetime_start) == pytest.approx(seconds(old.datetime_start), abs=1.0)
        assert (seconds(new.datetime_complete) or 0) == pytest.approx(seconds(old.datetime_complete) or 0, abs=1.0)
    assert [trial.number for trial in session.unfinished] == [5, 6]


def test_a_search_continues_with_a_study_that_was_deleted(tmp_path: Path) -> None:
    first_session(tmp_path / "run")
    (tmp_path / "run" / "study.db").unlink()
    session = Session(tmp_path / "run")
    assert [session.start(f"again-{number}") for number in range(3)] == [5, 6, 7]
    session.searcher.on_trial_complete("again-0", session.report("again-0", 2, 0.6, finished=True))
    trials = session.close()
    assert (trials[5].value, trials[5].intermediate_values) == (0.6, {1: 0.4, 2: 0.6})
    assert trials[5].user_attrs["ray_trial_ids"] == ["ray-5", "again-0"]
    assert trials[5].user_attrs["second_metric"] == 100.0, "the cost of its first report, in the session before"


@pytest.mark.parametrize("damage", ["cut", "overwritten", "no database"])
def test_a_damaged_study_is_kept_beside_and_built_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    before = first_session(tmp_path / "run")
    file = tmp_path / "run" / "study.db"
    whole = file.read_bytes()
    broken = {
        "cut": whole[: len(whole) // 2],
        "overwritten": whole[:4096] + b"\x07" * 8192 + whole[12288:],
        "no database": b"whatever its name says" * 100,
    }[damage]
    file.write_bytes(broken)
    with caplog.at_level(logging.INFO, logger="segsearch"):
        session = Session(tmp_path / "run")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "study.db is damaged (" in record.message
    assert "it is kept as study.db.damaged-1, and built anew from the journal, with 7 trials" in record.message
    assert told(session.close()) == told(before)
    assert (tmp_path / "run" / "study.db.damaged-1").read_bytes() == broken
    file.write_bytes(broken)
    Session(tmp_path / "run").close()
    assert (tmp_path / "run" / "study.db.damaged-2").exists()


def test_a_study_that_is_whole_is_left_as_it_is(tmp_path: Path) -> None:
    before = first_session(tmp_path / "run")
    file = tmp_path / "run" / "study.db"
    inode, lines = file.stat().st_ino, (tmp_path / "run" / "events.jsonl").read_text()
    for _ in range(2):
        assert told(Session(tmp_path / "run").close()) == told(before)
    assert file.stat().st_ino == inode
    assert (tmp_path / "run" / "events.jsonl").read_text() == lines
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["events.jsonl", "study.db"]


def test_every_moment_at_which_a_process_may_die_leads_to_the_same(tmp_path: Path) -> None:
    """The study as it was at some moment, and the journal as it was then or a little later."""
    first_session(tmp_path / "run")
    lines = (tmp_path / "run" / "events.jsonl").read_bytes().splitlines(keepends=True)
    for count in range(1, len(lines), 9):
        folder = tmp_path / f"until-{count}"
        folder.mkdir()
        (folder / "events.jsonl").write_bytes(b"".join(lines[:count]))
        Session(folder).close()  # with this study, the journal is as far as it came
        (folder / "events.jsonl").write_bytes(b"".join(lines))
        behind = told(Session(folder).close())
        (folder / "study.db").unlink()
        assert told(Session(folder).close()) == behind, count


def test_an_earlier_version_wrote_neither_beginnings_nor_ends(tmp_path: Path) -> None:
    before = first_session(tmp_path / "run")
    journal = tmp_path / "run" / "events.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    old = [line for line in lines if not any(f'"event": "{kind}"' in line for kind in ("began", "resumed", "ended"))]
    assert len(old) < len(lines)
    journal.write_text("".join(old))
    lives = read_lives(RunPaths(tmp_path / "run"))
    assert journal.read_text() == "".join(old), "who only reads writes nothing"
    assert [(life.state, life.params) for life in lives.values()] == [
        (state, trial.user_attrs[PARAMS_ATTR])
        for state, trial in zip(
            ["complete", "pruned", "failed", "failed", "failed", "running", "running"], before, strict=True
        )
    ]
    assert told(Session(tmp_path / "run").close()) == told(before)
    (tmp_path / "run" / "study.db").unlink()  # from now on, the journal says it all
    assert told(Session(tmp_path / "run").close()) == told(before)
    after = read_lives(RunPaths(tmp_path / "run"))
    assert [(life.state, life.params, life.why) for life in after.values()] == [
        (life.state, life.params, life.why) for life in lives.values()
    ]
    assert after[0].ended == pytest.approx(lives[0].ended)


def test_an_earlier_versions_journal_cannot_make_up_for_its_study(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    EventLog(tmp_path / "run" / "events.jsonl").epoch(0, 1, {"val/iou": 0.5})
    with pytest.raises(RunError, match=r"study\.db is missing, .* does not say what its trials ran with"):
        Session(tmp_path / "run")
    assert not (tmp_path / "run" / "study.db").exists()
    (tmp_path / "run" / "study.db").write_text("not a database, whatever its name says" * 50)
    with pytest.raises(RunError, match=r"study\.db cannot be opened as an Optuna study: file is not a database"):
        Session(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["events.jsonl", "study.db"]


def test_what_was_enqueued_in_the_study_waits_after_a_rebuild_too(tmp_path: Path) -> None:
    session = Session(tmp_path / "run")
    session.study.enqueue_trial({"optimizer.lr": 2e-3, "lr_scheduler.name": "cosine"})
    session.study.enqueue_trial({"optimizer.lr": 3e-3, "lr_scheduler.name": "cosine"}, user_attrs={PARENT_ATTR: [0, 2]})
    session.close()
    Session(tmp_path / "run").close()
    (tmp_path / "run" / "study.db").unlink()
    session = Session(tmp_path / "run")
    assert [session.start(f"ray-{number}") for number in range(3)] == [0, 1, 2]
    trials = session.close()
    assert [trial.user_attrs[PARAMS_ATTR]["optimizer.lr"] for trial in trials[:2]] == [2e-3, 3e-3]
    assert [trial.user_attrs.get(PARENT_ATTR) for trial in trials] == [None, [0, 2], None]
    assert [life.parent for life in read_lives(session.paths).values()] == [None, (0, 2), None]
    (tmp_path / "run" / "study.db").unlink()
    again = Session(tmp_path / "run").close()
    assert [(t.params, t.user_attrs) for t in again] == [(t.params, t.user_attrs) for t in trials]


def extended(folder: Path, space: dict[str, Any]) -> Session:
    """A session with another space, as after `extend`, which keeps the config that the run had."""
    (folder / "config.1.yaml").write_text(optuna.distributions.json.dumps({"space": SPACE}))
    return Session(folder, space)


@pytest.mark.parametrize("keeps_study", [True, False])
def test_a_wider_space_is_covered_by_the_distributions_of_all(tmp_path: Path, keeps_study: bool) -> None:
    before = first_session(tmp_path / "run")
    if not keeps_study:
        (tmp_path / "run" / "study.db").unlink()
    session = extended(tmp_path / "run", WIDER)
    after = session.close()
    assert [(t.params, t.state, t.user_attrs) for t in after] == [(t.params, t.state, t.user_attrs) for t in before]
    for trial in after:
        assert trial.distributions["optimizer.lr"] == FloatDistribution(1e-4, 1e-1, log=True)


@pytest.mark.parametrize("keeps_study", [True, False])
def test_trials_that_a_narrower_space_does_not_hold_are_marked_and_ended(tmp_path: Path, keeps_study: bool) -> None:
    before = first_session(tmp_path / "run")
    if not keeps_study:
        (tmp_path / "run" / "study.db").unlink()
    session = extended(tmp_path / "run", NARROWER)
    after = session.close()
    plateau = [t.number for t in before if t.user_attrs[PARAMS_ATTR]["lr_scheduler.name"] == "plateau"]
    assert 0 < len(plateau) < len(before)
    assert [trial.number for trial in after if trial.user_attrs.get(OUTSIDE_ATTR)] == plateau
    assert [trial.params for trial in after] == [trial.params for trial in before]
    assert {trial.number for trial in after if not trial.state.is_finished()} == {5, 6} - set(plateau)
    ended = {number: life.state for number, life in read_lives(session.paths).items() if life.has_ended}
    assert set(ended) == set(range(5)) | set(plateau), "the journal has the ends too"


def test_what_others_left_in_the_study_survives_a_change_of_the_space(tmp_path: Path) -> None:
    first_session(tmp_path / "run")
    session = Session(tmp_path / "run")
    session.study.set_user_attr("note", "ours")
    session.study.get_trials()  # a note on a trial, as optuna-dashboard writes them
    handle = session.study.ask()
    handle.set_user_attr("note", "mine")
    session.close()
    study = extended(tmp_path / "run", WIDER).study
    assert study.user_attrs["note"] == "ours"
    assert study.trials[-1].user_attrs["note"] == "mine"


def test_the_study_is_told_after_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moment at which the journal gets a line, the study knows nothing of it."""
    session, seen = Session(tmp_path / "run"), []
    write = EventLog.append

    def append(log: EventLog, event: Any) -> None:
        trials = session.study.get_trials()
        seen.append((event.KIND, [trial.state.name for trial in trials]))
        write(log, event)

    monkeypatch.setattr(EventLog, "append", append)
    session.start("a")
    session.searcher.on_trial_complete("a", session.report("a", 1, 0.5, finished=True))
    session.close()
    assert seen == [("began", []), ("epoch", ["RUNNING"]), ("ended", ["RUNNING"])]


def test_a_trial_that_ends_twice_is_told_once(tmp_path: Path) -> None:
    first_session(tmp_path / "run")
    lives = lives_of(read_events(tmp_path / "run" / "events.jsonl"))
    assert {number: (life.state, life.why) for number, life in lives.items()} == {
        0: ("complete", ""), 1: ("pruned", ""), 2: ("failed", "out of memory"), 3: ("failed", "KeyError"),
        4: ("failed", "not a number"), 5: ("running", ""), 6: ("running", ""),
    }  # fmt: skip
    kinds = [event.KIND for event in read_events(tmp_path / "run" / "events.jsonl")]
    assert (kinds.count("began"), kinds.count("ended")) == (7, 5)


@pytest.mark.parametrize(
    ("values", "finished", "failure", "state", "why"),
    [
        ({1: 0.5}, True, None, "complete", ""),
        ({1: 0.5}, False, None, "pruned", ""),
        ({}, False, None, "failed", "ended before its first report"),
        ({1: math.nan}, True, None, "failed", "not a number"),
        ({1: 0.5}, True, "KeyError", "failed", "KeyError"),
        ({}, False, "out of memory", "failed", "out of memory"),
    ],
)
def test_how_a_trial_is_judged(
    values: dict[int, float], finished: bool, failure: str | None, state: str, why: str
) -> None:
    ending = Ending.of(values, finished=finished, failure=failure)
    assert (ending.state, ending.why) == (state, why)
    assert ending.constraint == (1.0 if why == "out of memory" else -1.0)


def test_a_half_built_study_of_a_process_that_died_is_no_obstacle(tmp_path: Path) -> None:
    before = first_session(tmp_path / "run")
    shutil.copy(tmp_path / "run" / "study.db", tmp_path / "run" / ".study.db.new")
    with sqlite3.connect(tmp_path / "run" / ".study.db.new") as half:
        half.execute("DELETE FROM trials")
    (tmp_path / "run" / "study.db").unlink()
    assert told(Session(tmp_path / "run").close()) == told(before)
    assert MEMORY_CONSTRAINT in before[2].constraints
    assert CategoricalDistribution(("plateau", "cosine")) in before[0].distributions.values()
