"""What torch.compile costs and gains: cold and warm start, step times, break-even, and what the rule makes of it.

    make bench NAME=compile

Each row trains with random images, in a process of its own: plain; compiled with an empty Inductor cache (cold);
compiled again with what that left on disk (warm). Warm-up is the time of the first compiled forward and backward pass.
Break-even is the number of steps from which compiling pays. Then the rule of `segcore.training.compiling` decides for
runs of several lengths, first from its estimates alone, then from its record; each decision is compared with the
better of both in hindsight: its regret is the time that it loses, as a share of the better one's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_page import device_name, table, write_page
from plain_config import plain_config

from segcore.data.loader import Batch
from segcore.training.compiling import (
    CompileCosts,
    Compiler,
    CompileRecord,
    decide,
    num_layers,
)
from segcore.training.device import choose_device
from segcore.training.step import TrainStep, build_step
from segcore.training.step_probe import random_batch

CPU_CASES = {
    "unet, 8 channels, 64 px": {"model.base_channels": 8, "data.image_size": 64, "train.batch_size": 16},
    "attention_unet, 16 channels, 128 px": {
        "model.arch": "attention_unet", "model.base_channels": 16, "data.image_size": 128, "train.batch_size": 8,
    },
    "unet, EfficientNet-Lite0, 96 px": {
        "model.encoder": "timm:tf_efficientnet_lite0", "data.image_size": 96, "train.batch_size": 8,
    },
    "attention_unet, ResNet50, 128 px": {
        "model.arch": "attention_unet", "model.encoder": "timm:resnet50", "data.image_size": 128,
        "train.batch_size": 4,
    },
}  # fmt: skip
CUDA_CASES = {
    "unet, 16 channels, 128 px": {"model.base_channels": 16, "data.image_size": 128, "train.batch_size": 16},
    "unet, EfficientNet-Lite0, 256 px": {
        "model.encoder": "timm:tf_efficientnet_lite0", "data.image_size": 256, "train.batch_size": 32,
    },
    "attention_unet, ResNet50, 256 px": {
        "model.arch": "attention_unet", "model.encoder": "timm:resnet50", "data.image_size": 256,
        "train.batch_size": 32,
    },
}  # fmt: skip
LENGTHS = (50, 500, 2_000, 10_000, 50_000)
STEPS = 6


def new_step(changes: dict[str, Any]) -> tuple[TrainStep, Batch]:
    """The step of a config, and a batch of random images."""
    config = plain_config(changes)
    device = choose_device()
    step = build_step(config, device, steps_per_epoch=1000)
    return step, random_batch(config)


def run_one(changes: dict[str, Any], mode: str, folder: Path) -> dict[str, float]:
    """Warm-up and step seconds in this process; the compiled form is the one that the rule would choose."""
    step, batch = new_step(changes)
    plain_s = timed_steps(step, batch)
    warm_up_s, compiled_s = 0.0, plain_s
    if mode == "compiled":
        warm_up_s = Compiler(step, mode="auto", steps_left=10**9, folder=folder).compile(batch, plain_s)
        compiled_s = timed_steps(step, batch)
    return {
        "warm_up_s": warm_up_s, "plain_s": plain_s, "compiled_s": compiled_s, "layers": float(num_layers(step.model)),
    }  # fmt: skip


def timed_steps(step: TrainStep, batch: Batch) -> float:
    """Median seconds of a step, after one that is not counted."""
    times = []
    for _ in range(STEPS + 1):
        started = time.perf_counter()
        step(batch).item()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def measure(changes: dict[str, Any], folder: Path) -> dict[str, float]:
    """Cold and warm, each in a process of its own."""
    found: dict[str, float] = {}
    for name in ("cold", "warm"):
        command = [sys.executable, "-P", __file__, "--one", json.dumps(changes), str(folder)]
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        one = json.loads(done.stdout.splitlines()[-1])
        found[f"{name}_s"] = one["warm_up_s"]
        found.update({key: one[key] for key in ("plain_s", "compiled_s", "layers")})
    return found


def judge(found: dict[str, float], device: torch.device) -> list[dict[str, Any]]:
    """The rule against hindsight, for each length, each state of its knowledge, cold and warm."""
    speedup = found["plain_s"] / found["compiled_s"]
    verdicts = []
    with tempfile.TemporaryDirectory() as empty:
        guess = CompileRecord(Path(empty)).costs("unknown", int(found["layers"]), device)
    known = CompileCosts(found["cold_s"], found["warm_s"], speedup, is_cached=True, is_measured=True)
    for knowledge, costs, warm_up_s in (("estimate", guess, found["cold_s"]), ("record", known, found["warm_s"])):
        for steps in LENGTHS:
            plain = steps * found["plain_s"]
            compiled = warm_up_s + steps * found["compiled_s"]
            chose = decide(costs, step_s=found["plain_s"], steps_left=steps).is_on
            taken, best = (compiled if chose else plain), min(plain, compiled)
            verdicts.append(
                {
                    "knowledge": knowledge, "steps": steps, "compiles": chose, "better": compiled < plain,
                    "regret": taken / best - 1.0,
                }
            )  # fmt: skip
    return verdicts


def main() -> None:
    """Measures, prints both tables and writes the page; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A smoke run: the smallest model, and no page.")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run_one(json.loads(options.one[0]), "compiled", Path(options.one[1]))))
        return
    device = choose_device()
    cases = CUDA_CASES if device.type == "cuda" else CPU_CASES
    if options.quick:
        cases = {"unet, 2 channels, 32 px": {"model.base_channels": 2, "model.depth": 1, "data.image_size": 32}}
    rows, verdicts, ratios = [], [], []
    for name, changes in cases.items():
        with tempfile.TemporaryDirectory(prefix="segsearch-bench-") as folder:
            found = measure(changes, Path(folder))
        gain_s = found["plain_s"] - found["compiled_s"]
        even = [f"{found[key] / gain_s:,.0f}" if gain_s > 0 else "never" for key in ("cold_s", "warm_s")]
        rows.append(
            [
                name, f"{found['layers']:.0f}", f"{found['cold_s']:.1f}", f"{found['warm_s']:.1f}",
                f"{1000 * found['plain_s']:.1f}", f"{1000 * found['compiled_s']:.1f}",
                f"{found['plain_s'] / found['compiled_s']:.2f}", *even,
            ]
        )  # fmt: skip
        ratios.append(found)
        verdicts += [{"model": name, **verdict} for verdict in judge(found, device)]
        print(rows[-1], flush=True)
    header = ["model", "layers", "cold s", "warm s", "plain ms", "compiled ms", "speed-up", "even cold", "even warm"]
    lines = table(header, rows)
    lines += ["", f"The rule, over runs of {', '.join(f'{n:,}' for n in LENGTHS)} steps:", ""]
    lines += table(
        ["knowledge", "decisions", "right", "mean regret", "worst regret"],
        [summary(verdicts, knowledge) for knowledge in ("estimate", "record")],
    )
    layers = [found["layers"] for found in ratios]
    fits = {key: np.polyfit(layers, [found[key] for found in ratios], 1) for key in ("cold_s", "warm_s")}
    speedup = statistics.median(found["plain_s"] / found["compiled_s"] for found in ratios)
    lines += [
        "",
        "What the rule's estimates are made of, by least squares: warm-up "
        + ", ".join(f"{key[:-2]} {fit[1]:.1f} s + {fit[0]:.3f} s a layer" for key, fit in fits.items())
        + f"; {speedup:.2f}x faster (median).",
    ]
    print("\n".join(lines))
    if not options.quick:
        about = (__doc__ or "").split("NAME=compile")[-1]
        print(f"wrote {write_page('compile', 'When torch.compile pays', about, lines)}")
    regret = {
        knowledge: statistics.mean(v["regret"] for v in verdicts if v["knowledge"] == knowledge)
        for knowledge in ("estimate", "record")
    }
    print(
        json.dumps(
            {
                "device": device_name(),
                "cold_s": [round(float(value), 4) for value in fits["cold_s"][::-1]],
                "warm_s": [round(float(value), 4) for value in fits["warm_s"][::-1]],
                "speedup": round(speedup, 4),
                "regret_estimate": round(regret["estimate"], 4),
                "regret_record": round(regret["record"], 4),
            }
        )
    )


def summary(verdicts: list[dict[str, Any]], knowledge: str) -> list[str]:
    """One row: how many decisions, how many right, mean and worst regret."""
    those = [v for v in verdicts if v["knowledge"] == knowledge]
    regrets = [v["regret"] for v in those]
    right = sum(v["compiles"] == v["better"] for v in those)
    return [
        knowledge, str(len(those)), str(right), f"{100 * statistics.mean(regrets):.1f}%", f"{100 * max(regrets):.1f}%",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
