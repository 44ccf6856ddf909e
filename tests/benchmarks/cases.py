"""Awkward inputs, each through `segsearch check` and `segsearch run`: what they come to.

    make bench NAME=cases [ARGS="--quick | --only TEXT | --before CHECKOUT"]

The inputs are made anew from `tests/cases`; their true masks are known. Each command runs in a process of its own, with
a time limit. *Right*: exit 0, and every mask as it was decoded has an IoU of at least 0.97 with the true one. *Asks*:
exit 2 with one message that names what has to be settled. *Warns*: exit 0, and what is not as it should be is said.
*Wrong in silence*: exit 0, masks that are wrong, and not a word. `run` is left out where `check` has refused.
`--before` goes through the same inputs with the code of another checkout (data sets with `check` alone, which reads
them as `run` does); otherwise its column is taken from the page as it is.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "tests" / "cases")

from bench_page import FOLDER, table, write_page  # noqa: E402
from case import Case, Truth  # noqa: E402
from odd_files import FILES  # noqa: E402
from odd_masks import MASKS  # noqa: E402
from odd_settings import SETTINGS  # noqa: E402

TIMEOUT_S = 180
BASE = """\
name: case
data: {root: ROOT, cache_dir: CACHE, image_size: [HEIGHT, WIDTH], val_fraction: 0.25}
model: {arch: unet, encoder: none, base_channels: 4, depth: 2}
augment: {policy: none}
optimizer: {lr: 1e-2}
train: {epochs: 1, batch_size: 6}
space: {optimizer.lr: {loguniform: [1e-3, 3e-2]}}
search: {num_samples: 2, confirm: null, scheduler: {name: none}}
resources: {cpus_per_trial: 1, gpus_per_trial: 0}
tracking: {wandb: {mode: disabled}}
results: RESULTS
"""
MAIN = "import sys; from search.cli import main; sys.argv[0] = 'segsearch'; main()"
READ = """
import sys, json
from pathlib import Path
import numpy as np
from segcore.data.pixels.cache_file import open_cache
(path,) = Path(sys.argv[1]).glob("*.arrow")
with open_cache(path) as cache:
    np.savez(sys.argv[2], **{Path(cache.names[i]).name: cache.mask(i) for i in range(len(cache))})
"""


@dataclass(frozen=True)
class Outcome:
    """What one input came to.

    Attributes:
        verdict: `right`, `asks`, `warns`, `wrong in silence`, `traceback`, `hang`, or `exit N`.
        says: The line that says so.
        seconds: Wall time of both commands.
        fits: Whether it is what the case expects.
    """

    verdict: str
    says: str
    seconds: float
    fits: bool


def run_case(case: Case, checkout: Path, *, trains: bool = True) -> Outcome:
    """Makes the input in a folder of its own and runs a checkout's commands on it.

    Args:
        case: The input.
        checkout: Whose code.
        trains: Whether `run` follows `check` where that passed.
    """
    with tempfile.TemporaryDirectory(prefix="case-") as name:
        folder = Path(name)
        truth = case.make(folder / "data")
        config = _write_config(case, folder, truth)
        started = time.monotonic()
        outcome = _judged(case, folder, truth, checkout, ["check", str(config)])
        if trains and outcome.verdict in {"right", "warns"}:
            ran = _judged(case, folder, truth, checkout, ["run", str(config), "--name", "case"])
            outcome = outcome if ran.fits else ran
        return Outcome(outcome.verdict, outcome.says, time.monotonic() - started, outcome.fits)


def _write_config(case: Case, folder: Path, truth: Truth) -> Path:
    height, width = next(iter(truth.values())).shape
    text = BASE
    values = {"ROOT": folder / "data", "CACHE": folder / "cache", "RESULTS": folder / "results"}
    for word, value in {**values, "HEIGHT": height, "WIDTH": width}.items():
        text = text.replace(word, str(value))
    config = folder / "case.yaml"
    config.write_text(text, encoding="utf-8")
    return config


def _judged(case: Case, folder: Path, truth: Truth, checkout: Path, command: list[str]) -> Outcome:
    here = folder / "data" / case.here
    paths = [str(checkout), *([str(here)] if case.here else [])]
    if case.here:
        paths.reverse()
    code = f"import sys; sys.path.insert(0, {str(checkout)!r}); {MAIN}"
    argv = [sys.executable, "-P", "-c", code, *command]
    for setting in case.settings:
        argv += ["--set", setting]
    plain = {"COLUMNS": "400", "NO_COLOR": "1", "RAY_AUTH_MODE": "disabled"}
    environment = {**os.environ, **plain, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        done = subprocess.run(
            argv, cwd=here, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome("hang", f"no end after {TIMEOUT_S} s", TIMEOUT_S, fits=False)
    text = done.stdout + done.stderr
    line = _line(case.says, text)
    if "Traceback (most recent call last)" in text:
        return Outcome("traceback", text.strip().splitlines()[-1], 0.0, fits=False)
    if done.returncode == 2:
        return Outcome("asks", line, 0.0, fits=case.expected == "asks" and _says(case, text))
    if done.returncode != 0:
        return Outcome(f"exit {done.returncode}", line, 0.0, fits=False)
    lowest = _lowest_iou(folder, truth, checkout)
    warned = bool(case.says) and _says(case, text)
    if lowest < 0.97 and not warned:
        return Outcome("wrong in silence", f"IoU {lowest:.2f} of a reading", 0.0, fits=False)
    verdict = "warns" if warned else "right"
    fits = case.expected != "asks" and (verdict == "warns" or not case.says) and (warned or lowest >= 0.97)
    return Outcome(verdict, line if warned else f"IoU {lowest:.2f}", 0.0, fits=fits)


def _says(case: Case, text: str) -> bool:
    return re.search(case.says, text) is not None


def _line(says: str, text: str) -> str:
    """The line that has what is looked for; else the first that is an error; else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    chosen = [line for line in lines if says and re.search(says, line)] or [line for line in lines if "rror" in line]
    return (chosen or lines[-1:] or [""])[0]


def _lowest_iou(folder: Path, truth: Truth, checkout: Path) -> float:
    """The lowest IoU of a mask as it was decoded, at its own size, with the true one."""
    import numpy as np
    from PIL import Image

    found = folder / "found.npz"
    code = f"import sys; sys.path.insert(0, {str(checkout)!r})" + READ
    argv = [sys.executable, "-P", "-c", code, str(folder / "cache"), str(found)]
    subprocess.run(argv, check=True, timeout=TIMEOUT_S)
    lowest = 1.0
    with np.load(found) as masks:
        by_name = {name.casefold().split(".")[0]: masks[name] for name in masks.files}
    for name, true in truth.items():
        read = by_name[name.casefold()]
        size = (true.shape[1], true.shape[0])
        native = np.array(Image.fromarray(read).resize(size, Image.Resampling.NEAREST)) > 0
        union = (native | true).sum()
        lowest = min(lowest, float((native & true).sum() / union) if union else 1.0)
    return lowest


def earlier_column() -> dict[str, str]:
    """The column `before` of the page as it is, by case."""
    page = FOLDER / "cases.md"
    rows = [line.split(" | ") for line in page.read_text(encoding="utf-8").splitlines()] if page.exists() else []
    return {row[0].lstrip("| "): row[2] for row in rows if len(row) >= 5}


def main() -> None:
    """Runs the cases and writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="only every twelfth case; no page")
    parser.add_argument("--only", default="", help="only cases whose name has this; no page")
    parser.add_argument("--before", type=Path, help="another checkout, for the column `before`")
    args = parser.parse_args()
    cases = [case for case in (*MASKS, *FILES, *SETTINGS) if args.only in case.name]
    cases = cases[::12] if args.quick else cases
    with ThreadPoolExecutor(2) as pool:
        before = earlier_column()
        if args.before is not None:
            checkout = args.before.resolve()
            earlier = pool.map(lambda case: run_case(case, checkout, trains=case in SETTINGS), cases)
            before = {case.name: outcome.verdict for case, outcome in zip(cases, earlier, strict=True)}
        rows, outcomes = [], []
        for case, outcome in zip(cases, pool.map(lambda case: run_case(case, ROOT), cases), strict=True):
            outcomes.append(outcome)
            says = outcome.says.replace("|", "/")[:160]
            rows.append([case.name, case.expected, before.get(case.name, "?"), outcome.verdict, says])
            mark = "" if outcome.fits else "NOT AS IT SHOULD BE: "
            print(f"{mark}{case.name}: {outcome.verdict} ({says}) {outcome.seconds:.0f} s", flush=True)
    if not args.quick and not args.only:
        write_page(
            "cases",
            "Awkward inputs",
            __doc__ or "",
            table(["case", "right", "before", "now", "it says"], rows),
            "Pillow",
        )
    verdicts = [outcome.verdict for outcome in outcomes]
    answer = {
        "cases": len(cases), "as_expected": sum(outcome.fits for outcome in outcomes),
        "wrong_silently": verdicts.count("wrong in silence"), "tracebacks": verdicts.count("traceback"),
        "hangs": verdicts.count("hang"),
    }  # fmt: skip
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
