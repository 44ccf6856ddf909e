"""How fast searches find good settings, on learning-curve tasks: random, random + ASHA, stock Ray + Optuna, ours.

    make bench NAME=search
    make bench NAME=search ARGS=--real      (the same as NAME=real_search)

All get the same tasks and seeds, four workers, 900 epochs in all, at most 27 a trial, rungs at 1, 3 and 9. Regret is
how far the best value so far is from the best that anybody found on the task, in units of the distance between that
and the median of random settings. The speed-up is over random trials run to the end: their 900 epochs, divided by the
epochs until a method was as good as they were at last. `ours` is `search.sampler: auto` with `asha`; below it are our
other samplers, and `auto:stop`, whose trials are stopped at rungs instead of waiting there. Intervals are 95% bootstrap
intervals over tasks.
"""

import argparse
import json
import logging
import os
import platform
import runpy
import sys
import time
import warnings
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from search_simulation import METHODS, Ours, simulate
from search_tasks import Task, hartmann_tasks, prior_tasks

from segcore.sealed.card import installed_versions

ROOT = Path(__file__).resolve().parents[2]
BUDGET = 900
FAMILIES = {"prior": 27, "mfh6": 9}
TITLES = {
    "prior": "Curves of the ifBO prior, 2 to 10 parameters",
    "mfh6": "Hartmann function of 6 parameters, whose early epochs rank much like the last",
}
Array = NDArray[np.float64]


def main() -> None:
    """Runs all methods on all tasks, prints and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A smoke run: few tasks, few epochs, no page.")
    parser.add_argument("--seeds", type=int, default=2, help="Searches a task.")
    parser.add_argument("--also", nargs="*", default=["auto:stop", "rung_tpe", "tpe"], help="Others of ours.")
    parser.add_argument("--real", action="store_true", help="On recorded real trainings: NAME=real_search.")
    options = parser.parse_args()
    if options.real:
        sys.argv = [sys.argv[0], *(["--quick"] if options.quick else [])]
        runpy.run_path(str(Path(__file__).with_name("real_search.py")), run_name="__main__")
        return
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    methods = dict(METHODS)
    for name in options.also:
        methods[name] = partial(also, name)
    budget = 60 if options.quick else BUDGET
    makers = {"prior": prior_tasks, "mfh6": hartmann_tasks}
    started = time.monotonic()
    lines, record = [], {}
    for family, count in FAMILIES.items():
        tasks = makers[family](2 if options.quick else count)
        traces: dict[str, list[Array]] = {}
        for name, make in methods.items():
            begun = time.monotonic()
            traces[name] = [
                simulate(task, make(task, 1000 * seed + index), budget=budget).best
                for seed in range(options.seeds)
                for index, task in enumerate(tasks)
            ]
            print(f"{family}: {name}, {time.monotonic() - begun:.0f} s", flush=True)
        tops = [max(task.best, *(runs[i][-1] for runs in traces.values() for i in range(k, len(runs), len(tasks))))
                for k, task in enumerate(tasks)]  # fmt: skip
        regrets = {
            name: np.array(
                [(tops[i % len(tasks)] - run) / (tops[i % len(tasks)] - tasks[i % len(tasks)].typical)
                 for i, run in enumerate(runs)]
            )
            for name, runs in traces.items()
        }  # fmt: skip
        rows, ratio, speedup = table(traces, regrets, budget)
        lines += ["", f"## {TITLES[family]} ({len(tasks)} tasks)", "", *rows]
        record |= {f"regret_ratio_{family}": ratio, f"speedup_random_{family}": speedup}
    page = [
        "# Search: regret after a budget of epochs",
        "",
        f"Made by `make bench NAME=search` in {(time.monotonic() - started) / 60:.0f} minutes; "
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPU cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version}" for name, version in installed_versions().items()) + ".",
        "",
        __doc__.split("\n\n", 2)[2].strip(),
        *lines,
    ]  # fmt: skip
    print("\n".join(page))
    if not options.quick:
        path = ROOT / "results" / "benchmarks" / "search.md"
        path.write_text("\n".join(page) + "\n", encoding="utf-8")
        print(f"wrote {path}")
    print(json.dumps(record))


def also(name: str, task: Task, seed: int) -> Ours:
    """One of our samplers, `SAMPLER` or `SAMPLER:stop` with trials that stop at rungs instead of waiting there."""
    sampler, _, how = name.partition(":")
    return Ours(task, seed, sampler=sampler, promote=how != "stop")


def table(traces: dict[str, list[Array]], regrets: dict[str, Array], budget: int) -> tuple[list[str], float, float]:
    """Rows of the family's table, stock's regret over ours, and our median speed-up over random to the end."""
    rows = [
        "| method | regret after 100 | 300 | 900 epochs | 95% interval | stock / this | "
        "speed-up over random | 95% interval |",
        "| --- " * 8 + "|",
    ]
    reference, stock = traces["random, to the end"], regrets["Ray OptunaSearch + ASHA"][:, -1]
    ratio = speedup = float("nan")
    for name, regret in regrets.items():
        final = regret[:, -1]
        low, high = interval(final, np.mean)
        speed = np.array([speed_up(run, to_beat[-1]) for run, to_beat in zip(traces[name], reference, strict=True)])
        slow, fast = interval(speed, np.median)
        own_ratio = float(stock.mean() / final.mean()) if final.mean() else float("inf")
        at = [float(regret[:, min(epochs, budget) - 1].mean()) for epochs in (100, 300, 900)]
        rows.append(
            f"| {name} | {at[0]:.3f} | {at[1]:.3f} | {at[2]:.4f} | {low:.4f} - {high:.4f} | {own_ratio:.2f} | "
            f"{np.median(speed):.1f} | {slow:.1f} - {fast:.1f} |"
        )
        if name == "ours":
            ratio, speedup = round(own_ratio, 3), round(float(np.median(speed)), 2)
    return rows, ratio, speedup


def speed_up(run: Array, to_beat: float) -> float:
    """The budget over the epochs until the run was as good; below 1, the share of the way, when it never was."""
    reached = np.nonzero(run >= to_beat)[0]
    return len(run) / (reached[0] + 1) if len(reached) else 0.5


def interval(values: Array, statistic: "np.ufunc | object") -> tuple[float, float]:
    """95% bootstrap interval over tasks."""
    rng = np.random.default_rng(0)
    draws = [statistic(rng.choice(values, len(values))) for _ in range(2000)]  # type: ignore[operator]
    return float(np.quantile(draws, 0.025)), float(np.quantile(draws, 0.975))


if __name__ == "__main__":
    main()
