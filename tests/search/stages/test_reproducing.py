"""Training a trial again: real runs, real records, and records that were tampered with."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from places import ROOT
from rich.console import Console
from safetensors.torch import load_file, save_file

from search.cli.group import main
from search.config.load import load_config
from search.errors import ResourceError, RunError
from search.runs.environment import describe_environment, differences
from search.runs.folder import stored_config
from search.runs.journal import applied_by_trial, epochs_by_trial, read_events
from search.runs.paths import RunPaths, read_json
from search.runs.tables import read_table
from search.stages import job
from search.stages.reproducing import (
    compare,
    recorded_trials,
    reproduce,
    verdict,
)
from segcore.sealed.card import read_card

pytestmark = pytest.mark.slow

QUIET = Console(stderr=True, quiet=True)
TREE: dict[str, Any] = {
    "data": {"root": "synthetic", "image_size": 32, "synthetic": {"num_images": 24}},
    "model": {"base_channels": 4, "depth": 2, "dropout": 0.2},
    "augment": {"policy": "medium"},
    "train": {"epochs": 3, "batch_size": 4, "ema_decay": 0.9},
    "tracking": {"wandb": {"mode": "disabled"}},
}


def run(folder: Path, command: str, **changes: Any) -> RunPaths:
    tree = {**json.loads(json.dumps(TREE)), **changes}
    tree["data"]["cache_dir"], tree["results"] = str(folder / "cache"), str(folder / "results")
    tree["search"] = {**tree.get("search", {}), "gate": False, "confirm": None}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    outcome = getattr(job, command)(load_config(path), QUIET)
    assert outcome.exit_code == 0
    paths: RunPaths = outcome.paths
    return paths


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    before = torch.get_num_threads()
    paths = run(tmp_path_factory.mktemp("train"), "train")
    torch.set_num_threads(before)
    return paths


@pytest.fixture(autouse=True)
def _threads_as_before() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def files_of(paths: RunPaths) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in paths.root.rglob("*") if path.is_file()}


def test_a_training_run_comes_out_bitwise_the_same_and_is_left_as_it_is(trained: RunPaths) -> None:
    before = files_of(trained)
    record = reproduce(trained, 0, QUIET)
    assert (record["matched"], record["how"], record["weights"]) == (True, "bitwise", "equal")
    assert [(row["epoch"], row["equal"], row["difference"]) for row in record["epochs"]] == [
        (epoch, True, 0.0) for epoch in (1, 2, 3)
    ]
    assert files_of(trained) == before


def test_it_can_stop_earlier_and_says_that_weights_were_not_compared(trained: RunPaths) -> None:
    record = reproduce(trained, 0, QUIET, num_epochs=1)
    assert [row["epoch"] for row in record["epochs"]] == [1]
    assert record["matched"]
    (checkpoint,) = trained.trial_checkpoints(0)
    best = json.loads((checkpoint / "best.json").read_text())["epoch"]
    assert record["weights"] == ("equal" if best == 1 else "not compared")


def tampered(paths: RunPaths, folder: Path, change: Any) -> RunPaths:
    """A copy of a run in which the events of epochs are changed."""
    copy = RunPaths(folder / paths.name)
    shutil.copytree(paths.root, copy.root)
    lines = [json.loads(line) for line in copy.events.read_text().splitlines()]
    for event in lines:
        if event["event"] == "epoch":
            change(event)
    copy.events.write_text("".join(json.dumps(event) + "\n" for event in lines))
    return copy


def but_for_the_code(differs: dict[str, Any]) -> dict[str, Any]:
    """A checkout may be committed to while a test runs."""
    return {key: value for key, value in differs.items() if not key.startswith("code.")}


@pytest.mark.parametrize(
    ("key", "amount", "largest"), [("val/iou", 1e-9, 1e-9), ("train/loss", 1e-12, 0.0)], ids=["the metric", "another"]
)
def test_a_record_that_was_tampered_with_does_not_match(
    trained: RunPaths, tmp_path: Path, key: str, amount: float, largest: float
) -> None:
    def change(event: dict[str, Any]) -> None:
        if event["epoch"] == 2:
            event["metrics"][key] += amount

    copy = tampered(trained, tmp_path, change)
    result = CliRunner().invoke(main, ["reproduce", copy.name, "--results", str(tmp_path), "--json"])
    assert result.exit_code == 1, result.output
    record = json.loads(result.stdout.splitlines()[-1])
    assert (record["matched"], record["how"]) == (False, "different")
    assert [row["equal"] for row in record["epochs"]] == [True, False, True]
    assert record["epochs"][1]["different"] == [key]
    assert record["largest_difference"] == pytest.approx(largest, rel=1e-3)
    assert but_for_the_code(record["differs"]) == {}


def test_a_difference_that_was_allowed_is_a_match(trained: RunPaths, tmp_path: Path) -> None:
    def change(event: dict[str, Any]) -> None:
        event["metrics"]["val/iou"] += 1e-3

    copy = tampered(trained, tmp_path, change)
    result = CliRunner().invoke(main, ["reproduce", copy.name, "--results", str(tmp_path), "--within", "0.01"])
    assert result.exit_code == 0, result.output
    assert "matched within 0.01" in result.output
    assert "-1.00e-03" in result.output


def test_other_weights_in_the_checkpoint_do_not_match(trained: RunPaths, tmp_path: Path) -> None:
    copy = tampered(trained, tmp_path, lambda event: None)
    (path,) = copy.tune.rglob("best.safetensors")
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("conv1.weight"))
    weights[name] = weights[name] + 1e-6
    path.unlink()
    save_file(weights, path)
    record = reproduce(copy, 0, QUIET)
    assert all(row["equal"] for row in record["epochs"])
    assert (record["weights"], record["matched"]) == ("different", False)


def test_what_differs_from_then_is_named(trained: RunPaths, tmp_path: Path) -> None:
    copy = tampered(trained, tmp_path, lambda event: event["metrics"].update({"val/loss": 9.0}))
    record = read_json(copy.run)
    record["versions"]["torch"], record["host"]["cpu"] = "1.0", "an abacus"
    copy.run.write_text(json.dumps(record))
    found = reproduce(copy, 0, QUIET, num_epochs=1)["differs"]
    now = describe_environment()
    assert but_for_the_code(found) == {
        "versions.torch": ["1.0", now["versions"]["torch"]],
        "host.cpu": ["an abacus", now["host"]["cpu"]],
    }


@pytest.mark.parametrize("number", [1, 99])
def test_a_trial_that_is_not_there_is_refused(trained: RunPaths, number: int) -> None:
    with pytest.raises(RunError, match=rf"has no trial {number} with a reported epoch; valid: 0"):
        reproduce(trained, number, QUIET)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_trial_of_a_gpu_needs_one(trained: RunPaths, tmp_path: Path) -> None:
    copy = tampered(trained, tmp_path, lambda event: None)
    copy.events.write_text(copy.events.read_text().replace('"device": "cpu"', '"device": "cuda", "gpu": "H100"'))
    with pytest.raises(ResourceError, match=r"trial 0 trained on a GPU \(H100\); there is none here"):
        reproduce(copy, 0, QUIET)


def test_the_record_holds_what_a_stranger_needs(trained: RunPaths) -> None:
    record = read_json(trained.run)
    assert set(record["host"]) >= {"cpus", "platform", "python", "cpu", "cpu_capability", "gpus"}
    assert set(record["versions"]) >= {"segsearch", "torch", "timm", "numpy", "pyarrow", "ray", "optuna", "pydantic"}
    assert record["data_fingerprint"]
    assert record["seed"] == 0
    if (ROOT / ".git").exists():
        assert len(record["code"]["commit"]) == 40
    (proof,) = applied_by_trial(read_events(trained.events))[0]
    assert proof.machine["threads"] >= 1
    assert proof.applied["model.base_channels"] == 4
    assert read_card(trained.best).applied == proof.applied
    assert str(Path.home()) not in json.dumps([record["host"], record["versions"], record.get("code"), proof.machine])


def test_differences_are_of_what_both_sides_know() -> None:
    then = {"versions": {"torch": "2.1", "timm": "1"}, "host": {"name": "a", "cpus": 2}, "machine": {}}
    now = {"versions": {"torch": "2.2"}, "host": {"name": "b", "cpus": 2}, "machine": {"threads": 1}}
    assert differences(then, now) == {"versions.torch": ["2.1", "2.2"]}


def rows(*pairs: tuple[float, float]) -> list[dict[str, Any]]:
    before = {epoch: {"val/iou": a, "time/train_s": 1.0} for epoch, (a, _) in enumerate(pairs, start=1)}
    after = {epoch: {"val/iou": b, "time/train_s": 2.0} for epoch, (_, b) in enumerate(pairs, start=1)}
    return compare(before, after, "val/iou")


@pytest.mark.parametrize(
    ("found", "options", "matched", "how"),
    [
        (rows((0.5, 0.5)), {}, True, "bitwise"),
        (rows((0.5, 0.5), (0.6, 0.61)), {}, False, "different"),
        (rows((0.6, 0.61)), {"within": 0.02}, True, "within 0.02"),
        (rows((0.6, 0.61)), {"within": 0.005}, False, "different"),
        (rows((0.6, 0.61)), {"noise": 0.006}, True, "within 0.012, twice what two trainings here differ by"),
        (rows((0.6, 0.61)), {"noise": 0.004}, False, "different"),
        (rows((float("nan"), 0.61)), {"within": 1.0}, False, "different"),
        ([], {"within": 1.0}, False, "different"),
    ],
)
def test_the_verdict(found: list[dict[str, Any]], options: dict[str, float], matched: bool, how: str) -> None:
    record = verdict(found, "not compared", **options)
    assert (record["matched"], record["how"]) == (matched, how)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
class TestSearches:
    def test_trials_that_were_stopped_at_a_rung_or_went_on_come_out_the_same(self, tmp_path: Path) -> None:
        """In a worker that other trials used before; here, in one process."""
        paths = run(
            tmp_path, "run",
            space={"optimizer.lr": {"loguniform": [1e-3, 1e-2]}, "model.arch": {"choice": ["unet", "attention_unet"]}},
            optimizer={"lr": 8e-3},
            search={
                "num_samples": 4, "max_concurrent": 1,  # so that nobody's turn depends on the clock
                "enqueue": [{"optimizer.lr": 1e-3}],  # worse than the first, which waits until this one has come
                "scheduler": {"name": "asha", "grace_period": 1, "reduction_factor": 2},
            },
            resources={"cpus_per_trial": 1, "gpus_per_trial": 0},
        )  # fmt: skip
        table = {row["number"]: row for row in read_table(paths.trials)}
        assert {row["state"] for row in table.values()} == {"complete", "pruned"}
        for number, row in table.items():
            applied = json.loads(row["applied"])
            assert applied["optimizer.lr, peak of decoder/decay"] == pytest.approx(row["param/optimizer.lr"], rel=1e-5)
            record = reproduce(paths, number, QUIET)
            assert (record["matched"], record["how"]) == (True, "bitwise")
            assert len(record["epochs"]) == row["epochs"]
        proofs = applied_by_trial(read_events(paths.events))
        assert max(len(found) for found in proofs.values()) > 1, "no trial waited and went on: this shows less"
        assert read_card(paths.best).applied["model.depth"] == 2

    def test_a_fork_is_trained_with_its_parents(self, tmp_path: Path) -> None:
        paths = run(
            tmp_path, "run",
            train={"epochs": 4, "batch_size": 4},
            space={"optimizer.lr": {"loguniform": [1e-3, 3e-1]}},
            search={"num_samples": 7, "scheduler": {
                "name": "pbt", "population": 4, "perturbation_interval": 1, "quantile": 0.5}},
            resources={"cpus_per_trial": 1, "gpus_per_trial": 0},
        )  # fmt: skip
        trials = recorded_trials(stored_config(paths), paths)
        forks = [trial for trial in trials.values() if trial.parent]
        assert forks, "nothing was forked: this shows nothing"
        record = reproduce(paths, forks[-1].number, QUIET)
        assert (record["matched"], record["how"]) == (True, "bitwise")
        assert record["parent"] == list(forks[-1].parent or ())
        assert [row["epoch"] for row in record["epochs"]] == list(
            epochs_by_trial(read_events(paths.events))[forks[-1].number]
        )
