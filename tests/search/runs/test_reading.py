"""A run as it is read: ended, killed, running, of an earlier version, damaged."""

import json
from pathlib import Path

import pytest
from earlier_runs import unpack_earlier_runs

from search.errors import RunError
from search.runs.paths import write_json
from search.runs.reading import Run


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack_earlier_runs(tmp_path_factory.mktemp("earlier"))


def test_an_ended_run_of_an_earlier_version(results: Path) -> None:
    run = Run.open(results / "ended")
    assert (run.name, run.status, run.record.format, run.record.kind) == ("ended", "done", 1, "search")
    assert run.objective.metric == run.config.search.metric == "val/iou"
    assert [row.number for row in run.trials] == [0, 1, 2, 3]
    best = run.trials.best()
    assert best is not None
    assert (best.number, best.value, best.params) == (
        0, pytest.approx(0.6542238503786273), {"optimizer.lr": 0.01, "model.base_channels": 4},
    )  # fmt: skip
    assert best.metrics["val/dice"] == pytest.approx(0.7826898495914723)
    assert run.card is not None
    assert run.card.scores["test"].iou == pytest.approx(0.5483909228287324)
    assert run.confirmation is not None
    assert (run.confirmation.winner, run.confirmation.tied, run.winner) == (0, [0, 3], 0)
    assert run.confirmation.winning.values[0] == (1, pytest.approx(0.28714890172672536))
    assert [(each.target, each.status) for each in run.exports] == [("local", "done")]
    assert run.ledger is None
    assert all(folder.is_dir() for folder in run.checkpoints)
    assert run.epochs[0].metrics["val/iou"] > 0


def test_one_that_was_killed_in_its_first_session_has_its_trials(results: Path) -> None:
    run = Run.open(results / "killed")
    assert run.status == "stopped"
    assert not run.paths.trials.exists()
    assert len(run.trials) >= 4
    best = run.trials.best()
    assert best is not None
    assert best.params
    assert best.value == max(epoch.metrics["val/iou"] for epoch in run.epochs)
    assert run.card is None
    assert run.winner == best.number
    assert run.checkpoints


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is no run: it has no run\.json"):
        Run.open(tmp_path)


def test_a_record_of_a_newer_version_is_refused_in_one_line(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"format": 3, "status": "done"})
    with pytest.raises(RunError) as error:
        _ = Run.open(tmp_path).record
    assert str(error.value) == (
        f"{tmp_path / 'run.json'} was written by a newer segsearch (format 3; this one reads up to 2); "
        "upgrade segsearch"
    )
    assert error.value.exit_code == 2


@pytest.mark.parametrize("written", ["two", 0, True, None, 1.5])
def test_a_format_that_nobody_writes_is_told(tmp_path: Path, written: object) -> None:
    write_json(tmp_path / "run.json", {"format": written, "status": "done"})
    with pytest.raises(RunError, match=r"format .* is not one that segsearch writes \(1 to 2\)"):
        _ = Run.open(tmp_path).record


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"status": "sleeping"}, "status: Input should be 'running', 'done'"),
        ({"status": "done", "created": "today"}, "created: Input should be a valid number"),
        ({"status": "running", "worker": {"host": "a"}}, r"worker\.pid: Field required"),
    ],
)
def test_a_field_that_is_wrong_is_named(tmp_path: Path, changes: dict[str, object], match: str) -> None:
    write_json(tmp_path / "run.json", changes)
    with pytest.raises(RunError, match=rf"run\.json cannot be read: {match}"):
        _ = Run.open(tmp_path).record


def test_fields_that_are_not_known_are_kept(tmp_path: Path) -> None:
    tree = {"format": 2, "name": "a", "status": "done", "worker": {"host": "a", "pid": 3, "rack": 7}, "color": "red"}
    write_json(tmp_path / "run.json", tree)
    record = Run.open(tmp_path).record
    assert record.tree() == tree
    changed = record.but(status="failed", error="x", worker=None)
    assert changed.tree() == {"format": 2, "name": "a", "status": "failed", "error": "x", "color": "red"}
    assert json.loads(json.dumps(changed.tree())) == changed.tree()
