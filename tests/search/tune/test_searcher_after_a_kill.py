"""A driver that was killed: the study is brought up to the journal, and its trials come first again."""

import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from study_searchers import (
    OBJECTIVE,
    fail,
    killed_in_the_middle,
    new_searcher,
    reopen,
    result,
    stored,
    suggested,
    unfinished,
)

from search.runs.journal import read_events
from search.runs.lives import lives_of
from search.runs.tables import build_tables
from search.study.lives import with_study
from search.study.observations import (
    PARAMS_ATTR,
    RAY_IDS_ATTR,
    curves_of,
)

pytestmark = pytest.mark.slow


def test_after_a_kill_the_study_is_brought_up_to_the_journal(url: str, tmp_path: Path) -> None:
    killed_in_the_middle(url, tmp_path / "events.jsonl")
    study = reopen(url)
    requeue = unfinished(study)
    assert [trial.number for trial in requeue] == [1, 3, 4]
    assert requeue[0].intermediate_values == {1: 0.3, 2: 0.5, 3: 0.6}
    trials = stored(url)
    assert [trial.state.name for trial in trials] == [
        "COMPLETE",
        "RUNNING",
        "COMPLETE",
        "RUNNING",
        "RUNNING",
        "COMPLETE",
    ]
    assert [trials[n].value for n in (0, 2, 5)] == [0.4, 0.8, 0.2]
    assert trials[2].intermediate_values == {1: 0.8, 2: 0.7}
    assert curves_of(study) == {
        0: {1: 0.4, 2: 0.3},
        1: {1: 0.3, 2: 0.5, 3: 0.6},
        2: {1: 0.8, 2: 0.7},
        5: {1: 0.1, 2: 0.2},
    }


def test_to_reconcile_again_changes_nothing(url: str, tmp_path: Path) -> None:
    killed_in_the_middle(url, tmp_path / "events.jsonl")
    unfinished(reopen(url))
    first = [(t.state, t.value, t.intermediate_values) for t in stored(url)]
    assert [t.number for t in unfinished(reopen(url))] == [1, 3, 4]
    assert [(t.state, t.value, t.intermediate_values) for t in stored(url)] == first


def test_trials_that_go_on_come_first_under_their_number_and_with_what_they_were(url: str, tmp_path: Path) -> None:
    killed_in_the_middle(url, tmp_path / "events.jsonl")
    before = stored(url)
    study = reopen(url)
    requeue = unfinished(study)
    searcher = new_searcher(study, num_samples=7, requeue=requeue)
    specs = [suggested(searcher, f"again-{i}") for i in range(4)]
    assert [spec["number"] for spec in specs] == [1, 3, 4, 6]
    assert [spec["reached"] for spec in specs] == [3, 0, 0, None]
    assert searcher.suggest("again-4") is None
    assert stored(url)[4].user_attrs[PARAMS_ATTR]["optimizer.lr"] == specs[2]["train"]["optimizer"]["lr"]
    for spec in specs[:2]:
        params = before[spec["number"]].user_attrs[PARAMS_ATTR]
        assert spec["train"]["optimizer"]["lr"] == params["optimizer.lr"]
    assert stored(url)[1].user_attrs[RAY_IDS_ATTR] == ["ray-1", "again-0"]

    # Trial 1 goes on from its checkpoint of epoch 2: epoch 3 is trained and told again.
    searcher.on_trial_result("again-0", result(3, 0.6))
    searcher.on_trial_complete("again-0", result(4, 0.55, finished=True))
    searcher.on_trial_complete("again-1", result(1, 0.2))
    searcher.on_trial_complete("again-2", result(1, 0.9, finished=True))
    fail(searcher, "again-3", "KeyError")
    trials = stored(url)
    assert [trial.state.name for trial in trials] == [
        "COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "COMPLETE", "COMPLETE", "FAIL"
    ]  # fmt: skip
    assert trials[1].value == 0.6
    assert trials[1].intermediate_values == {1: 0.3, 2: 0.5, 3: 0.6, 4: 0.55}


@pytest.mark.slow
def test_a_killed_process_leaves_a_study_that_can_go_on(url: str, tmp_path: Path) -> None:
    """A real process that is killed while it reports."""
    code = (
        "import os, sys, pathlib\n"
        "from study_searchers import killed_in_the_middle\n"
        "killed_in_the_middle(sys.argv[1], pathlib.Path(sys.argv[2]))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    arguments = [url, str(tmp_path / "events.jsonl")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, check=False)
    assert done.returncode == -9
    study = reopen(url)
    assert [t.number for t in unfinished(study)] == [1, 3, 4]
    lives = with_study(lives_of(read_events(tmp_path / "events.jsonl")), stored(url))
    tables = build_tables(lives.values(), OBJECTIVE)
    assert [row["number"] for row in tables.trials] == [0, 1, 2, 3, 4, 5]
    assert len(tables.epochs) == 9
