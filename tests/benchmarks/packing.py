"""How much trials that share a device get done together: images a second in total, by trials side by side.

    make bench NAME=packing

Each trial is a process of its own with its share of the memory and of the cores, and trains on random images; all of a
row start at the same moment. On a GPU: 1, 2, 4 and 8 trials, each row without and with NVIDIA MPS (a daemon of the
benchmark's own, where it can be started); the first row without MPS is what trials get done one after the other. On a
CPU: trials and threads in every way that two cores are shared out; then Ray with a GPU that it only counts, on which as
many trials of each share have to run side by side as fit, and no more.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from bench_page import device_name, table, write_page
from plain_config import plain_config

from segcore.training.device import begin_trial, choose_device, is_out_of_memory
from segcore.training.step_probe import RateProbe, random_batch

SMALL = {"model.base_channels": 16, "data.image_size": 128, "train.batch_size": 16, "train.compile": False}
LARGE = {
    "model.arch": "attention_unet", "model.encoder": "timm:resnet50", "data.image_size": 256, "train.batch_size": 16,
    "train.compile": False,
}  # fmt: skip
TINY = {**SMALL, "model.base_channels": 4, "model.depth": 2, "data.image_size": 32}
TRIALS_A_GPU = (1, 2, 4, 8)
TRIALS_AND_THREADS = ((1, 2), (2, 1), (2, 2), (4, 1))
SHARES = (1.0, 0.5, 0.25)
MEASURE_S, QUICK_S = 10.0, 1.0
READY_TIMEOUT_S = 240


def run_worker(changes: dict[str, Any], seconds: float, threads: int, share: float) -> None:
    """One trial: says when it is ready, waits for the word, and prints its images a second; None without memory."""
    begin_trial(threads, share)
    try:
        config = plain_config(changes)
        probe = RateProbe(config, itertools.repeat(random_batch(config)), choose_device())
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(probe.images_per_s(seconds)), flush=True)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        print("null", flush=True)


def total_rate(
    changes: dict[str, Any], count: int, threads: int, seconds: float, environment: dict[str, str]
) -> float | None:
    """Images a second of so many trials together; None if one ran out of its share's memory.

    Raises:
        RuntimeError: One failed otherwise.
    """
    share = 1.0 / count
    command = [sys.executable, "-P", __file__, "--worker", json.dumps(changes), str(seconds), str(threads), str(share)]
    with tempfile.TemporaryFile("w+") as errors:
        workers = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, **environment, "OMP_NUM_THREADS": str(threads)},
            )
            for _ in range(count)
        ]  # fmt: skip
        try:
            first = [str(worker.stdout.readline()).strip() for worker in workers if worker.stdout]
            for worker in workers:
                if worker.poll() is None and worker.stdin:
                    worker.stdin.write("go\n")
                    worker.stdin.flush()
            if "null" in first:
                return None
            last = [worker.communicate(timeout=READY_TIMEOUT_S)[0].strip() for worker in workers]
            if any(worker.returncode for worker in workers) or set(first) != {"ready"}:
                errors.seek(0)
                raise RuntimeError(f"a trial failed: {errors.read()[-2000:]}")
            rates = [json.loads(text) for text in last]
            return None if None in rates else float(sum(rates))
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


@contextmanager
def own_mps() -> Iterator[dict[str, str] | None]:
    """An MPS daemon with directories of its own, and the environment that leads to it; None where there can be none."""
    program = shutil.which("nvidia-cuda-mps-control")
    if program is None:
        print("without MPS only: there is no nvidia-cuda-mps-control", flush=True)
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:  # a short path: sockets' names have at most 107 letters
        environment = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for path in environment.values():
            Path(path).mkdir()
        whole = {**os.environ, **environment}
        try:
            started = subprocess.run([program, "-d"], env=whole, capture_output=True, text=True, timeout=60)
            problem = started.stderr.strip() or started.stdout.strip() if started.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        if problem:
            print(f"without MPS only: {problem}", flush=True)
            yield None
            return
        try:
            yield environment
        finally:
            subprocess.run([program], env=whole, input="quit\n", capture_output=True, text=True, timeout=60)


def measure_gpu(seconds: float, quick: bool) -> dict[str, dict[str, dict[int, float | None]]]:
    """`{model: {"plain" or "mps": {trials: images a second}}}`."""
    cases = {"tiny": TINY} if quick else {"small: U-Net, 16 channels, 128 px": SMALL, "large: ResNet50, 256 px": LARGE}
    found: dict[str, dict[str, dict[int, float | None]]] = {name: {"plain": {}} for name in cases}
    cores = os.cpu_count() or 1

    def fill(mode: str, environment: dict[str, str]) -> None:
        for name, changes in cases.items():
            row = found[name].setdefault(mode, {})
            for count in TRIALS_A_GPU[: 2 if quick else None]:
                row[count] = total_rate(changes, count, max(1, cores // count), seconds, environment)
                print(f"{name}, {mode}, {count}: {shown(row[count])}", flush=True)

    fill("plain", {"CUDA_MPS_PIPE_DIRECTORY": "/nonexistent"})
    with own_mps() as environment:
        if environment is not None:
            try:
                fill("mps", environment)
            except RuntimeError as error:
                print(f"without MPS only: {str(error).splitlines()[-1]}", flush=True)
                for modes in found.values():
                    modes.pop("mps", None)
    return found


def measure_cpu(seconds: float, quick: bool) -> dict[tuple[int, int], float]:
    """`{(trials, threads of each): images a second}`."""
    found = {}
    for count, threads in TRIALS_AND_THREADS:
        rate = total_rate(TINY if quick else SMALL, count, threads, seconds, {})
        if rate is None:
            raise RuntimeError("a trial ran out of memory on the CPU")
        found[count, threads] = rate
        print(f"{count} trials of {threads} threads: {rate:.1f} images/s", flush=True)
    return found


def side_by_side(share: float) -> int:
    """How many tasks of a share of a GPU Ray was seen to run at once, of twice as many as fit."""
    import ray

    @ray.remote(num_cpus=0, num_gpus=share, max_calls=0)
    def hold() -> tuple[float, float]:
        began = time.time()
        time.sleep(1.0)
        return began, time.time()

    spans = ray.get([hold.remote() for _ in range(2 * int(1 / share))])
    return max(sum(began <= moment < ended for began, ended in spans) for moment, _ in spans)


def measure_shares() -> dict[float, int]:
    """`{share of a GPU: tasks side by side}` on a GPU that Ray only counts."""
    import ray

    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        found = {share: side_by_side(share) for share in SHARES}
    finally:
        ray.shutdown()
    if found != {share: int(1 / share) for share in SHARES}:
        raise RuntimeError(f"Ray did not keep to the shares: {found}")
    return found


def shown(rate: float | None) -> str:
    """A cell."""
    return "out of memory" if rate is None else f"{rate:,.1f}"


def gpu_report(found: dict[str, dict[str, dict[int, float | None]]]) -> tuple[list[str], dict[str, Any]]:
    """Table and figures."""
    rows = []
    for name, modes in found.items():
        serial = modes["plain"][1]
        for mode, row in modes.items():
            gains = [f" ({rate / serial:.2f}x)" if rate and serial else "" for rate in row.values()]
            cells = [shown(rate) + gain for rate, gain in zip(row.values(), gains, strict=True)]
            rows.append([name, "with MPS" if mode == "mps" else "without", *cells])
    counts = list(next(iter(found.values()))["plain"])
    lines = table(["images/s in total", "MPS", *(f"{count} a GPU" for count in counts)], rows)
    first = next(iter(found.values()))
    best = first.get("mps", first["plain"])
    serial = first["plain"][1]
    top = max((rate for row in first.values() for rate in row.values() if rate), default=0.0)
    return lines, {
        "total_images_s": {str(count): rate and round(rate, 2) for count, rate in best.items()},
        "gain": round(top / serial, 3) if serial else None,
        "all": {name: {mode: {str(n): r and round(r, 2) for n, r in row.items()} for mode, row in modes.items()}
                for name, modes in found.items()},
    }  # fmt: skip


def cpu_report(found: dict[tuple[int, int], float], shares: dict[float, int]) -> tuple[list[str], dict[str, Any]]:
    """Table and figures."""
    first = found[TRIALS_AND_THREADS[0]]
    lines = table(
        ["trials", "threads of each", "images/s in total", ""],
        [[str(n), str(t), f"{rate:.1f}", f"{rate / first:.2f}x"] for (n, t), rate in found.items()],
    )
    if shares:
        text = ", ".join(f"{count} of {share:g}" for share, count in shares.items())
        lines += ["", f"On a GPU that Ray only counts, there ran side by side: {text}."]
    by_trials = {str(count): round(rate, 2) for (count, threads), rate in found.items() if (count, threads) != (2, 2)}
    return lines, {
        "total_images_s": by_trials,
        "all": {f"{count}x{threads}": round(rate, 2) for (count, threads), rate in found.items()},
        "shares": {f"{share:g}": count for share, count in shares.items()},
    }


def main() -> None:
    """Measures, prints a table and writes the page; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A smoke run: a tiny model, short, and no page.")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        changes, seconds, threads, share = options.worker
        run_worker(json.loads(changes), float(seconds), int(threads), float(share))
        return
    seconds = QUICK_S if options.quick else MEASURE_S
    if torch.cuda.is_available():
        lines, figures = gpu_report(measure_gpu(seconds, options.quick))
    else:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        lines, figures = cpu_report(measure_cpu(seconds, options.quick), measure_shares() if find_spec("ray") else {})
    print("\n".join(lines))
    if not options.quick:
        about = (__doc__ or "").split("NAME=packing")[-1]
        print(f"wrote {write_page('packing', 'What trials that share a device get done', about, lines)}")
    print(json.dumps({"device": device_name(), **figures}))


if __name__ == "__main__":
    main()
