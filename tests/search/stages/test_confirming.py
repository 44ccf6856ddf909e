"""The best trials trained again: in a real run, after a kill, with failures; and the ledger of such trainings."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from rerun_records import tie
from rich.console import Console

from search.cli.group import main
from search.config.load import load_config
from search.config.tree import SearchConfig
from search.errors import RunError
from search.reruns.trainings import (
    outcomes,
    run_again,
    unfinished,
    want,
)
from search.runs.events import Epoch
from search.runs.journal import (
    applied_by_trial,
    epochs_by_trial,
    is_finished,
    read_events,
)
from search.runs.paths import RunPaths, read_json, write_json
from search.runs.rows import TrialRow
from search.runs.tables import read_table
from search.runs.trials import Trials
from search.show.quoting import quote
from search.space.search import Search
from search.stages import checking, job
from search.stages.confirming import (
    confirm,
    is_wanted,
    other_seeds,
    wanted_confirmation,
    with_seed,
)
from search.stages.explaining import explain
from search.stages.work import Work
from segcore.config import TrainConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import open_cache
from segcore.data.pixels.decode import read_mask
from segcore.errors import ConfigError
from segcore.objective import Objective
from segcore.sealed.bundle import load_bundle
from segcore.trainable import train_trial

TREE: dict[str, Any] = {
    "data": {"root": "synthetic", "image_size": 32, "synthetic": {"num_images": 40}},
    "model": {"base_channels": 4, "depth": 2},
    "augment": {"policy": "flip"},
    "train": {"epochs": 2, "batch_size": 8},
    "space": {
        "optimizer.lr": {"loguniform": [1e-3, 1e-2]},
        "model.arch": {"choice": ["unet", "attention_unet"]},
        "loss.dice": {"uniform": [0.5, 1.0]},
    },
    "search": {
        "num_samples": 3, "scheduler": {"name": "none"}, "sampler": "random", "gate": False,
        "confirm": {"top_k": 2, "seeds": 2},
    },
    "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0},
    "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip
QUIET = Console(stderr=True, quiet=True)


def new_config(folder: Path, **sections: Any) -> SearchConfig:
    tree = {**json.loads(json.dumps(TREE)), **sections}
    tree["data"]["cache_dir"], tree["results"] = str(folder / "cache"), str(folder / "results")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tree))
    return load_config(folder / "tiny.yaml")


def trained(paths: RunPaths) -> dict[int, int]:
    """Epochs by the number of the training, each told once."""
    events = [event for event in read_events(paths.reruns.events) if isinstance(event, Epoch)]
    journal = epochs_by_trial(events)
    assert len(events) == sum(map(len, journal.values()))
    return {number: len(rows) for number, rows in journal.items()}


@pytest.fixture(scope="module")
def run(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    outcome = job.run(new_config(tmp_path_factory.mktemp("confirmed")), QUIET)
    assert outcome.exit_code == 0
    return outcome.paths


@pytest.fixture
def cli(run: RunPaths) -> Callable[..., Result]:
    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--results", str(run.root.parent)])

    return call


@pytest.mark.slow
class TestConfirm:
    def test_the_best_two_of_the_search_go_again_with_seeds_that_it_never_used(self, run: RunPaths) -> None:
        record = read_json(run.confirmation)
        best = sorted(read_table(run.trials), key=lambda row: -row["value"])[:2]
        assert {row["trial"] for row in record["candidates"]} == {row["number"] for row in best}
        assert record["seeds"] == [1, 2]
        assert trained(run) == {0: 2, 1: 2, 2: 2, 3: 2}
        for number, proofs in applied_by_trial(read_events(run.reruns.events)).items():
            seed = read_json(run.reruns.trainings)["trainings"][number]["train"]["train"]["seed"]
            assert seed in (1, 2)
            assert proofs[0].applied["train.seed, of the weights"] == seed
        assert read_json(run.run)["timings"]["confirm_s"] > 0

    def test_what_is_sealed_is_a_training_of_the_winner_and_its_card_says_how_it_won(self, run: RunPaths) -> None:
        record, card = read_json(run.confirmation), load_bundle(run.best).card
        row = next(row for row in record["candidates"] if row["trial"] == record["winner"])
        assert card.origin.trial == record["winner"]
        assert card.confirmed.mean == row["mean"]
        assert card.confirmed.reason == record["reason"]
        assert card.scores["val"].chose == ("epoch", "threshold", "winner", "seed")
        searched = next(r for r in read_table(run.trials) if r["number"] == record["winner"])
        assert card.config["optimizer"]["lr"] == searched["param/optimizer.lr"]
        journal = epochs_by_trial(read_events(run.reruns.events))
        again = [max(r.metrics["val/iou"] for r in journal[n].values()) for _, n in row["reruns"]]
        assert card.scores["val"].iou == pytest.approx(max(searched["value"], *again), abs=2e-3)
        if card.origin.seed is not None:
            assert card.config["train"]["seed"] == card.origin.seed

    def test_the_card_has_the_mean_over_fresh_seeds_and_the_gap_of_what_the_search_claimed(self, run: RunPaths) -> None:
        record, card = read_json(run.confirmation), load_bundle(run.best).card
        row = next(row for row in record["candidates"] if row["trial"] == record["winner"])
        fresh, gap = card.scores["val"].fresh_seeds, card.optimism
        assert fresh is not None
        assert (fresh.num_seeds, fresh.num_images) == (2, record["num_images"])
        assert fresh.iou == pytest.approx(row["mean"])
        assert fresh.iou_interval == pytest.approx(row["interval"])
        assert gap is not None
        assert (gap.claimed_by, gap.against, gap.val) == ("search", "test", pytest.approx(row["searched"]))
        assert gap.gap == pytest.approx(row["searched"] - card.scores["test"].iou)
        assert gap.interval[0] < gap.gap < gap.interval[1]
        found = quote(card.but(scores={"val": card.scores["val"]}))  # as it is where there is no test split
        assert found is not None
        assert (found.name, found.chose, found.score.iou) == ("val, fresh seeds", [], fresh.iou)

    def test_a_mean_over_seeds_is_that_of_the_trainings_but_for_cross_fitted_thresholds(self, run: RunPaths) -> None:
        journal = epochs_by_trial(read_events(run.reruns.events))
        for row in read_json(run.confirmation)["candidates"]:
            best = [max(r.metrics["val/iou"] for r in journal[n].values()) for _, n in row["reruns"]]
            assert row["mean"] == pytest.approx(sum(best) / 2, abs=0.03)
            assert row["mean"] <= sum(best) / 2 + 1e-9
            assert row["interval"][0] < row["mean"] < row["interval"][1]

    def test_only_models_that_may_be_sealed_keep_their_weights(self, run: RunPaths) -> None:
        kept = {
            number for number, folders in run.reruns.checkpoints().items() if (folders[0] / "best.safetensors").exists()
        }
        best = set()
        for row in read_json(run.confirmation)["candidates"]:
            best.add(dict(row["reruns"])[max(row["values"], key=lambda pair: pair[1])[0]])
        assert kept == best
        assert all((folders[0] / "images.npz").exists() for folders in run.reruns.checkpoints().values())

    def test_two_identical_configs_are_the_same_trainings_and_a_tie(self, run: RunPaths, tmp_path: Path) -> None:
        config = load_config(run.config)
        paths = RunPaths(tmp_path / "twins")
        work = Work(paths, Search.of(config), *checking.prepare_data(config, QUIET), QUIET)
        paths.root.mkdir()
        write_json(paths.run, read_json(run.run))
        train = config.train_config()
        rows = [TrialRow(n, value=0.8 - n / 100, metrics={"cost/parameters": 5.0}) for n in (0, 1)]
        assert confirm(work, Trials(rows, config.search.objective), {0: train, 1: train})
        record = read_json(paths.confirmation)
        assert trained(paths) == {0: 2, 1: 2}
        assert record["tied"] == [0, 1]
        assert record["candidates"][1]["difference"] == {"value": 0.0, "interval": [0.0, 0.0], "tied": True}

    def test_a_run_that_was_killed_while_it_confirmed_goes_on_and_comes_to_the_same(
        self, run: RunPaths, tmp_path: Path
    ) -> None:
        new_config(tmp_path, train={"epochs": 2, "batch_size": 8})
        paths = RunPaths(tmp_path / "results" / "tiny")
        command = [sys.executable, "-c", "from search.cli import main; main()"]
        process = subprocess.Popen(
            [*command, "run", "tiny.yaml"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, env={**os.environ, "RAY_ADDRESS": ""},
        )  # fmt: skip
        deadline = time.monotonic() + 240
        while b'"epoch"' not in (paths.reruns.events.read_bytes() if paths.reruns.events.exists() else b""):
            assert process.poll() is None, process.communicate()[0].decode()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not paths.confirmation.exists()

        assert job.resume(paths, QUIET).exit_code == 0
        assert set(trained(paths).values()) == {2}
        record, whole = read_json(paths.confirmation), read_json(run.confirmation)
        assert {row["trial"]: row["values"] for row in record["candidates"]} == {
            row["trial"]: row["values"] for row in whole["candidates"]
        }
        assert record["winner"] == whole["winner"]

    def test_more_seeds_by_an_extension_use_what_is_there(self, run: RunPaths, tmp_path: Path) -> None:
        subprocess.run(["cp", "-r", str(run.root), str(tmp_path / run.name)], check=True)
        paths = RunPaths(tmp_path / run.name)
        outcome = job.extend(paths, 0, ["search.confirm.seeds=3"], QUIET)
        assert outcome.exit_code == 0
        assert trained(paths) == dict.fromkeys(range(6), 2)
        assert read_json(paths.confirmation)["seeds"] == [1, 2, 3]


def test_pbt_has_nothing_that_could_be_trained_again(tmp_path: Path) -> None:
    assert is_wanted(new_config(tmp_path))
    pbt = {"num_samples": 6, "scheduler": {"name": "pbt", "population": 4}}
    space = {"optimizer.lr": {"loguniform": [1e-3, 1e-2]}}
    config = new_config(tmp_path, search=pbt, space=space, train={"epochs": 6})
    assert config.search.confirm is not None
    assert not is_wanted(config)
    paths = RunPaths(tmp_path / "run")
    paths.root.mkdir()
    write_json(paths.confirmation, tie())
    assert wanted_confirmation(config, paths) is None
    write_json(paths.run, {"kind": "search", "status": "done"})
    paths.config.write_text((tmp_path / "tiny.yaml").read_text())
    with pytest.raises(RunError, match="searched with pbt"):
        explain(paths, QUIET)


def test_seeds_are_those_that_the_search_did_not_use(tmp_path: Path) -> None:
    config = new_config(tmp_path, train={"epochs": 2, "seed": 7})
    assert other_seeds(config, 3) == [8, 9, 10]
    train = with_seed(config.train_config(), 9)
    assert (train.train.seed, train.train.epochs) == (9, 2)


def test_a_training_is_known_by_its_config_and_keeps_its_number(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    train = TrainConfig()
    first = want(paths, [("trial 0, seed 1", with_seed(train, 1)), ("trial 0, seed 2", with_seed(train, 2))])
    assert [rerun.number for rerun in first] == [0, 1]
    again = want(paths, [("winner, seed 2", with_seed(train, 2)), ("winner, seed 3", with_seed(train, 3))])
    assert [(rerun.number, rerun.label) for rerun in again] == [(1, "trial 0, seed 2"), (2, "winner, seed 3")]
    assert len(read_json(paths.reruns.trainings)["trainings"]) == 3
    assert [rerun.number for rerun in unfinished(paths, [*first, *again, *first], "val/iou")] == [0, 1, 2]


def fail_with_seed_two(spec: dict[str, Any]) -> None:
    if spec["train"]["train"]["seed"] == 2:
        raise ValueError("no luck with this seed")
    train_trial(spec)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_training_that_fails_is_told_and_not_tried_again(tmp_path: Path) -> None:
    config = new_config(tmp_path)
    _, cache_path = checking.prepare_data(config, QUIET)
    paths = RunPaths(tmp_path / "results" / "tiny")
    paths.root.mkdir(parents=True)
    write_json(paths.run, {"status": "running"})
    train = config.train_config()
    wanted = want(paths, [(f"trial 0, seed {seed}", with_seed(train, seed)) for seed in (1, 2)])
    assert run_again(
        Search.of(config), paths, cache_path, wanted, QUIET, keep_weights=False, trainable=fail_with_seed_two
    )
    found = outcomes(paths, wanted, Objective("val/iou"))
    assert found[0].error is None
    assert found[0].images is not None
    assert found[0].metrics["val/iou"] > 0
    assert found[1].error == "ValueError: no luck with this seed"
    assert run_again(Search.of(config), paths, cache_path, wanted, QUIET, keep_weights=False)
    assert set(trained(paths)) == {0}
    (checkpoint,) = paths.reruns.trial_checkpoints(0)
    assert not (checkpoint / "best.safetensors").exists()


@pytest.mark.slow
class TestExplain:
    def test_worths_add_up_and_trainings_of_the_confirmation_are_not_made_again(
        self, run: RunPaths, cli: Callable[..., Result]
    ) -> None:
        before = set(trained(run))
        result = cli("explain", run.name, "--json")
        assert result.exit_code == 0, result.output
        record = json.loads(result.stdout)
        assert record == read_json(run.ledger)
        assert record["trial"] == read_json(run.confirmation)["winner"]
        if record["steps"]:
            assert sum(step["worth"] for step in record["steps"]) == pytest.approx(record["total"]["worth"])
        else:
            assert record["total"]["worth"] == 0
        rows = {row["trial"]: row for row in read_json(run.confirmation)["candidates"]}
        assert record["winner"]["mean"] == pytest.approx(rows[record["trial"]]["mean"])
        entries = read_json(run.reruns.trainings)["trainings"]
        assert not any(entries[n]["label"].startswith("winner") for n in set(trained(run)) - before)
        assert record["seed_noise"]["df"] >= 2
        assert record["notes"][-1].startswith("the winner's trainings also chose it among 2 candidates")

        made = trained(run)
        shown = cli("explain", run.name)
        assert shown.exit_code == 0
        assert trained(run) == made
        assert "baseline" in shown.output
        assert "0 of these" in shown.output
        assert "ledger" in json.loads(cli("show", run.name, "--json").stdout)
        assert "worth" in run.report.read_text()

    def test_the_baseline_may_begin_elsewhere(self, run: RunPaths, cli: Callable[..., Result]) -> None:
        arch = load_bundle(run.best).config.model.arch
        other = {"unet": "attention_unet", "attention_unet": "unet"}[arch]
        record = json.loads(cli("explain", run.name, "--from", f"model.arch={other}", "--json").stdout)
        (step,) = [step for step in record["steps"] if step["group"] == "architecture"]
        assert step["changes"] == [["model.arch", other, arch]]
        assert all(is_finished(rows) for rows in epochs_by_trial(read_events(run.reruns.events)).values())

    @pytest.mark.parametrize(
        ("begin", "message"),
        [
            ("train.epochs=1", "--from train.epochs=1: only what the search gave to the winner"),
            ("model.arch=net", "model.arch"),
            ("nonsense", "each as KEY=VALUE"),
        ],
    )
    def test_what_was_not_searched_is_no_place_to_begin(
        self, begin: str, message: str, run: RunPaths, cli: Callable[..., Result]
    ) -> None:
        with pytest.raises(ConfigError):
            explain(run, QUIET, begin=[begin])
        result = cli("explain", run.name, "--from", begin)
        assert result.exit_code == 2
        assert message in re.sub(r"\s+", " ", result.output)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"kind": "train", "status": "done"}, "is one training run"),
        ({"kind": "search", "status": "done"}, "no trial of 'r' has come to a value yet"),
    ],
)
def test_there_must_be_a_winner_to_explain(record: dict[str, Any], message: str, tmp_path: Path) -> None:
    new_config(tmp_path)
    paths = RunPaths(tmp_path / "r")
    paths.root.mkdir()
    write_json(paths.run, record)
    paths.config.write_text((tmp_path / "tiny.yaml").read_text())
    with pytest.raises(RunError, match=message):
        explain(paths, QUIET)


def test_the_order_of_validation_images_is_that_of_the_cache(tmp_path: Path) -> None:
    """Scores of images come in the cache's order, their groups and halves in the index's."""
    config = new_config(tmp_path)
    index = discover(config.data)
    with open_cache(build_cache(index, config.data)) as cache:
        masks = [cache.mask(i) for i in cache.indices("val")]
        rule = cache.mask_rule
    assert len(masks) == len(index.split("val")) > 1
    for mask, sample in zip(masks, index.split("val"), strict=True):
        np.testing.assert_array_equal(mask, read_mask(sample.mask, rule, config.data.image_hw))
