"""How trials end, in a real search: the study, the tables and Ray have to agree on it."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from ray import tune
from ray.tune import ExperimentAnalysis, ResultGrid

from search.config.load import load_config
from search.config.tree import SearchConfig
from search.runs.events import Epoch, Interrupted
from search.runs.folder import create_run
from search.runs.journal import epochs_by_trial, read_events
from search.runs.paths import RunPaths
from search.runs.tables import read_table
from search.space.search import Search
from search.study.observations import MEMORY_CONSTRAINT
from search.tune.search import run_search

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

EPOCHS = 4


def new_run(folder: Path, num_samples: int, scheduler: dict[str, Any]) -> tuple[SearchConfig, RunPaths]:
    tree = {
        "data": {"root": "synthetic"},
        "train": {"epochs": EPOCHS},
        "space": {"optimizer.lr": {"loguniform": [1e-4, 1e-1]}},
        "search": {"num_samples": num_samples, "sampler": "random", "scheduler": scheduler},
        "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0},
        "results": str(folder / "results"),
    }
    (folder / "tiny.yaml").write_text(json.dumps(tree))
    config = load_config(folder / "tiny.yaml")
    return config, create_run(config, "search")


def make_trainable(fates: dict[int, str], folder: Path) -> Callable[[dict[str, Any]], None]:
    """A trainable whose trials meet their fate at epoch 2; the others learn. Nested, so that it travels by value."""

    def train(spec: dict[str, Any]) -> None:
        import tempfile

        fate = fates.get(spec["number"], "")
        begun = folder / f"begun-{spec['number']}"
        attempt = len(list(begun.parent.glob(f"{begun.name}-*")))
        (folder / f"{begun.name}-{attempt}").touch()
        first = 1
        for checkpoint in spec["checkpoints"]:
            saved = int((Path(checkpoint) / "epoch").read_text())
            if saved <= spec["reached"]:
                first = 1 + saved
                break
        for epoch in range(first, EPOCHS + 1):
            time.sleep(0.05)
            if epoch == 2 and fate == "KeyError":
                raise KeyError("lr")
            if epoch == 2 and fate == "nan":
                from segcore.errors import NonFiniteLossError

                raise NonFiniteLossError("epoch 2: the training loss became nan")
            if epoch == 2 and fate == "torch memory":
                import torch

                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
            if epoch == 2 and fate == "allocate":
                import torch

                torch.empty(2**50, dtype=torch.uint8)
            if epoch == 2 and fate == "MemoryError":
                raise MemoryError
            if fate == "die always" or (fate == "die once" and epoch == 3 and attempt == 0):
                os.kill(os.getpid(), signal.SIGKILL)
            value = 0.1 * epoch if fate != "poor" else 0.01 / epoch
            report = {
                "number": spec["number"], "epoch": epoch, "val/iou": value, "val/threshold": 0.5, "train/loss": 1.0,
                "best_epoch": epoch, "finished": epoch == EPOCHS, "time/images_per_s": 1.0, "time/train_s": 0.05,
            }  # fmt: skip
            with tempfile.TemporaryDirectory() as written:
                (Path(written) / "epoch").write_text(str(epoch))
                tune.report(report, checkpoint=tune.Checkpoint.from_directory(written))

    return train


class Grid(tune.Callback):  # type: ignore[misc]
    """Keeps Ray's result grid of a session, as `Tuner.fit` would return it."""

    grid: ResultGrid

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        (session,) = self._paths.tune.glob("session-*")
        Grid.grid = ResultGrid(ExperimentAnalysis(str(session), trials=list(trials)))


@pytest.mark.parametrize("promote", [False, True])
def test_the_study_the_tables_and_ray_agree_on_how_every_trial_ended(promote: bool, tmp_path: Path) -> None:
    """With promotions, fewer trials fail: each failure costs a new worker, and some never come to their fate."""
    fates = {1: "KeyError", 5: "MemoryError", 7: "die always", 8: "poor"}
    if not promote:
        fates |= {2: "nan", 3: "torch memory", 4: "allocate", 6: "die once"}
    asha = {"name": "asha", "grace_period": 1, "reduction_factor": 2, "promote": promote}
    config, paths = new_run(tmp_path, 10, asha)
    assert run_search(Search.of(config), paths, tmp_path, [Grid(paths)], make_trainable(fates, tmp_path))

    rows = {row["number"]: row for row in read_table(paths.trials)}
    assert list(rows) == list(range(10))
    kinds = {number: (row["error"] or "").split(":")[0] for number, row in rows.items() if row["state"] == "failed"}
    expected = {
        1: "KeyError", 2: "NonFiniteLossError", 3: "out of memory", 4: "out of memory", 5: "out of memory",
        7: "worker died",
    }  # fmt: skip
    if promote:  # some never come to the epoch of their fate: they wait at the first one
        assert kinds.items() <= {number: expected[number] for number in (1, 5, 7)}.items()
        assert {1, 7} <= kinds.keys()
    else:
        assert kinds == expected
        assert rows[0]["state"] == rows[6]["state"] == "complete"
    assert rows[8]["state"] == "pruned"

    study = optuna.load_study(study_name=paths.name, storage=paths.storage_url)
    failures = {trial.number: trial.user_attrs["failure"] for trial in study.trials if "failure" in trial.user_attrs}
    assert failures == kinds
    infeasible = [trial.number for trial in study.trials if trial.constraints[MEMORY_CONSTRAINT] > 0]
    assert infeasible == [number for number, kind in kinds.items() if kind == "out of memory"]

    events = read_events(paths.events)
    interrupted = [event.number for event in events if isinstance(event, Interrupted)]
    journal = epochs_by_trial(events)
    if not promote:
        assert Counter(interrupted) == {6: 1, 7: 3}
        assert list(journal[6]) == [1, 2, 3, 4], "trial 6 went on behind its checkpoint"
    assert sum(isinstance(event, Epoch) for event in events) == sum(map(len, journal.values())), "nothing is repeated"

    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    by_study = Counter(names[trial.state.name] for trial in study.trials)
    assert by_study == Counter(row["state"] for row in rows.values())
    num_stays = sum(len(row["ray_trial_ids"]) for row in rows.values())
    assert Grid.grid.num_terminated == num_stays - Grid.grid.num_errors
    assert promote or Grid.grid.num_terminated == by_study["complete"] + by_study["pruned"]
    assert Grid.grid.num_errors == by_study["failed"] + len(interrupted)
    assert len(Grid.grid) == Grid.grid.num_terminated + Grid.grid.num_errors


def test_the_study_can_go_at_any_time_and_more_trials_come(tmp_path: Path) -> None:
    """The journal has all of it: what is deleted or damaged between two sessions is there again after the next."""
    config, paths = new_run(tmp_path, 4, {"name": "asha", "grace_period": 1, "reduction_factor": 2})
    trainable = make_trainable({1: "KeyError"}, tmp_path)
    assert run_search(Search.of(config), paths, tmp_path, [], trainable)
    before = read_table(paths.trials)
    paths.study.unlink()
    for num_samples in (5, 6):
        more = config.model_copy(update={"search": config.search.model_copy(update={"num_samples": num_samples})})
        assert run_search(Search.of(more), paths, tmp_path, [], trainable)
        assert [row["number"] for row in read_table(paths.trials)] == list(range(num_samples))
        paths.study.write_bytes(paths.study.read_bytes()[:9000])
    assert run_search(Search.of(more), paths, tmp_path, [], trainable), (
        "with nothing left to train, the study is mended too"
    )
    kept = sorted(path.name for path in paths.root.glob("study.db*"))
    assert kept == ["study.db", "study.db.damaged-1", "study.db.damaged-2"]
    assert read_table(paths.trials)[:4] == before
    study = optuna.load_study(study_name=paths.name, storage=paths.storage_url)
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
    assert [names[trial.state.name] for trial in study.trials] == [row["state"] for row in read_table(paths.trials)]
