"""What the search itself costs: starting a trial, and keeping up with reports. Beside it, Ray Tune with its defaults.

    make bench NAME=overhead [ARGS="--quick"]

40 trials that do nothing and 40 that sleep for ten seconds, on two slots; each trial imports what training imports
(torch, and this project's training loop) and reports once. *Ours* is the search of `segsearch run`, with a trainable
of its own. *Ray defaults* is what its documentation shows: `Tuner` with `OptunaSearch`, `ASHAScheduler`, a new worker
process a trial, default loggers. Each runs in a fresh process with a Ray of its own; starting Ray is not counted. The
third measure feeds reports of 20 trials through the searcher, the journal and the progress lines of one driver.
"""

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # not this folder: its search.py would hide the package of that name
PAGE = ROOT / "results" / "benchmarks" / "overhead.md"
SLOTS = 2
NUM_TRIALS, SLEEP_S, NUM_REPORTS = 40, 10.0, 20_000
QUICK_TRIALS, QUICK_SLEEP_S, QUICK_REPORTS = 6, 2.0, 4_000
TIMEOUT_S = 1800


def train(spec: dict[str, Any]) -> None:
    """A trial that imports what training needs, sleeps and reports."""
    from ray import tune

    import segcore.training  # noqa: F401

    time.sleep(spec["sleep_s"])
    tune.report(
        {
            "number": spec.get("number", 0), "epoch": 1, "best_epoch": 1, "finished": True,
            "val/iou": 0.5, "val/threshold": 0.5, "train/loss": 1.0,
        }
    )  # fmt: skip


def our_config(folder: Path, num_samples: int) -> Any:
    """A search whose trials are one epoch long."""
    from search.config.load import load_config

    tree = {
        "name": "overhead",
        "data": {"root": "synthetic"},
        "train": {"epochs": 1},
        "space": {"optimizer.lr": {"loguniform": [1e-5, 1e-1]}, "loss.dice": {"uniform": [0.0, 1.0]}},
        "search": {"num_samples": num_samples},
        "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0},
        "results": str(folder / "results"),
    }
    (folder / "overhead.yaml").write_text(json.dumps(tree), encoding="utf-8")
    return load_config(folder / "overhead.yaml")


def run_ours(folder: Path, num_trials: int, sleep_s: float) -> float:
    """Wall seconds of our search."""
    from search.runs.folder import create_run
    from search.space.search import Search
    from search.tune.search import run_search

    config = our_config(folder, num_trials)
    paths = create_run(config, "search")

    def trainable(spec: dict[str, Any]) -> None:
        train({**spec, "sleep_s": sleep_s})

    started = time.perf_counter()
    if not run_search(Search.of(config), paths, folder, trainable=trainable):
        raise RuntimeError("the search did not come to its end")
    return time.perf_counter() - started


def run_ray(folder: Path, num_trials: int, sleep_s: float) -> float:
    """Wall seconds of Ray Tune with its defaults."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    space = {"lr": tune.loguniform(1e-5, 1e-1), "dice": tune.uniform(0.0, 1.0), "sleep_s": sleep_s}
    tuner = tune.Tuner(
        train,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric="val/iou", mode="max", search_alg=OptunaSearch(), scheduler=ASHAScheduler(), num_samples=num_trials
        ),
        run_config=tune.RunConfig(storage_path=str(folder)),
    )
    started = time.perf_counter()
    grid = tuner.fit()
    wall_s = time.perf_counter() - started
    if grid.num_terminated != num_trials:
        raise RuntimeError(f"{grid.num_errors} of {num_trials} trials failed")
    return wall_s


def measure_search(who: str, num_trials: int, sleep_s: float) -> float:
    """Runs one search in a process of its own; the environment of each is what its user would have."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if who == "ours":
        environment |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_CHDIR_TO_TRIAL_DIR": "0"}
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        answer = Path(folder) / "wall_s"
        done = subprocess.run(
            [sys.executable, __file__, "--one", who, folder, str(num_trials), str(sleep_s), str(answer)],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{who}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
        return float(answer.read_text(encoding="utf-8"))


def run_one(who: str, folder: Path, num_trials: int, sleep_s: float, answer: Path) -> None:
    """The child process of `measure_search`."""
    import ray

    ray.init(num_cpus=SLOTS, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    wall_s = (run_ours if who == "ours" else run_ray)(folder, num_trials, sleep_s)
    answer.write_text(str(wall_s), encoding="utf-8")
    ray.shutdown()


def reports_per_s(num_reports: int) -> float:
    """Reports a second through searcher, journal and progress lines, as Tune's controller calls them."""
    from rich.console import Console

    from search.runs.folder import create_run
    from search.runs.journal import EventLog
    from search.sampling.proposer import Proposer
    from search.space.search import Search
    from search.study.storage import open_study
    from search.tune.journal_callback import JournalCallback
    from search.tune.progress import ProgressCallback
    from search.tune.searcher import StudySearcher
    from search.tune.standing import save_tables
    from segcore.config import TrainConfig
    from segcore.spec import TrialSpec

    num_trials = 20
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        config = our_config(Path(folder), num_trials)
        paths = create_run(config, "search")
        log = logging.getLogger("segsearch")
        handler = logging.FileHandler(paths.log)
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        search, objective = Search.of(config), config.search.objective
        study = open_study(paths.storage_url, paths.name, mode="max", sampler=None)
        events = EventLog(paths.events)

        def spec_of(number: int, train: TrainConfig) -> TrialSpec:
            return TrialSpec(number, train, paths.root / "cache", objective.metric, paths.root)

        searcher = StudySearcher(
            study, search, spec_of,
            Proposer(search.space, "random", seed=0, num_samples=num_trials, max_epochs=100, objective=objective),
            events,
        )  # fmt: skip
        callbacks: list[Any] = [
            JournalCallback(events, searcher),
            ProgressCallback(Console(stderr=True, quiet=True), objective, num_samples=num_trials, num_epochs=1000),
        ]
        trials: list[Any] = []
        for index in range(num_trials):
            spec = searcher.suggest(f"ray-{index}")
            trials.append(SimpleNamespace(trial_id=f"ray-{index}", config=spec, status="RUNNING", last_result={}))
        report: dict[str, Any] = {
            "val/iou": 0.5, "val/dice": 0.6, "val/loss": 0.4, "val/iou_pooled": 0.5, "val/dice_pooled": 0.6,
            "val/threshold": 0.5, "val/iou_auto": 0.5, "val/threshold_auto": 0.5, "train/loss": 0.4, "lr": 1e-3,
            "time/train_s": 1.0, "time/val_s": 0.1, "time/images_per_s": 100.0, "best_epoch": 1, "finished": False,
        }  # fmt: skip
        started = time.perf_counter()
        for index in range(num_reports):
            trial = trials[index % num_trials]
            result = {**report, "number": trial.config["number"], "epoch": 1 + index // num_trials}
            searcher.on_trial_result(trial.trial_id, result)
            for callback in callbacks:
                callback.on_trial_result(index, trials, trial, result)
            for callback in callbacks:
                callback.on_step_end(index, trials)
        searcher.flush()
        seconds = time.perf_counter() - started
        events.close()
        log.removeHandler(handler)
        handler.close()
        stored = sum(len(trial.intermediate_values) for trial in study.get_trials(deepcopy=False))
        tables = save_tables(study, paths, objective)
        if not stored == len(tables.epochs) == num_reports:
            raise RuntimeError(f"{num_reports} reports, {stored} in the study, {len(tables.epochs)} in the journal")
    return num_reports / seconds


def measure(num_trials: int, sleep_s: float, num_reports: int) -> dict[str, float]:
    """All measurements, one after the other."""
    rate = reports_per_s(num_reports)
    wall = {}
    for who in ("ours", "ray"):
        for kind, seconds in (("noop", 0.0), ("sleep", sleep_s)):
            wall[f"{who}_{kind}_s"] = measure_search(who, num_trials, seconds)
            print(f"{who:>4} {kind:>5}: {wall[f'{who}_{kind}_s']:.1f} s", flush=True)
    ideal = -(-num_trials // SLOTS) * sleep_s
    return {
        **wall,
        "ideal_sleep_s": ideal,
        "start_cost_ours_s": wall["ours_noop_s"] * SLOTS / num_trials,
        "start_cost_ray_s": wall["ray_noop_s"] * SLOTS / num_trials,
        "start_cost_ratio": wall["ray_noop_s"] / wall["ours_noop_s"],
        "waste_10s": 1 - ideal / wall["ours_sleep_s"],
        "waste_10s_ray": 1 - ideal / wall["ray_sleep_s"],
        "reports_per_s": rate,
    }


def table(found: dict[str, float], num_trials: int, sleep_s: float) -> list[str]:
    """The result as a Markdown table."""
    return [
        "| | ours | Ray defaults | |",
        "| --- | --- | --- | --- |",
        f"| {num_trials} trials that do nothing, s | {found['ours_noop_s']:.1f} | {found['ray_noop_s']:.1f} | "
        f"{found['start_cost_ratio']:.1f} times |",
        f"| slot-seconds a trial | {found['start_cost_ours_s']:.2f} | {found['start_cost_ray_s']:.2f} | |",
        f"| {num_trials} trials of {sleep_s:g} s (ideal {found['ideal_sleep_s']:g}) | {found['ours_sleep_s']:.1f} | "
        f"{found['ray_sleep_s']:.1f} | |",
        f"| of that wasted | {found['waste_10s']:.1%} | {found['waste_10s_ray']:.1%} | goal: at most 5% |",
        f"| reports a second | {found['reports_per_s']:.0f} | | goal: at least 1000 |",
    ]


def page(found: dict[str, float], lines: list[str]) -> str:
    """The result with what it was measured on."""
    from segcore.sealed.card import installed_versions

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version}" for name, version in installed_versions().items())
    about = (__doc__ or "").split("\n\n")
    return "\n".join(
        [
            "# What the search itself costs", "", "Made by `make bench NAME=overhead`.", "", about[2].strip(), "",
            f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPU cores, {memory:.0f} GiB, Python "
            f"{platform.python_version()}, {versions}.", "", *lines, "",
        ]
    )  # fmt: skip


def main() -> None:
    """Measures, prints a table and writes the page; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A smoke run: few and short trials, and no page.")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        who, folder, num_trials, sleep_s, answer = options.one
        run_one(who, Path(folder), int(num_trials), float(sleep_s), Path(answer))
        return
    quick = (QUICK_TRIALS, QUICK_SLEEP_S, QUICK_REPORTS)
    num_trials, sleep_s, num_reports = quick if options.quick else (NUM_TRIALS, SLEEP_S, NUM_REPORTS)
    found = measure(num_trials, sleep_s, num_reports)
    lines = table(found, num_trials, sleep_s)
    print("\n".join(lines))
    if not options.quick:
        PAGE.write_text(page(found, lines), encoding="utf-8")
        print(f"wrote {PAGE}")
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
