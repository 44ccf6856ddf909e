"""Which checkpoints a run drops, which it never does, and that its accounts are right."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from rich.console import Console

from search.config.load import load_config
from search.errors import RunError
from search.runs.journal import EventLog, dropped_trials, read_events
from search.runs.paths import RunPaths
from search.runs.rows import TrialRow
from search.runs.tables import read_table
from search.runs.trials import Trials
from search.stages import job
from search.stages.picking import seal_trial
from search.stages.sealing import newest_readable
from search.study.observations import COST_ATTR
from search.study.storage import open_study
from search.tune.checkpoint_budget import GIGABYTE, CheckpointBudget, drop_order
from segcore.checkpoint.files import folder_bytes
from segcore.objective import Objective

pytestmark = pytest.mark.slow

STATE_BYTES, BEST_BYTES = 1000, 400
WHOLE = STATE_BYTES + BEST_BYTES


def rows(*described: tuple[str, float | None] | tuple[str, float | None, float]) -> list[TrialRow]:
    return [
        TrialRow(number, state, value, metrics={"cost/parameters": cost[0]} if cost else {})
        for number, (state, value, *cost) in enumerate(described)
    ]


def test_failed_trials_go_first_then_the_worst_and_the_best_never() -> None:
    history = rows(
        ("complete", 0.7), ("pruned", 0.2), ("failed", 0.9), ("running", 0.1), ("complete", 0.8), ("pruned", None),
        ("failed", 0.1), ("waiting", None), ("pruned", 0.2), ("complete", 0.8),
    )  # fmt: skip
    assert drop_order(Trials(history, Objective("val/iou"))) == [
        5,
        6,
        2,
        8,
        1,
        0,
        9,
    ]  # of a tie, the earlier trial stays
    assert drop_order(Trials(history, Objective("val/loss", "min"))) == [5, 2, 6, 9, 4, 0, 8]


def test_the_best_that_has_ended_stays_while_a_running_one_is_better() -> None:
    """The running one may still fail, and then it wins nothing."""
    assert drop_order(Trials(rows(("pruned", 0.5), ("running", 0.9), ("pruned", 0.4)), Objective("val/iou"))) == [2]


def test_where_all_failed_the_best_of_them_stays() -> None:
    assert drop_order(Trials(rows(("failed", 0.5), ("failed", 0.6)), Objective("val/iou"))) == [0]
    assert drop_order(Trials(rows(("failed", None), ("running", 0.6)), Objective("val/iou"))) == [0]


def test_with_a_second_metric_the_front_stays() -> None:
    history = rows(("complete", 0.9, 50.0), ("complete", 0.8, 10.0), ("pruned", 0.7, 20.0), ("failed", 0.95, 1.0))
    assert drop_order(Trials(history, Objective("val/iou", second="cost/parameters"))) == [3, 2]
    assert drop_order(Trials(history, Objective("val/iou"))) == [3, 2, 1]


class Session:
    """A run's folder and study, and what Ray would tell the budget of it; sizes are small and made up."""

    def __init__(self, folder: Path, limit: float | None, second_metric: str | None = None) -> None:
        self.paths = RunPaths(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.study = open_study(self.paths.storage_url, "run", mode="max", sampler=None)
        self.limit_gb = None if limit is None else limit / GIGABYTE
        self.objective = Objective("val/iou", second=second_metric)
        self.begin()

    def begin(self) -> None:
        """A new session; the last one may have been killed."""
        self.name = self.paths.next_session()
        self.events = EventLog(self.paths.events)
        self.budget = CheckpointBudget(self.paths, self.study, self.events, self.objective, limit_gb=self.limit_gb)
        self.budget.on_step_end(0, [])

    def ask(self, cost: float | None = None) -> int:
        trial = self.study.ask()
        if cost is not None:
            trial.set_user_attr(COST_ATTR, cost)
        self.paths.begin_attempt(self.name, trial.number)
        return trial.number

    def report(self, number: int, epoch: int, value: float, *, keep_older: bool = False) -> None:
        folder = self.paths.attempt(self.name, number, 0)
        older = list(folder.iterdir())
        checkpoint = folder / f"checkpoint_{epoch:06d}"
        checkpoint.mkdir()
        (checkpoint / "state.pt").write_bytes(b"s" * STATE_BYTES)
        (checkpoint / "best.safetensors").write_bytes(b"b" * BEST_BYTES)
        optuna.trial.Trial(self.study, self.study.trials[number]._trial_id).report(value, epoch)
        result = {"number": number, "epoch": epoch, "checkpoint_bytes": WHOLE}
        self.budget.on_trial_result(0, [], self.ray_trial(number), result)
        self.budget.on_step_end(0, [])
        for path in () if keep_older else older:
            for file in path.iterdir():
                file.unlink()
            path.rmdir()

    def end(self, number: int, state: TrialState | None) -> None:
        """None: it waits at a rung, so only for Ray it has ended."""
        told = self.budget.on_trial_error if state == TrialState.FAIL else self.budget.on_trial_complete
        told(0, [], self.ray_trial(number))
        if state is not None:
            self.study.tell(number, 1.0 if state == TrialState.COMPLETE else None, state=state)
        self.budget.on_step_end(0, [])

    def trial(self, value: float, state: TrialState | None = TrialState.PRUNED, cost: float | None = None) -> int:
        number = self.ask(cost)
        self.report(number, 1, value)
        self.end(number, state)
        return number

    def kept(self) -> set[int]:
        found = self.paths.checkpoints()
        actual = sum(folder_bytes(folders) for folders in found.values())
        assert self.budget.num_bytes == actual + folder_bytes(self.paths.fork_checkpoints())
        return set(found)

    @staticmethod
    def ray_trial(number: int) -> Any:
        return SimpleNamespace(config={"number": number}, last_result={})


def test_an_ended_trial_keeps_its_best_epoch_alone_and_one_that_waits_keeps_all(tmp_path: Path) -> None:
    session = Session(tmp_path / "run", None)
    ended, waiting = session.ask(), session.ask()
    for number in (ended, waiting):
        session.report(number, 1, 0.5)
        session.report(number, 2, 0.6, keep_older=True)  # stopped in this report, it could not delete the older one
        session.end(number, TrialState.PRUNED if number == ended else None)
    files = {number: [path.name for path in session.paths.trial_checkpoints(number)] for number in (ended, waiting)}
    assert files == {ended: ["checkpoint_000002"], waiting: ["checkpoint_000002"]}
    assert session.budget.num_bytes == BEST_BYTES + WHOLE
    session.kept()


def test_the_worst_ended_go_until_all_fit(tmp_path: Path) -> None:
    session = Session(tmp_path / "run", limit=WHOLE + 2 * BEST_BYTES)
    for value in (0.5, 0.9, 0.3, 0.7):
        session.trial(value)
    assert session.kept() == {1, 3, 0}
    running = session.ask()
    assert session.kept() == {1, 3, 0}
    session.report(running, 1, 0.1)
    assert session.kept() == {1, 3, running}
    session.end(running, TrialState.PRUNED)
    assert session.kept() == {1, 3, running}, "it fits now; what is there stays until space is needed"
    assert dropped_trials(read_events(session.paths.events)) == {2, 0}


def test_a_trial_that_is_told_its_end_while_it_waits_is_settled_with_the_session(tmp_path: Path) -> None:
    session = Session(tmp_path / "run", limit=BEST_BYTES)
    waiting, best = session.trial(0.2, state=None), session.trial(0.9)
    session.study.tell(waiting, state=TrialState.PRUNED)
    assert session.kept() == {waiting, best}
    session.budget.settle()
    assert session.kept() == {best}


def test_what_goes_on_and_what_is_best_survives_any_budget_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "segsearch")
    session = Session(tmp_path / "run", limit=100)
    best = session.trial(0.9)
    waiting = session.trial(0.2, state=None)
    interrupted = session.ask()
    session.report(interrupted, 1, 0.1)
    session.report(interrupted, 2, 0.1, keep_older=True)
    half = session.paths.attempt(session.name, interrupted, 0) / ".checkpoint_000003"
    half.mkdir()
    session.budget.on_trial_error(0, [], session.ray_trial(interrupted))  # its worker died; the study is told nothing
    assert not half.exists()
    session.budget.on_step_end(0, [])
    worst = session.trial(0.1)
    failed = session.trial(0.95, state=TrialState.FAIL)
    assert session.kept() == {best, waiting, interrupted}
    assert len(session.paths.trial_checkpoints(interrupted)) == 2, "the report of the newer one may not have arrived"
    assert dropped_trials(read_events(session.paths.events)) == {worst, failed}
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "resources.checkpoints_gb=1e-07" in warning
    assert "take 0.00 GB" in warning


def test_the_front_survives(tmp_path: Path) -> None:
    session = Session(tmp_path / "run", limit=100, second_metric="cost/parameters")
    for value, cost in ((0.9, 50.0), (0.8, 10.0), (0.7, 20.0), (0.1, 1.0)):
        session.trial(value, cost=cost)
    assert session.kept() == {0, 1, 3}


def test_what_forks_need_counts_and_stays(tmp_path: Path) -> None:
    session = Session(tmp_path / "run", limit=2 * WHOLE)
    parent = session.ask()
    session.report(parent, 1, 0.2)
    snapshot = session.paths.snapshot(parent, 1)
    snapshot.mkdir(parents=True)
    (snapshot / "state.pt").write_bytes(b"s" * WHOLE)
    session.end(parent, TrialState.PRUNED)
    other = session.trial(0.9)
    assert session.kept() == {parent, other}
    third = session.trial(0.8)  # while it ran, it was too much with the snapshot
    assert snapshot.is_dir()
    assert session.kept() == {other, third}
    assert session.budget.num_bytes == WHOLE + 2 * BEST_BYTES


def test_a_resumed_session_counts_what_is_there_and_clears_what_a_kill_left(tmp_path: Path) -> None:
    session = Session(tmp_path / "run", limit=None)
    for value in (0.5, 0.9, 0.3):
        session.trial(value)
    killed = session.ask()
    session.report(killed, 1, 0.4)
    session.report(killed, 2, 0.4, keep_older=True)
    half = session.paths.attempt(session.name, killed, 0) / ".checkpoint_000003"
    half.mkdir()
    ended_untidied = session.ask()
    session.report(ended_untidied, 1, 0.6)
    session.study.tell(ended_untidied, state=TrialState.PRUNED)  # killed before the session looked after it
    session.limit_gb = (2 * WHOLE + 3 * BEST_BYTES) / GIGABYTE
    session.begin()
    assert not half.exists()
    assert session.kept() == {0, 1, killed, ended_untidied}
    assert session.budget.num_bytes == 2 * WHOLE + 3 * BEST_BYTES


TREE = {
    "data": {"root": "synthetic", "image_size": 32, "synthetic": {"num_images": 16}},
    "model": {"base_channels": 4, "depth": 2},
    "train": {"epochs": 2, "batch_size": 4},
    "space": {"optimizer.lr": {"loguniform": [1e-4, 1e-2]}},
    "search": {
        "num_samples": 5,
        "sampler": "random",
        "scheduler": {"name": "asha", "grace_period": 1},
        "gate": False,
        "confirm": None,
    },
    "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0, "checkpoints_gb": 1e-6},
    "tracking": {"wandb": {"mode": "disabled"}},
}


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_search_over_its_budget_ends_with_its_best_model_and_says_what_it_dropped(tmp_path: Path) -> None:
    tree = json.loads(json.dumps(TREE))
    tree["data"]["cache_dir"], tree["results"] = str(tmp_path / "cache"), str(tmp_path / "results")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree))
    quiet = Console(stderr=True, quiet=True)
    outcome = job.run(load_config(tmp_path / "tiny.yaml"), quiet)
    assert outcome.exit_code == 0
    table = read_table(outcome.paths.trials)
    best = max(table, key=lambda row: (row["value"], -row["number"]))["number"]
    assert set(outcome.paths.checkpoints()) == {best}
    assert newest_readable(outcome.paths, best) is not None
    assert list(outcome.paths.half_made_checkpoints()) == []
    dropped = dropped_trials(read_events(outcome.paths.events))
    assert dropped == {row["number"] for row in table} - {best}
    with pytest.raises(RunError, match=rf"dropped .*resources\.checkpoints_gb=1e-06; valid: {best}\.") as refused:
        seal_trial(outcome.paths, min(dropped), tmp_path / "sealed", quiet)
    assert refused.value.exit_code == 2
    card = seal_trial(outcome.paths, best, tmp_path / "sealed", quiet)
    assert card.origin.trial == best
