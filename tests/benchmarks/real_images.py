"""The main job on two real data sets, end to end, on a CPU: how good the sealed model is, and how long it took.

    make bench NAME=real_images ARGS="--data DIR --weights FILE"

DIR holds `horses/` and `nuclei/`, each `{train,val}/images/CLASS` + `gt/CLASS`; FILE is an EfficientNet-Lite0 with
timm's key names. A run that is in the results folder already is reported, not repeated. The score in the last column is
computed here, from the masks that `segsearch predict` writes, with PIL and numpy alone.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from search.results import read_table
from search.show import short_names
from segcore.card import installed_versions

ROOT = Path(__file__).resolve().parents[2]
GOALS = {"horses": 0.86, "nuclei": 0.78}
SETTINGS = {
    "model.encoder": "timm:tf_efficientnet_lite0",
    "data.image_size": "96",
    "train.epochs": "10",
    "train.batch_size": "8",
    "optimizer.lr": "3e-3",
    "model.decoder_channels": "[256,128,64,32,16]",
    "search.num_samples": "12",
    "search.scheduler.grace_period": "4",
}
QUICK = {"train.epochs": "1", "search.num_samples": "2", "data.image_size": "32", "search.scheduler.grace_period": "1"}


def main() -> None:
    """Runs what is not there yet, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument(
        "--weights", type=Path, default=ROOT.parent / "shared" / "weights" / "tf_efficientnet_lite0.safetensors"
    )
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--quick", action="store_true", help="A smoke run: tiny, and no page is written.")
    options = parser.parse_args()
    if options.quick:
        options.results = Path(tempfile.mkdtemp(prefix="segsearch-bench-"))
    reports = {name: measure(name, options) for name in GOALS}
    if not options.quick:
        page = ROOT / "results" / "benchmarks" / "real_images.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render(reports), encoding="utf-8")
        print(f"wrote {page}")
    print(json.dumps({f"{name}_{key}": r[key] for name, r in reports.items() for key in ("iou", "minutes", "goal")}))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One data set: the run if it is not there, then what it came to."""
    data = options.data / name
    settings = {
        **SETTINGS,
        **(QUICK if options.quick else {}),
        "data.root": str(data),
        "model.encoder_weights": str(options.weights),
        "results": str(options.results),
    }
    run = options.results / name
    if not (run / "best" / "card.json").is_file():
        command = ["run", "configs/attention.yaml", "--name", name]
        segsearch(*command, *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")))
    card = json.loads((run / "best" / "card.json").read_text())
    with tempfile.TemporaryDirectory() as masks:
        segsearch("predict", str(run / "best"), str(data / "val" / "images"), "-o", masks, "--size", "model")
        own = score(Path(masks), data / "val" / "gt")
    record = json.loads((run / "run.json").read_text())
    return {
        "iou": card["scores"]["val"]["iou"],
        "own": own,
        "goal": GOALS[name],
        "minutes": round(record["timings"]["total_s"] / 60, 2),
        "card": card,
        "trials": read_table(run / "trials.parquet"),
        "host": record["host"],
    }


def score(masks: Path, truth: Path) -> float:
    """Mean IoU per image; an independent reading of the files, on purpose without any of segsearch's code."""
    ious = []
    for path in sorted(truth.rglob("*.png")):
        pred = np.asarray(Image.open(masks / path.relative_to(truth))) > 127
        target = np.asarray(Image.open(path).resize(pred.shape[::-1], Image.Resampling.NEAREST)) > 127
        union = np.logical_or(pred, target).sum()
        ious.append(np.logical_and(pred, target).sum() / union if union else 1.0)
    return float(np.mean(ious))


def segsearch(*arguments: str) -> None:
    """Runs the command as a user would."""
    subprocess.run([sys.executable, "-c", "from search.cli import main; main()", *arguments], check=True, cwd=ROOT)


def render(reports: dict[str, dict[str, Any]]) -> str:
    """The page."""
    host = next(iter(reports.values()))["host"]
    versions = ", ".join(f"{name} {version}" for name, version in installed_versions().items())
    sets = " ".join(f"--set {key}={value}" for key, value in SETTINGS.items())
    lines = [
        "# The main job on real images",
        "",
        'Made by `make bench NAME=real_images ARGS="--data DIR --weights FILE"`, which runs, for each data set,',
        f"`segsearch run configs/attention.yaml --set data.root=DIR/NAME --set model.encoder_weights=FILE {sets}`.",
        "",
        f"{time.strftime('%Y-%m-%d')}, {host['cpus']} CPU cores, no GPU, Python {platform.python_version()}, "
        f"{versions}.",
        "",
        "Mean IoU per image on val, which also chose the epoch, the threshold and the winner; there is no test split.",
        "",
        "| data | IoU, card | 95% interval | IoU, own script | goal | Dice | minutes | trials | threshold |",
        "| --- " * 9 + "|",
    ]
    for name, report in reports.items():
        val = report["card"]["scores"]["val"]
        low, high = val["iou_interval"]
        lines.append(
            f"| {name} | {val['iou']:.4f} | {low:.4f} - {high:.4f} | {report['own']:.4f} | {report['goal']:.2f} | "
            f"{val['dice']:.4f} | {report['minutes']:.1f} | {len(report['trials'])} | "
            f"{report['card']['threshold']['value']:.3f} |"
        )
        lines += [] if abs(val["iou"] - report["own"]) < 1e-6 else [f"**{name}: the two scores differ**"]
    for name, report in reports.items():
        lines += ["", f"## {name}: the trials, best first", "", *trial_table(report["trials"])]
    return "\n".join(lines) + "\n"


def trial_table(trials: list[dict[str, Any]]) -> list[str]:
    """One row a trial."""
    lines = ["| trial | state | val/iou | best epoch | epochs | seconds | settings |", "| --- " * 7 + "|"]
    for row in sorted(trials, key=lambda row: -(row["value"] or 0)):
        settings = short_names({k.removeprefix("param/"): v for k, v in row.items() if k.startswith("param/")})
        text = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in settings.items()
            if value is not None
        )
        lines.append(
            f"| {row['number']} | {row['state']} | {row['value'] or 0:.4f} | {row['best_epoch']} | {row['epochs']} | "
            f"{row['train_s']:.0f} | {text} |"
        )
    return lines


if __name__ == "__main__":
    main()
