"""`check`, `run`, `train`, `resume` and `extend`: exit codes, one message, nothing half-written."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from command_results import SPACE, SYNTHETIC, refused
from noise_pairs import good_pairs, image, mask

from search.config.load import load_config
from search.runs.folder import absolute_paths, create_run, update_run
from search.runs.paths import read_json


def test_a_search_over_nothing_is_refused_with_what_to_do(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(SYNTHETIC)
    refused(cli("run", "c.yaml"), "space:", "segsearch train")


def test_resuming_without_the_encoders_weights_is_refused_before_anything_is_trained(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(
        SYNTHETIC + SPACE + "model: {encoder: 'timm:tf_efficientnet_lite0', encoder_weights: gone.safetensors}\n"
    )
    paths = create_run(absolute_paths(load_config(tmp_path / "c.yaml")), "search")
    update_run(paths, status="interrupted")
    refused(cli("resume", "c"), "model.encoder_weights", "gone.safetensors")
    refused(cli("extend", "c", "--num-samples", "2"), "model.encoder_weights", "gone.safetensors")
    assert not paths.events.exists()
    assert "extensions" not in read_json(paths.run)


def test_extend_says_that_it_adds_trials(cli: Callable[..., Result]) -> None:
    text = " ".join(cli("extend", "--help").output.split())
    assert "N more than have begun so far, not N in all" in text
    refused(cli("extend", "c"), "Missing option '--num-samples'")


def test_an_export_that_cannot_work_is_refused_before_anything_is_trained(
    cli: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(SYNTHETIC + SPACE + "export: {targets: [{yandex_disk: /models/x}]}\n")
    refused(cli("run", "c.yaml"), "YADISK_TOKEN", "yandex_disk:/models/x")
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_check_says_that_all_is_well(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(SYNTHETIC + SPACE)
    result = cli("check", "c.yaml")
    assert result.exit_code == 0
    assert "fit for a run" in result.output


@pytest.mark.slow
def test_an_export_that_fails_during_a_run_exits_3_and_can_be_repeated(tmp_path: Path) -> None:
    """The target becomes unusable after the check at the start; here its folder is taken while training goes on."""
    (tmp_path / "c.yaml").write_text(
        SYNTHETIC + "model: {base_channels: 4, depth: 2}\ntrain: {epochs: 2, batch_size: 8}\n"
        "search: {gate: false, confirm: null}\nexport: {targets: [{local: out}]}\n"
    )
    code = (
        "import pathlib, search.stages.sealing as s\nfrom search.cli import main\nseal = s.seal\n"
        "def seal_then_occupy(*args, **kwargs):\n"
        "    card = seal(*args, **kwargs)\n"
        "    pathlib.Path('out').mkdir(); pathlib.Path('out/mine.txt').write_text('x')\n"
        "    return card\n"
        "s.seal = seal_then_occupy\nmain(['train', 'c.yaml'])"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode == 3, result.stderr
    assert "segsearch export c" in result.stderr
    assert json.loads((tmp_path / "results/c/run.json").read_text())["status"] == "export_failed"
    (tmp_path / "out" / "mine.txt").unlink()
    again = subprocess.run(
        [sys.executable, "-c", "from search.cli import main; main()", "export", "c"],
        cwd=tmp_path, capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "results/c/run.json").read_text())["status"] == "done"
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_killed_training_goes_on_after_its_last_epoch(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        SYNTHETIC + "model: {base_channels: 16, depth: 3}\ntrain: {epochs: 30, batch_size: 4}\nsearch: {gate: false}\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", "from search.cli import main; main()"]
    events = tmp_path / "results/c/events.jsonl"
    process = subprocess.Popen([*command, "train", "c.yaml"], cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not events.exists() or events.read_text().count("\n") < 3):
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = events.read_text().count("\n")
    assert 3 <= before < 30
    resumed = subprocess.run(
        [*command, "resume", "c"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    rows = [json.loads(line) for line in events.read_text().splitlines()]
    epochs = [row["epoch"] for row in rows if row["event"] == "epoch"]
    assert epochs == list(range(1, 31)), "an epoch is saved before it is told of, so each is told of once"
    assert json.loads((tmp_path / "results/c/run.json").read_text())["status"] == "done"


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_data(cli: Callable[..., Result], tmp_path: Path) -> None:
    good_pairs(tmp_path / "d")
    (tmp_path / "c.yaml").write_text(
        "data: {root: d, image_size: 32}\nmodel: {base_channels: 4, depth: 2}\n"
        "train: {epochs: 1, batch_size: 4}\nsearch: {gate: false, confirm: null}\n"
    )
    assert cli("train", "c.yaml").exit_code == 0
    record = tmp_path / "results/c/run.json"
    record.write_text(record.read_text().replace('"done"', '"interrupted"'))
    assert cli("resume", "c").exit_code == 0
    record.write_text(record.read_text().replace('"done"', '"interrupted"'))
    image(tmp_path / "d" / "images" / "0.png", (44, 30))
    mask(tmp_path / "d" / "masks" / "0.png", (44, 30))
    refused(cli("resume", "c"), "have changed since 'c' began")
