"""Real searches that a rule ends, and that are extended, from end to end."""

import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from commands import start_segsearch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from ray import tune
from small_searches import QUIET, TREE, new_config, states

from search.runs.folder import create_run
from search.runs.journal import epochs_by_trial, read_events
from search.runs.paths import RunPaths, read_json
from search.runs.tables import read_table
from search.space.search import Search
from search.stages import job
from search.study.observations import OUTSIDE_ATTR
from search.tune.search import run_search
from segcore.sealed.card import read_card, verify_bundle


def long_epochs(spec: dict[str, Any]) -> None:
    """Reports one epoch at once and is then busy for five minutes."""
    metrics = {"val/iou": 0.5, "val/threshold": 0.5, "train/loss": 1.0, "time/images_per_s": 1.0}
    tune.report({**metrics, "number": spec["number"], "epoch": 1, "best_epoch": 1, "finished": False})
    time.sleep(300)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
class TestRealSearches:
    def test_a_target_ends_the_search_seals_and_exports(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        config = new_config(
            tmp_path,
            train={"epochs": 500, "batch_size": 8},
            search={"num_samples": 6, "scheduler": {"name": "none"}, "target": 0.3},
            export={"targets": [{"local": str(tmp_path / "out")}]},
        )
        with caplog.at_level(logging.INFO, "segsearch"):
            outcome = job.run(config, QUIET)
        assert outcome.exit_code == 0
        record, rows = read_json(outcome.paths.run), read_table(outcome.paths.trials)
        assert record["status"] == "done"
        assert record["stopped_by"]["rule"] == "target"
        assert caplog.text.count("stopped by search.target: trial") == 1
        assert 1 <= len(rows) < 6
        assert {row["state"] for row in rows} <= {"pruned", "failed"}
        assert not {"RUNNING", "WAITING"} & set(states(outcome.paths)) - {"WAITING"}
        best = max(rows, key=lambda row: row["value"] or 0.0)
        assert best["value"] >= 0.3
        assert read_card(outcome.paths.best).origin.trial == best["number"]
        assert verify_bundle(tmp_path / "out").origin.trial == best["number"]

    def test_a_time_budget_ends_trials_that_are_within_a_long_epoch(self, tmp_path: Path) -> None:
        config = new_config(tmp_path, search={**TREE["search"], "time_budget_s": 40})
        paths = create_run(config, "search")
        started = time.monotonic()
        assert run_search(Search.of(config), paths, tmp_path / "never read", trainable=long_epochs)
        assert time.monotonic() - started < 90
        rows = read_table(paths.trials)
        assert [row["error"] for row in rows] == [None] * len(rows)
        assert {row["state"] for row in rows} == {"pruned"}
        assert {row["value"] for row in rows} == {0.5}
        assert read_json(paths.run)["stopped_by"]["rule"] == "time_budget_s"

    def test_a_finished_search_goes_on_in_a_changed_space(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Narrowed range and removed choice; then points so poor that the best stays; then the first space again."""
        config = new_config(tmp_path, export={"targets": [{"local": str(tmp_path / "out")}]})
        paths = job.run(config, QUIET).paths
        first = read_table(paths.trials)
        assert len(first) == 4

        narrower = ["space.optimizer.lr={loguniform: [4e-3, 3e-2]}", "space.augment.policy={choice: [medium, flip]}"]
        assert job.extend(paths, 3, narrower, QUIET).exit_code == 0
        second = read_table(paths.trials)
        assert kept(second[:4]) == kept(first)
        assert [row["number"] for row in second] == list(range(7))
        for row in second[4:]:
            assert 4e-3 <= row["param/optimizer.lr"] <= 3e-2
            assert row["param/augment.policy"] in ("medium", "flip")
        assert states(paths) == {"COMPLETE": 7}
        best = max(second, key=lambda row: row["value"])
        assert read_card(paths.best).origin.trial == best["number"]
        assert verify_bundle(tmp_path / "out").origin == read_card(paths.best).origin
        in_space = [row["param/optimizer.lr"] >= 4e-3 and row["param/augment.policy"] == "flip" for row in first]
        assert outside(paths) == [number for number in range(4) if not in_space[number]]

        study = optuna.load_study(study_name=paths.name, storage=paths.storage_url)
        distributions = [trial.distributions for trial in study.trials]
        assert (
            distributions
            == [
                {
                    "optimizer.lr": FloatDistribution(1e-3, 3e-2, log=True),
                    "augment.policy": CategoricalDistribution(("none", "flip", "light", "medium")),
                }
            ]
            * 7
        )
        assert set(optuna.importance.get_param_importances(study)) == {"optimizer.lr", "augment.policy"}

        sealed = {path.name: path.stat().st_mtime_ns for path in paths.best.iterdir()}
        with caplog.at_level(logging.INFO, "segsearch"):
            outcome = job.extend(paths, 1, ["space.optimizer.lr={loguniform: [1e-9, 1e-8]}"], QUIET)
        assert outcome.exit_code == 0
        assert f"the best is still trial {best['number']}" in caplog.text
        assert {path.name: path.stat().st_mtime_ns for path in paths.best.iterdir()} == sealed
        assert outside(paths) == list(range(7))
        assert len(read_json(paths.run)["extensions"]) == 2

        assert job.extend(paths, 1, [f"space={json.dumps(TREE['space'])}"], QUIET).exit_code == 0
        third = read_table(paths.trials)
        assert len(third) == 9
        back = [1e-3 <= r["param/optimizer.lr"] <= 1e-2 and r["param/augment.policy"] != "medium" for r in third]
        assert outside(paths) == [number for number in range(9) if not back[number]]
        assert all(back[number] for number in (0, 1, 2, 3, 8))


def outside(paths: RunPaths) -> list[int]:
    study = optuna.load_study(study_name=paths.name, storage=paths.storage_url)
    return [trial.number for trial in study.trials if trial.user_attrs.get(OUTSIDE_ATTR)]


def kept(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a trial's row said, without columns that only later trials have."""
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def num_epochs(paths: RunPaths) -> int:
    return sum(len(epochs) for epochs in epochs_by_trial(read_events(paths.events)).values())


@pytest.mark.slow
def test_an_extension_that_was_killed_goes_on_with_resume(tmp_path: Path) -> None:
    search_settings = {"num_samples": 2, "max_concurrent": 1, "scheduler": {"name": "none"}}
    new_config(tmp_path, train={"epochs": 3, "batch_size": 8}, search=search_settings)
    paths = RunPaths(tmp_path / "results" / "tiny")
    process = start_segsearch(["run", str(tmp_path / "tiny.yaml")], tmp_path)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    first = read_table(paths.trials)

    lr = "space.optimizer.lr={loguniform: [4e-3, 3e-2]}"
    process = start_segsearch(["extend", str(paths.root), "--num-samples", "2", "--set", lr], tmp_path)
    deadline = time.monotonic() + 180
    while num_epochs(paths) < 7 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == -signal.SIGKILL, output
    assert 7 <= num_epochs(paths) < 12
    assert verify_bundle(paths.best).origin.trials == 2

    resumed = start_segsearch(["resume", str(paths.root)], tmp_path)
    output = resumed.communicate(timeout=300)[0]
    assert resumed.returncode == 0, output
    rows = read_table(paths.trials)
    assert states(paths) == {"COMPLETE": 4}
    assert kept(rows[:2]) == kept(first)
    assert all(4e-3 <= row["param/optimizer.lr"] <= 3e-2 for row in rows[2:])
    assert len(read_json(paths.run)["extensions"]) == 1
    assert read_json(paths.run)["status"] == "done"
    assert read_card(paths.best).origin.trial == max(rows, key=lambda row: row["value"])["number"]
