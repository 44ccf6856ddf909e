"""The commands as a user meets them: exit codes, one message, no traceback, nothing half-written."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from command_results import SYNTHETIC, refused
from noise_pairs import image
from PIL import Image

from search.config.choices import TARGETS


def test_commands_name_what_they_did_not_find(cli: Callable[..., Result], tmp_path: Path) -> None:
    refused(cli("show", "nope"), "no run 'nope'")
    refused(cli("resume", "nope"), "no run 'nope'")
    refused(cli("extend", "nope", "--num-samples", "1"), "no run 'nope'")
    refused(cli("export", "nope"), "no run 'nope'")
    refused(cli("predict", "nope", str(tmp_path), "-o", "out"), "holds no image")
    image(tmp_path / "x.png")
    refused(cli("predict", "nope", "x.png", "-o", "out"), "no model 'nope'")
    refused(cli("evaluate", "nope", "x"), "no model 'nope'")
    refused(cli("run", "nope.yaml"), "nope.yaml")
    assert "no runs in results" in cli("ls").output
    assert json.loads(cli("ls", "--json").output) == []


def test_a_number_of_trials_below_none_is_refused(cli: Callable[..., Result]) -> None:
    refused(cli("show", "birds", "--top", "-1"), "Invalid value for '--top': -1 is not in the range x>=0")


def test_the_help_of_export_names_every_kind_of_target(cli: Callable[..., Result]) -> None:
    shown = " ".join(cli("export", "--help").output.split())
    for target in TARGETS:
        assert f"{target.name}:{target.build.placeholder}" in shown


def test_help_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom search.cli import main\n"
        "for command in ([], *([c] for c in main.commands)):\n"
        "    assert CliRunner().invoke(main, [*command, '--help']).exit_code == 0\n"
        "print(sorted({'torch', 'ray', 'wandb', 'albumentations'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.slow
def test_train_evaluate_predict_show_and_export_agree(cli: Callable[..., Result], tmp_path: Path) -> None:
    """One training run through every command that uses its result, and a failed export in between."""
    (tmp_path / "c.yaml").write_text(
        SYNTHETIC + "model: {base_channels: 8, depth: 2}\ntrain: {epochs: 2, batch_size: 8}\n"
    )
    assert cli("train", "c.yaml").exit_code == 0
    card = json.loads((tmp_path / "results/c/best/card.json").read_text())
    assert json.loads(cli("ls", "--json").stdout)[0]["iou"] == card["scores"]["test"]["iou"]
    assert json.loads((tmp_path / "results/c/run.json").read_text())["gate"]["passed"] is True
    assert Image.open(tmp_path / "results/c/gate.png").width > 300
    assert json.loads(cli("show", "c", "--json").stdout)["card"]["scores"] == card["scores"]

    data = next(path for path in (tmp_path / "cache" / "segsearch").glob("synthetic-*") if path.is_dir())
    report = json.loads(cli("evaluate", "c", str(data), "--json").stdout)
    assert report["iou"] == card["scores"]["test"]["iou"]

    assert cli("predict", "c", str(data / "test" / "images"), "-o", "out", "--size", "model").exit_code == 0
    ious = []
    for path in sorted((data / "test" / "gt").rglob("*.png")):
        pred = np.asarray(Image.open(tmp_path / "out" / path.relative_to(data / "test" / "gt"))) > 127
        target = np.asarray(Image.open(path).resize(pred.shape[::-1], Image.Resampling.NEAREST)) > 127
        union = (pred | target).sum()
        ious.append((pred & target).sum() / union if union else 1.0)
    assert np.mean(ious) == pytest.approx(card["scores"]["test"]["iou"], abs=1e-12)

    refused(cli("train", "c.yaml"), "is there already", "--name")
    assert "nothing to resume" in cli("resume", "c").output
    refused(cli("export", "c", "--to", "ftp:/x"), "ftp:/x")
    refused(cli("export", "c"), "--to")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.doc").write_text("precious")
    failed = cli("export", "c", "--to", f"local:{tmp_path / 'taken'}")
    assert failed.exit_code == 3, failed.output
    assert (tmp_path / "taken" / "thesis.doc").read_text() == "precious"
    assert cli("export", "c", "--to", f"local:{tmp_path / 'free'}").exit_code == 0
    assert (tmp_path / "free" / "card.json").read_bytes() == (tmp_path / "results/c/best/card.json").read_bytes()


@pytest.mark.slow
@pytest.mark.shared
def test_real_horses_with_real_pretrained_weights(
    cli: Callable[..., Result], tmp_path: Path, horses_dir: Path, lite0_weights: Path
) -> None:
    (tmp_path / "c.yaml").write_text(
        f"data: {{root: '{horses_dir}', image_size: 64}}\noptimizer: {{lr: 3e-3}}\n"
        f"model: {{encoder: 'timm:tf_efficientnet_lite0', encoder_weights: '{lite0_weights}'}}\n"
        "train: {epochs: 1, batch_size: 8}\n"
    )
    assert cli("train", "c.yaml").exit_code == 0
    score = json.loads((tmp_path / "results/c/best/card.json").read_text())["scores"]["val"]
    assert score["num_images"] == 48
    assert score["iou"] > 0.55, "all foreground would give 0.25"
    assert cli("predict", "c", str(horses_dir / "val/images"), "-o", "out", "--size", "model").exit_code == 0
    ious = []
    for path in sorted((horses_dir / "val" / "gt").rglob("*.png")):
        pred = np.asarray(Image.open(tmp_path / "out" / path.relative_to(horses_dir / "val" / "gt"))) > 127
        target = np.asarray(Image.open(path).resize(pred.shape[::-1], Image.Resampling.NEAREST)) > 127
        ious.append((pred & target).sum() / (pred | target).sum())
    assert np.mean(ious) == pytest.approx(score["iou"], abs=1e-12)
