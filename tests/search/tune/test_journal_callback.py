import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from specs import new_spec

from search.config.tree import SearchConfig
from search.errors import DiskError
from search.runs.journal import NODE_AT_FAULT, EventLog
from search.sampling.proposer import Proposer
from search.space.search import Search
from search.study.observations import observations
from search.study.storage import open_study
from search.tune import journal_callback as journal
from search.tune.cluster.nodes import Node, NodesOfTrials
from search.tune.journal_callback import JournalCallback
from search.tune.retries import Retries, WholeGpu
from search.tune.searcher import StudySearcher
from segcore.config import TrainConfig
from segcore.objective import Objective
from segcore.spec import TrialSpec

METRIC = "val/iou"
OBJECTIVE = Objective(METRIC)


def new_search(num_samples: int) -> Search:
    space = {"optimizer.lr": {"uniform": [0.001, 0.1]}}
    tree = {"name": "birds", "space": space, "search": {"num_samples": num_samples}}
    return Search.of(SearchConfig.model_validate(tree))


class Session:
    """A searcher with its journal, told of trials as Tune's controller tells them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = EventLog(folder / "events.jsonl")
        self.study = open_study(f"sqlite:///{folder / 'study.db'}", "birds", mode="max", sampler=None)
        search = new_search(9)
        self.searcher = StudySearcher(
            self.study, search, self.spec,
            Proposer(search.space, "random", seed=0, num_samples=9, max_epochs=5, objective=OBJECTIVE),
            self.log,
        )  # fmt: skip
        self.callback = JournalCallback(self.log, self.searcher)
        self.trials: list[Any] = []

    @staticmethod
    def spec(number: int, train: TrainConfig) -> TrialSpec:
        return new_spec(number, train)

    def start(self) -> Any:
        name = f"ray-{len(self.trials)}"
        trial = SimpleNamespace(
            trial_id=name, config=self.searcher.suggest(name), status="RUNNING", last_result={}, error_file=None
        )
        self.trials.append(trial)
        return trial

    def report(self, trial: Any, epoch: int, value: float) -> None:
        result = {"number": trial.config["number"], "epoch": epoch, METRIC: value, "finished": False, "done": False}
        self.searcher.on_trial_result(trial.trial_id, result)
        self.callback.on_trial_result(0, self.trials, trial, result)
        trial.last_result = result

    def break_down(self, trial: Any, text: str, told: bool = True) -> None:
        trial.status = "ERROR"
        trial.error_file = str(self.folder / f"{trial.trial_id}.txt")
        Path(trial.error_file).write_text(text)
        if told:
            self.searcher.on_trial_complete(trial.trial_id, error=True)
            self.callback.on_trial_error(0, self.trials, trial)

    def events(self) -> list[dict[str, Any]]:
        lines = map(json.loads, (self.folder / "events.jsonl").read_text().splitlines())
        return [
            {key: value for key, value in line.items() if key != "time"}
            for line in lines
            if line["event"] not in ("began", "resumed", "ended")
        ]

    def states(self) -> list[str]:
        return [seen.state.name for seen in observations(self.study)]


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path)


def test_a_report_leaves_what_training_said_and_nothing_of_rays(session: Session) -> None:
    session.report(session.start(), 1, 0.5)
    assert session.events() == [
        {"event": "epoch", "number": 0, "epoch": 1, "metrics": {METRIC: 0.5, "finished": False}}
    ]  # fmt: skip


def test_a_full_disk_ends_the_session_and_is_nobodys_failure(session: Session) -> None:
    trial = session.start()
    session.report(trial, 1, 0.5)
    before = session.events()
    with pytest.raises(DiskError, match="trial 0: epoch 2: no room"):
        session.break_down(trial, "segcore.errors.DiskError: epoch 2: no room\n")
    assert session.events() == before
    assert session.states() == ["RUNNING"]


def test_a_failure_is_in_the_journal_and_in_the_study(session: Session) -> None:
    session.break_down(session.start(), "Failure # 1\nray::train()\nMemoryError\n")
    assert session.events() == [{"event": "error", "number": 0, "kind": "out of memory", "message": ""}]
    assert session.states() == ["FAIL"]
    assert observations(session.study)[0].out_of_memory


def test_a_dead_worker_costs_an_attempt_and_four_without_progress_the_trial(session: Session) -> None:
    text = "Failure # 1\nThe actor died unexpectedly before finishing this task.\n\tpid: 1\nIt was killed.\n"
    trial = session.start()
    session.report(trial, 1, 0.5)
    for _ in range(3):
        session.break_down(trial, text)
        assert session.states() == ["RUNNING"]
        trial = session.start()
        assert trial.config["number"] == 0
    session.break_down(trial, text)
    assert session.states() == ["FAIL"]
    assert [event["event"] for event in session.events()] == ["epoch", *["interrupted"] * 3, "error"]
    assert session.events()[1] == {
        "event": "interrupted",
        "number": 0,
        "epoch": 1,
        "message": "It was killed.",
    }
    assert session.events()[-1]["kind"] == "worker died"
    assert session.start().config["number"] == 1


def test_a_trial_whose_share_was_too_little_goes_on_and_fails_only_alone(session: Session) -> None:
    text = "Failure # 1\nray::train()\ntorch.OutOfMemoryError: CUDA out of memory.\n"
    search = new_search(1)
    session.searcher = session.callback._searcher = StudySearcher(
        session.study, search,
        partial(new_spec, gpu_fraction=0.5, may_retry_alone=True),
        Proposer(search.space, "random", seed=0, num_samples=1, max_epochs=5, objective=OBJECTIVE),
        session.log,
        retries=Retries(whole_gpu=WholeGpu(1.0)),
    )  # fmt: skip
    trial = session.start()
    session.report(trial, 1, 0.5)
    session.break_down(trial, text)
    assert session.states() == ["RUNNING"]
    again = session.start()
    assert (again.config["number"], again.config["gpu_fraction"], again.config["reached"]) == (0, 1.0, 1)
    session.break_down(again, text)
    assert session.states() == ["FAIL"]
    assert observations(session.study)[0].out_of_memory
    assert session.events()[1:] == [
        {"event": "retried", "number": 0, "epoch": 1, "message": "CUDA out of memory."},
        {"event": "error", "number": 0, "kind": "out of memory", "message": "CUDA out of memory."},
    ]


def test_a_trial_that_fails_through_its_node_goes_on_elsewhere_and_teaches_nothing(
    session: Session, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"Failure # 1\nray::train()\nFileNotFoundError: [Errno 2] No such file or directory: '{__file__}'\n"
    message = f"FileNotFoundError: [Errno 2] No such file or directory: '{__file__}'"
    monkeypatch.setattr(Session, "spec", staticmethod(partial(new_spec, other_nodes=1)))
    session = Session(session.folder)
    where = {"ray-0": Node("n1", "10.0.0.2", "box-2"), "ray-1": Node("n2", "10.0.0.3", "box-3")}
    monkeypatch.setattr(NodesOfTrials, "placed", lambda self, trial: where[trial.trial_id])
    monkeypatch.setattr(NodesOfTrials, "node_of", lambda self, trial: where[trial.trial_id])
    first = session.start()
    session.callback.on_trial_start(0, session.trials, first)
    session.report(first, 1, 0.5)
    session.break_down(first, text)
    assert session.states() == ["RUNNING"]
    again = session.start()
    assert (again.config["number"], again.config["avoid"], again.config["reached"]) == (0, ["n1"], 1)
    session.callback.on_trial_start(0, session.trials, again)
    session.break_down(again, text)
    (seen,) = observations(session.study)
    assert (seen.state.name, seen.is_nodes_fault, seen.out_of_memory) == ("FAIL", True, False)
    assert not session.searcher._proposer.trials[0].failed
    events = [event for event in session.events() if event["event"] != "epoch"]
    assert events == [
        {"event": "placed", "number": 0, "node": "n1", "address": "10.0.0.2", "host": "box-2"},
        {"event": "moved", "number": 0, "epoch": 1, "node": "n1", "message": message},
        {"event": "placed", "number": 0, "node": "n2", "address": "10.0.0.3", "host": "box-3"},
        {
            "event": "error",
            "number": 0,
            "kind": NODE_AT_FAULT,
            "message": f"{message} (on node 10.0.0.3 (box-3))",
        },
    ]
    assert [record.getMessage() for record in caplog.records] == [
        f"trial 0 failed through node 10.0.0.2 (box-2), and it goes on elsewhere: {message}",
        f"trial 0 failed through node 10.0.0.3 (box-3), and there is no other node to try: {message}",
    ]


def test_a_trial_that_ray_ends_without_a_word_is_found(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Tune does when a worker that is to be used again does not stop its last trial in time."""
    monkeypatch.setattr(journal, "SWEEP_S", 0.0)
    lost, other = session.start(), session.start()
    session.break_down(lost, "Failure # 1\nTrainable runner reuse requires reset_config()", told=False)
    session.callback.on_step_end(1, session.trials)
    session.callback.on_step_end(2, session.trials)
    assert [event["event"] for event in session.events()] == ["interrupted"]
    assert session.searcher.live == {other.trial_id}
    assert session.start().config == {**lost.config, "strikes": 1, "reached": 0}


def test_reports_reach_the_study_while_trials_run(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    session.report(session.start(), 1, 0.5)
    session.callback.on_step_end(1, session.trials)
    assert observations(session.study)[0].values == {}
    monkeypatch.setattr("search.study.storage.FLUSH_S", 0.0)
    session.callback.on_step_end(2, session.trials)
    assert observations(session.study)[0].values == {1: 0.5}
