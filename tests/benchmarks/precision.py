"""Seconds of a training step in float32 and in bf16 (on a GPU in fp16 too), for several models.

    make bench NAME=precision

Random images, one process, the precisions in turns, medians. It is what `train.precision: auto` goes by.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

from bench_page import device_name, table, write_page
from plain_config import plain_config

from segcore.data.loader import Batch
from segcore.training.device import begin_trial, choose_device, has_bf16
from segcore.training.step import TrainStep, build_step
from segcore.training.step_probe import random_batch

CASES: dict[str, dict[str, Any]] = {
    "unet, 8 channels, 48 px": {"model.base_channels": 8, "data.image_size": 48, "train.batch_size": 16},
    "attention_unet, 16 channels, 128 px": {
        "model.arch": "attention_unet", "model.base_channels": 16, "data.image_size": 128, "train.batch_size": 8,
    },
    "unet, EfficientNet-Lite0, 96 px": {
        "model.encoder": "timm:tf_efficientnet_lite0", "data.image_size": 96, "train.batch_size": 8,
    },
    "attention_unet, ResNet50, 256 px": {
        "model.arch": "attention_unet", "model.encoder": "timm:resnet50", "data.image_size": 256,
        "train.batch_size": 4,
    },
}  # fmt: skip


def timed(step: TrainStep, batch: Batch) -> float:
    """Seconds of one step, its loss read at the end."""
    started = time.perf_counter()
    step(batch).item()
    return time.perf_counter() - started


def measure(changes: dict[str, Any], precisions: list[str], num_steps: int) -> dict[str, float]:
    """Median seconds of a step at each precision."""
    device = choose_device()
    steps, batch = {}, None
    for precision in precisions:
        config = plain_config({**changes, "train.precision": precision})
        steps[precision] = build_step(config, device, steps_per_epoch=1000)
        batch = random_batch(config)
    assert batch is not None
    times: dict[str, list[float]] = {precision: [] for precision in precisions}
    for number in range(num_steps + 2):
        for precision, step in steps.items():
            seconds = timed(step, batch)
            if number >= 2:
                times[precision].append(seconds)
    return {precision: statistics.median(values) for precision, values in times.items()}


def main() -> None:
    """Measures, prints a table and writes the page; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A smoke run: the smallest model, and no page.")
    options = parser.parse_args()
    device = choose_device()
    precisions = ["fp32", "bf16", *(["fp16"] if device.type == "cuda" else [])]
    threads = [1] if device.type == "cuda" or options.quick else [1, 2]
    rows, ratios = [], []
    for count in threads:
        begin_trial(count, 1.0)
        for name, changes in list(CASES.items())[: 1 if options.quick else None]:
            found = measure(changes, precisions, 2 if options.quick else 8)
            ratios.append(found["fp32"] / found["bf16"])
            rows.append([name, str(count), *(f"{1000 * found[p]:.1f}" for p in precisions), f"{ratios[-1]:.2f}"])
            print(rows[-1], flush=True)
    lines = table(["model", "threads", *(f"{p} ms" for p in precisions), "fp32 / bf16"], rows)
    lines += ["", f"This device computes bf16 itself: {'yes' if has_bf16(device) else 'no'}."]
    print("\n".join(lines))
    if not options.quick:
        print(f"wrote {write_page('precision', 'Precision', (__doc__ or '').split('=precision')[-1], lines)}")
    print(json.dumps({"bf16_speedup": round(statistics.median(ratios), 3), "device": device_name()}))


if __name__ == "__main__":
    main()
