"""Real Ray, real Optuna storage, real training: small, but nothing in it is a stand-in."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState
from rich.console import Console

from search.config.load import load_config
from search.config.tree import SearchConfig
from search.errors import ResourceError
from search.runs.folder import create_run
from search.runs.journal import epochs_by_trial, read_events
from search.runs.paths import RunPaths
from search.runs.tables import read_table
from search.space.search import Search
from search.stages import checking, job
from search.study.storage import open_study
from search.tune.cluster.resources import plan_resources
from search.tune.search import run_search
from segcore.sealed.bundle import load_bundle

pytestmark = pytest.mark.slow

TREE = {
    "data": {"root": "synthetic", "image_size": 32, "synthetic": {"num_images": 32}},
    "model": {"base_channels": 4, "depth": 2},
    "augment": {"policy": "flip"},
    "train": {"epochs": 3, "batch_size": 8},
    "space": {"optimizer.lr": {"loguniform": [1e-3, 1e-2]}, "model.arch": {"choice": ["unet", "attention_unet"]}},
    "search": {"num_samples": 2, "scheduler": {"name": "none"}, "gate": False, "confirm": None},
    "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0},
    "tracking": {"wandb": {"mode": "disabled"}},
}


def write_config(folder: Path, **changes: object) -> Path:
    tree = json.loads(json.dumps(TREE))
    tree["data"]["cache_dir"] = str(folder / "cache")
    tree["results"] = str(folder / "results")
    for key, value in changes.items():
        section, _, leaf = key.partition("__")
        if leaf:
            tree[section][leaf] = value
        else:
            tree[section] = value
    tree["search"].setdefault("confirm", None)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def states(paths: RunPaths) -> Counter[str]:
    study = optuna.load_study(study_name=paths.name, storage=paths.storage_url)
    return Counter(trial.state.name for trial in study.get_trials(deepcopy=False))


def run(config: SearchConfig) -> job.Outcome:
    return job.run(config, Console(stderr=True, quiet=True))


@pytest.mark.usefixtures("ray_cluster")
class TestRun:
    def test_two_trials_end_as_a_sealed_model_whose_card_matches_the_tables(self, tmp_path: Path) -> None:
        target = tmp_path / "exported"
        outcome = run(load_config(write_config(tmp_path, export={"targets": [{"local": str(target)}]})))
        assert outcome.exit_code == 0
        trials, epochs = read_table(outcome.paths.trials), read_table(outcome.paths.epochs)
        assert [row["state"] for row in trials] == ["complete", "complete"]
        assert [(row["number"], row["epoch"]) for row in epochs] == [(n, e) for n in (0, 1) for e in (1, 2, 3)]
        for row in trials:
            ious = [epoch["val/iou"] for epoch in epochs if epoch["number"] == row["number"]]
            assert row["value"] == max(ious)
            assert row["best_epoch"] == 1 + ious.index(max(ious))
        winner = max(trials, key=lambda row: row["value"])
        card = load_bundle(outcome.paths.best).card
        assert card.origin.trial == winner["number"]
        assert card.config["optimizer"]["lr"] == winner["param/optimizer.lr"]
        assert card.scores["val"].iou == pytest.approx(winner["value"], abs=2e-3)
        assert (target / "model.safetensors").read_bytes() == (outcome.paths.best / "model.safetensors").read_bytes()
        assert json.loads(outcome.paths.run.read_text())["status"] == "done"

    def test_trials_that_asha_stops_are_pruned_with_every_report_they_made(self, tmp_path: Path) -> None:
        config = load_config(
            write_config(
                tmp_path,
                search={"num_samples": 6, "scheduler": {"name": "asha", "grace_period": 1, "reduction_factor": 2}},
            )
        )
        paths = run(config).paths
        study = optuna.load_study(study_name=paths.name, storage=paths.storage_url)
        journal = epochs_by_trial(read_events(paths.events))
        seen = Counter(trial.state for trial in study.trials)
        assert seen[TrialState.PRUNED] > 0
        assert seen[TrialState.COMPLETE] > 0
        assert sum(seen.values()) == 6
        for trial in study.trials:
            reported = {epoch: row.metrics["val/iou"] for epoch, row in journal[trial.number].items()}
            assert trial.intermediate_values == reported
            if trial.state == TrialState.COMPLETE:
                assert trial.value == max(reported.values())
            else:
                assert max(reported) < 3

    def test_a_trial_that_fails_is_told_and_the_others_go_on(self, tmp_path: Path) -> None:
        config = load_config(
            write_config(
                tmp_path,
                space={"optimizer.lr": {"choice": [3e-3, 1e30]}},
                train__grad_clip=0.0,
                optimizer={"name": "sgd", "lr": 3e-3},
                search={"num_samples": 4, "scheduler": {"name": "none"}, "sampler": "random", "seed": 1},
            )
        )
        outcome = run(config)
        rows = read_table(outcome.paths.trials)
        by_lr = {row["param/optimizer.lr"]: row for row in rows}
        assert by_lr[1e30]["state"] == "failed"
        assert "NonFiniteLossError" in by_lr[1e30]["error"]
        assert by_lr[3e-3]["state"] == "complete"
        assert states(outcome.paths)["FAIL"] == sum(row["state"] == "failed" for row in rows)

    def test_a_search_that_was_killed_before_its_first_trial_gets_all_of_them(self, tmp_path: Path) -> None:
        config = load_config(write_config(tmp_path))
        _, cache_path = checking.prepare_data(config, Console(quiet=True))
        paths = create_run(config, "search")
        study = open_study(paths.storage_url, paths.name, mode="max", sampler=None)
        study.enqueue_trial({"optimizer.lr": 2e-3, "model.arch": "unet"})
        assert run_search(Search.of(config), paths, cache_path)
        assert states(paths) == {"COMPLETE": 2}
        assert read_table(paths.trials)[0]["param/optimizer.lr"] == 2e-3

    def test_a_trial_that_no_node_can_run_is_refused_at_once(self, tmp_path: Path) -> None:
        config = load_config(write_config(tmp_path, resources={"cpus_per_trial": 1, "gpus_per_trial": 0.5}))
        with pytest.raises(ResourceError, match=r"0\.5 GPU; the nodes have: 2 CPU, 0 GPU.*resources\.gpus_per_trial"):
            run(config)

    def test_auto_resources_share_the_cpus_where_there_is_no_gpu(self, tmp_path: Path) -> None:
        config = load_config(write_config(tmp_path, resources={}))
        planned = plan_resources(config, gpus=0.0)
        assert (planned.cpus, planned.gpus, planned.max_concurrent) == (1.0, 0.0, 2)


DRIVER = "from search.cli import main; main()"


def start(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env={**os.environ, "RAY_ADDRESS": ""},
    )  # fmt: skip


def wait_for_epochs(paths: RunPaths, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        if sum(len(epochs) for epochs in epochs_by_trial(read_events(paths.events)).values()) >= count:
            return
        time.sleep(0.05)
    output = process.communicate()[0] if process.poll() is not None else ""
    pytest.fail(f"no {count} epochs were reported in time; exit code {process.poll()}; {output}")


def test_a_search_that_was_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    config = write_config(
        tmp_path, train={"epochs": 4, "batch_size": 8}, search={"num_samples": 4, "scheduler": {"name": "none"}}
    )
    paths = RunPaths(tmp_path / "results" / "tiny")
    process = start(["run", str(config)], tmp_path)
    wait_for_epochs(paths, 7, process)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    before = read_events(paths.events)
    ended_before = {number for number, epochs in epochs_by_trial(before).items() if 4 in epochs}

    finished = start(["resume", "tiny", "--results", str(tmp_path / "results")], tmp_path)
    output = finished.communicate(timeout=300)[0]
    assert finished.returncode == 0, output

    assert states(paths) == {"COMPLETE": 4}
    rows = read_table(paths.trials)
    assert [row["number"] for row in rows] == [0, 1, 2, 3]
    assert [row["epochs"] for row in rows] == [4] * 4
    after = read_events(paths.events)[len(before) :]
    assert not ended_before & {event.number for event in after}, "a finished trial was trained again"
    assert load_bundle(paths.best).card.origin.trial == max(rows, key=lambda row: row["value"])["number"]
