"""How fast searches find good settings for real images: random, random + ASHA, stock Ray + Optuna, ours.

    make bench NAME=real_search

The trainings are real and recorded: 112 configs of 27 epochs each on 271 images of horses at 48 px, every combination
of learning rate, architecture, loss, schedule and augmentation; `make bench NAME=real_search_table` makes the table, in
an hour of CPU time. A search looks its epochs up there, with four workers and the recorded CPU time of each epoch on
the clock, until it has an epoch with a validation IoU that only the best 5% of all configs ever reach.
"""

import argparse
import json
import logging
import os
import platform
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow.parquet as pq
from search_simulation import METHODS, simulate
from search_tasks import TableTask

from segcore.sealed.card import installed_versions

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "results" / "benchmarks" / "real_search.parquet"
SETTINGS = ("optimizer.lr", "model.arch", "loss.dice", "lr_scheduler.name", "augment.policy")
BUDGET = 3024
"""Epochs of the whole table; a search that needs more is counted with these."""
KEYS = {"ours": "ours", "Ray OptunaSearch + ASHA": "stock", "random, to the end": "random"}


def main() -> None:
    """Runs all methods with many seeds, prints and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A smoke run: few seeds, no page.")
    parser.add_argument("--seeds", type=int, default=40, help="Searches a method.")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    task = TableTask(pq.read_table(TABLE).to_pylist(), SETTINGS)
    lines = [
        "| method | epochs to the level | 95% interval | minutes on the clock | 95% interval | never |",
        "| --- " * 6 + "|",
    ]
    record = {}
    for name, make in METHODS.items():
        traces = [
            simulate(task, make(task, seed), budget=BUDGET, until=task.good, epoch_time=task.epoch_time)
            for seed in range(3 if options.quick else options.seeds)
        ]
        epochs = np.array([len(trace.best) for trace in traces], dtype=float)
        minutes = np.array([trace.clock[-1] / 60 for trace in traces])
        never = sum(trace.best[-1] < task.good for trace in traces)
        cells = []
        for values in (epochs, minutes):
            draws = [np.median(np.random.default_rng(i).choice(values, len(values))) for i in range(2000)]
            low, high = np.quantile(draws, [0.025, 0.975])
            cells += [f"{np.median(values):.1f}", f"{low:.1f} - {high:.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} | {never} |")
        print(lines[-1], flush=True)
        if name in KEYS:
            record[f"epochs_to_95_{KEYS[name]}"] = float(np.median(epochs))
    versions = ", ".join(f"{name} {version}" for name, version in installed_versions().items())
    page = [
        "# Search on real images: epochs to a good model",
        "",
        f"Made by `make bench NAME=real_search`; {time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPU cores, "
        f"Python {platform.python_version()}, {versions}.",
        "",
        (__doc__ or "").split("\n\n", 2)[2].strip(),
        "",
        f"The level is an IoU of {task.good:.4f}; the best of the table is {task.best:.4f}, its median config ends at "
        f"{task.typical:.4f}. Medians of {len(traces)} searches a method, with 95% bootstrap intervals; a search is "
        f"given up after {BUDGET} epochs.",
        "",
        *lines,
    ]
    print("\n".join(page))
    if not options.quick:
        path = ROOT / "results" / "benchmarks" / "real_search.md"
        path.write_text("\n".join(page) + "\n", encoding="utf-8")
        print(f"wrote {path}")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
