"""The main job on two real data sets, end to end, on a CPU: how good the sealed model is, and what made it so.

    make bench NAME=real_images ARGS="--data DIR --weights FILE"

DIR holds `horses/` and `nuclei/`, each `{train,val}/images/CLASS` + `gt/CLASS`; FILE is an EfficientNet-Lite0 with
timm's key names. 15% of the training images are held out as the test split. A run that is in the results folder already
is gone on with, or reported where it is done. The score in the column `own script` is computed here, from the masks
that `segsearch predict` writes, with PIL and numpy alone. The last part is the ledger of `segsearch explain horses`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bench_page import table, write_page
from PIL import Image

from search.runs.rerun_records import Confirmation, Ledger
from search.runs.tables import read_table
from search.runs.trials import Trials
from search.show.confirmation import confirmation_lines, confirmation_table
from search.show.ledger import alternative_table, ledger_lines, ledger_table
from search.show.run import short_names
from segcore.objective import Objective

ROOT = Path(__file__).resolve().parents[2]
GOALS = {"horses": 0.86, "nuclei": 0.78}
NUM_SAMPLES = {"horses": 20, "nuclei": 12}
EXPLAINED = "horses"
SETTINGS = {
    "model.encoder": "timm:tf_efficientnet_lite0",
    "data.image_size": "96",
    "train.epochs": "10",
    "train.batch_size": "8",
    "optimizer.lr": "3e-3",
    "model.decoder_channels": "[256,128,64,32,16]",
    "search.scheduler.grace_period": "4",
    "data.test_fraction": "0.15",
}
QUICK = {
    "train.epochs": "1",
    "data.image_size": "32",
    "search.scheduler.grace_period": "1",
    "search.confirm": "null",
}


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
    segsearch("explain", EXPLAINED, "--results", str(options.results), *(["--seeds", "2"] if options.quick else []))
    ledger = json.loads((options.results / EXPLAINED / "ledger.json").read_text())
    if not options.quick:
        lines = [*render(reports), "", *render_ledger(ledger)]
        print(
            f"wrote {write_page('real_images', 'The main job on real images', text(), lines, 'timm', 'ray', 'optuna')}"
        )
    figures = {f"{name}_{key}": r[key] for name, r in reports.items() for key in ("iou", "test_iou", "gap", "minutes")}
    print(json.dumps({**figures, "ledger_total": ledger["total"]["worth"]}))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One data set: the run as far as it is not there, then what it came to."""
    data, run = options.data / name, options.results / name
    settings = {
        **SETTINGS,
        "search.num_samples": "2" if options.quick else str(NUM_SAMPLES[name]),
        **(QUICK if options.quick else {}),
        "data.root": str(data),
        "model.encoder_weights": str(options.weights),
        "results": str(options.results),
    }
    if (run / "run.json").is_file():
        segsearch("resume", name, "--results", str(options.results))
    else:
        command = ["run", "configs/attention.yaml", "--name", name]
        segsearch(*command, *(part for key, value in settings.items() for part in ("--set", f"{key}={value}")))
    card = json.loads((run / "best" / "card.json").read_text())
    with tempfile.TemporaryDirectory() as masks:
        segsearch("predict", str(run / "best"), str(data / "val" / "images"), "-o", masks, "--size", "model")
        own = score(Path(masks), data / "val" / "gt")
    record = json.loads((run / "run.json").read_text())
    confirmed = run / "confirm.json"
    return {
        "iou": card["scores"]["val"]["iou"],
        "test_iou": card["scores"]["test"]["iou"],
        "gap": card["optimism"]["gap"],
        "own": own,
        "minutes": round(record["timings"]["total_s"] / 60, 2),
        "card": card,
        "confirmation": json.loads(confirmed.read_text()) if confirmed.is_file() else None,
        "trials": read_table(run / "trials.parquet"),
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


def text() -> str:
    """What was run."""
    sets = " ".join(f"--set {key}={value}" for key, value in SETTINGS.items())
    samples = ", ".join(f"{count} for {name}" for name, count in NUM_SAMPLES.items())
    return (
        'With `ARGS="--data DIR --weights FILE"` it runs, for each data set, `segsearch run configs/attention.yaml '
        f"--set data.root=DIR/NAME --set model.encoder_weights=FILE {sets} --set search.num_samples=N` (N is "
        f"{samples}), then `segsearch explain {EXPLAINED}`. The machine did other work meanwhile, so the minutes are "
        "an upper bound.\n\n"
        "The test split is 15% of the training images; it chose nothing and was opened once, by the sealed model. "
        "The gap is val's IoU, which also chose epoch, threshold, winner and seed, less that of test."
    )


def render(reports: dict[str, dict[str, Any]]) -> list[str]:
    """The scores, then each data set's confirmation and trials."""
    rows = []
    for name, report in reports.items():
        scores, gap = report["card"]["scores"], report["card"]["optimism"]
        images = report["card"]["data"]["images"]
        rows.append(
            [
                name, "/".join(str(images[split]) for split in ("train", "val", "test")),
                f"{scores['test']['iou']:.4f}", span(scores["test"]["iou_interval"]), f"{scores['val']['iou']:.4f}",
                f"{report['own']:.4f}", f"{GOALS[name]:.2f}", f"{gap['gap']:+.4f}",
                f"{gap['interval'][0]:+.4f} to {gap['interval'][1]:+.4f}", f"{report['minutes']:.0f}",
            ]
        )  # fmt: skip
    heads = [
        "data", "images train/val/test", "test IoU", "95% interval", "val IoU", "own script", "goal for val", "gap",
        "95% interval", "minutes",
    ]  # fmt: skip
    lines = table(heads, rows)
    for name, report in reports.items():
        if report["confirmation"]:
            confirmation = Confirmation.model_validate(report["confirmation"])
            found, rows = confirmation_table(confirmation)
            lines += ["", f"## {name}: the best trials again with other seeds", ""]
            lines += [*table(one_line(found), rows), "", *as_list(confirmation_lines(confirmation))]
        lines += ["", f"## {name}: the search's trials, best first", "", *trial_table(report["trials"])]
    return lines


def render_ledger(record: dict[str, Any]) -> list[str]:
    """What each change is worth."""
    ledger = Ledger.model_validate(record)
    heads, rows = ledger_table(ledger)
    lines = [f"## {EXPLAINED}: what each change is worth", "", *table(one_line(heads), [one_line(row) for row in rows])]
    heads, rows = alternative_table(ledger)
    if rows:
        lines += ["", "At the winner, one choice against another:", "", *table(one_line(heads), rows)]
    return [*lines, "", *as_list(ledger_lines(ledger))]


def trial_table(trials: list[dict[str, Any]]) -> list[str]:
    """One row a trial."""
    rows = []
    for row in Trials.from_table(trials, Objective("val/iou")).ranked():
        settings = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in short_names(row.params).items()
        )
        rows.append(
            [
                str(row.number), row.state, f"{row.value or 0:.4f}", str(row.best_epoch),
                str(row.epochs), f"{row.train_s:.0f}", settings,
            ]
        )  # fmt: skip
    return table(["trial", "state", "val/iou", "best epoch", "epochs", "seconds", "settings"], rows)


def as_list(lines: Any) -> list[str]:
    """Lines as a Markdown list."""
    return [f"- {line}" for line in lines]


def one_line(cells: list[str]) -> list[str]:
    """Cells of a table without line breaks."""
    return [cell.replace("\n", ", " if "->" in cell else " ") for cell in cells]


def span(interval: list[float]) -> str:
    """An interval."""
    return f"{interval[0]:.4f} - {interval[1]:.4f}"


if __name__ == "__main__":
    main()
