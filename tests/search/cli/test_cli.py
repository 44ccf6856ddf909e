"""The commands as a user meets them: exit codes, one message, no traceback, nothing half-written."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from search.cli.group import main
from search.config.load import load_config
from search.runs.folder import absolute_paths, create_run, update_run
from search.runs.paths import read_json
from segcore.config import DataConfig

SYNTHETIC = "data: {root: synthetic, image_size: 32, synthetic: {num_images: 24}}\n"
SPACE = "space: {optimizer.lr: {loguniform: [1e-3, 1e-2]}}\n"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(main, list(arguments))

    return invoke


def refused(result: Result, *fragments: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert result.output.count("error:") <= 1
    flat = " ".join(result.output.split())
    for fragment in fragments:
        assert fragment in flat


BAD_CONFIGS: list[tuple[str, str, list[str]]] = [
    ("not yaml", "train: {epochs: 3", ["not valid YAML"]),
    ("empty", "", ["empty"]),
    ("a list", "- train\n", ["list"]),
    ("unknown section", "optimzer: {lr: 1e-3}\n", ["optimzer", "optimizer"]),
    ("unknown key", "optimizer: {learning_rate: 1e-3}\n", ["optimizer.learning_rate"]),
    ("key of another section", "lr: 1e-3\n", ["optimizer.lr"]),
    ("wrong type", "train: {epochs: many}\n", ["train.epochs", "many"]),
    ("zero epochs", "train: {epochs: 0}\n", ["train.epochs", "0"]),
    ("negative lr", "optimizer: {lr: -1}\n", ["optimizer.lr"]),
    ("unknown architecture", "model: {arch: unet++}\n", ["model.arch", "attention_unet"]),
    ("encoder without timm", "model: {encoder: resnet50}\n", ["model.encoder", "timm:"]),
    ("weights without encoder", "model: {encoder_weights: imagenet}\n", ["encoder_weights"]),
    ("no loss at all", "loss: {bce: 0, dice: 0}\n", ["loss"]),
    ("threshold above 1", "threshold: 1.5\n", ["threshold"]),
    ("fractions that leave nothing", "data: {val_fraction: 0.6, test_fraction: 0.5}\n", ["val_fraction"]),
    ("unknown searched key", "space: {optimizer.lrr: {uniform: [0, 1]}}\n", ["optimizer.lrr"]),
    ("range upside down", "space: {optimizer.lr: {uniform: [1, 0.1]}}\n", ["space.optimizer.lr"]),
    ("log of zero", "space: {optimizer.lr: {loguniform: [0, 0.1]}}\n", ["space.optimizer.lr"]),
    ("choice that is invalid", "space: {model.arch: {choice: [unet, segnet]}}\n", ["segnet"]),
    ("data searched", "space: {data.image_size: {choice: [64, 96]}}\n", ["data.image_size"]),
    ("unknown sampler", "search: {sampler: magic}\n", ["search.sampler", "tpe"]),
    ("metric and mode disagree", "search: {metric: val/loss, mode: max}\n", ["mode"]),
    ("unknown target", "export: {targets: [{ftp: /x}]}\n", ["export.targets", "yandex_disk"]),
    ("secret in the config", "tracking: {wandb: {api_key: abc}}\n", ["WANDB_API_KEY"]),
    ("name that is no folder", "name: a/b\n", ["name"]),
]


@pytest.mark.parametrize(
    ("text", "fragments"), [case[1:] for case in BAD_CONFIGS], ids=[case[0] for case in BAD_CONFIGS]
)
def test_a_bad_config_is_one_message_and_leaves_nothing(
    cli: Callable[..., Result], tmp_path: Path, text: str, fragments: list[str]
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    for command in ("check", "run", "train"):
        refused(cli(command, "c.yaml"), *fragments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml"]


def test_a_search_over_nothing_is_refused_with_what_to_do(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(SYNTHETIC)
    refused(cli("run", "c.yaml"), "space:", "segsearch train")


def image(path: Path, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(len(path.name)).integers(0, 255, (*size[::-1], 3), np.uint8)).save(path)


def mask(path: Path, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros(size[::-1], np.uint8)
    array[5:15, 5:20] = 255
    Image.fromarray(array).save(path)


def good_pairs(root: Path, count: int = 10) -> None:
    for number in range(count):
        image(root / "images" / f"{number}.png")
        mask(root / "masks" / f"{number}.png")


def nothing_there(root: Path) -> None:
    pass


def empty_folder(root: Path) -> None:
    root.mkdir()


def only_text(root: Path) -> None:
    root.mkdir()
    (root / "readme.txt").write_text("no images")


def missing_mask(root: Path) -> None:
    good_pairs(root)
    (root / "masks" / "3.png").unlink()


def missing_image(root: Path) -> None:
    good_pairs(root)
    (root / "images" / "4.png").unlink()


def truncated_image(root: Path) -> None:
    good_pairs(root)
    path = root / "images" / "2.png"
    path.write_bytes(path.read_bytes()[:200])


def not_an_image(root: Path) -> None:
    good_pairs(root)
    (root / "images" / "5.png").write_text("hello")


def sizes_differ(root: Path) -> None:
    good_pairs(root)
    mask(root / "masks" / "6.png", (20, 20))


def mask_is_a_photo(root: Path) -> None:
    good_pairs(root)
    image(root / "masks" / "7.png")


def two_images_one_name(root: Path) -> None:
    good_pairs(root)
    Image.open(root / "images" / "8.png").save(root / "images" / "8.jpg")


def csv_names_a_missing_file(root: Path) -> None:
    good_pairs(root)
    rows = "\n".join(f"images/{n}.png,masks/{n}.png" for n in (0, 1, 2, 99))
    (root / "pairs.csv").write_text("image,mask\n" + rows + "\n")
    (root / "images").rename(root / "pictures")


def one_pair_only(root: Path) -> None:
    good_pairs(root, 1)


BAD_DATA: list[tuple[Callable[[Path], None], str]] = [
    (nothing_there, "does not exist"),
    (empty_folder, "data.root"),
    (only_text, "data.root"),
    (missing_mask, "3.png"),
    (missing_image, "4.png"),
    (truncated_image, "2.png"),
    (not_an_image, "5.png"),
    (sizes_differ, "6.png"),
    (mask_is_a_photo, "7.png"),
    (two_images_one_name, "8.jpg"),
    (csv_names_a_missing_file, "99.png"),
    (one_pair_only, "at least 2 are needed"),
]


@pytest.mark.parametrize(("build", "fragment"), BAD_DATA, ids=[case[0].__name__ for case in BAD_DATA])
def test_a_bad_data_folder_is_one_message_and_leaves_no_run(
    cli: Callable[..., Result], tmp_path: Path, build: Callable[[Path], None], fragment: str
) -> None:
    build(tmp_path / "d")
    (tmp_path / "c.yaml").write_text("data: {root: d, image_size: 32}\n" + SPACE)
    for command in ("check", "run"):
        refused(cli(command, "c.yaml"), fragment)
    assert not (tmp_path / "results").exists()


def test_a_folder_without_data_is_answered_in_the_words_of_the_command(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.yaml").write_text("data: {root: d, image_size: 32}\n" + SPACE)
    refused(cli("check", "c.yaml"), "no images with masks found", "--set data.root=FOLDER", "--set data.root=synthetic")
    bundle = SimpleNamespace(config=SimpleNamespace(data=DataConfig()))
    monkeypatch.setattr("search.stages.predicting.load_model", lambda *_: bundle)
    evaluated = cli("evaluate", "model", "d")
    refused(evaluated, "no images with masks found")
    assert "--set" not in evaluated.output


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


@pytest.mark.slow
def test_check_says_that_all_is_well(cli: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(SYNTHETIC + SPACE)
    result = cli("check", "c.yaml")
    assert result.exit_code == 0
    assert "fit for a run" in result.output


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
