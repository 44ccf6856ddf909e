"""Training speed: the loop that people write first against ours, with the same model, loss, policy and files.

    make bench NAME=step

Theirs decodes JPEG and PNG, resizes, augments (`light`) and normalises sample by sample in `__getitem__`, trains in
float32 and contiguous memory, and reads `.item()` of the loss and an IoU in each step (`tests/support/homework.py`).
Ours reads the memory-mapped cache, augments in the loader or on the GPU, trains by `segcore.training.step` at the
precision that `auto` takes, plain and compiled. The model is an attention U-Net on a ResNet50 at 256 px. They take
turns in one process; medians over the blocks. On a GPU the batch is 32 and theirs has two loader processes; on a CPU it
is 4, to fit into memory, and all assemble batches themselves.

The loaders alone are in the second table: images per CPU-second from files of 500x375 px (`decode+P`: the usual way
with policy P) and from the cache (`P`), and what a policy costs compared with decoding.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from bench_page import device_name, table, write_page
from homework import HomeworkLoop
from loader_bench import measure_loader, usual_augmentation
from photos import index_of, make_photos
from plain_config import plain_config

from segcore.data.loader import Batch, Loader
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import SampleCache, open_cache
from segcore.models.build import build_model
from segcore.training.compiling import Compiler
from segcore.training.device import begin_trial, choose_device, freed_memory_kept
from segcore.training.loop import build_train_loader
from segcore.training.step import build_step

MODEL = {"model.arch": "attention_unet", "model.encoder": "timm:resnet50", "augment.policy": "light"}


class OurLoop:
    """Our step over our loader, epoch after epoch."""

    def __init__(self, config: Any, cache: SampleCache, num_cpus: int, compile_mode: bool) -> None:
        device = choose_device()
        self.loader: Loader = build_train_loader(config, cache, num_cpus, device)
        step = build_step(config, device, steps_per_epoch=10_000)
        self.take_step = Compiler(step, mode=compile_mode, steps_left=10**9, folder=cache.path.parent / "inductor")
        self.batches = self._endless()
        self.wait_s = 0.0

    def step(self) -> int:
        """One step; returns how many images it took. The loss stays where it is."""
        started = time.perf_counter()
        batch = next(self.batches)
        self.wait_s += time.perf_counter() - started
        self.take_step(batch)
        return len(batch)

    def _endless(self) -> Iterator[Batch]:
        epoch = 0
        while True:
            self.loader.set_epoch(epoch)
            yield from self.loader
            epoch += 1


def images_per_s(step: Callable[[], int], num_steps: int) -> tuple[float, float]:
    """`(images a second, seconds)` of a block of steps."""
    wait_for_device()
    started = time.perf_counter()
    num_images = sum(step() for _ in range(num_steps))
    wait_for_device()
    seconds = time.perf_counter() - started
    return num_images / seconds, seconds


def wait_for_device() -> None:
    """Ends what was given to the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both loops in turns, then the loaders."""
    pairs = make_photos(folder / "photos", options.images)
    config = plain_config(
        {
            **(MODEL if not options.quick else {"model.base_channels": 4, "augment.policy": "light"}),
            "data.image_size": options.side, "data.cache_dir": str(folder / "cache"),
            "train.batch_size": options.batch,
        }
    )  # fmt: skip
    cores = len(os.sched_getaffinity(0))
    begin_trial(cores, 1.0)
    device = choose_device()
    is_cuda = device.type == "cuda"
    theirs_transform, theirs_by = usual_augmentation("light", (options.side, options.side))
    torch.manual_seed(0)
    theirs = HomeworkLoop(
        build_model(config.model), pairs, side=options.side, batch_size=options.batch,
        num_workers=min(2, cores) if is_cuda else 0, device=device, transform=theirs_transform,
    )  # fmt: skip
    found: dict[str, Any] = {"theirs_by": theirs_by}
    with open_cache(build_cache(index_of(pairs, folder), config.data)) as cache, freed_memory_kept(device):
        loops: dict[str, Any] = {"theirs": theirs, "ours": OurLoop(config, cache, cores, False)}
        loops["ours, compiled"] = OurLoop(config, cache, cores, True)
        rates: dict[str, list[float]] = {name: [] for name in loops}
        seconds = dict.fromkeys(loops, 0.0)
        for name, loop in loops.items():
            images_per_s(loop.step, options.warm_up)
            loop.wait_s = 0.0
            print(f"{name}: warmed up", flush=True)
        for _ in range(options.blocks):
            for name, loop in loops.items():
                rate, took = images_per_s(loop.step, options.steps)
                rates[name].append(rate)
                seconds[name] += took
                print(f"{name}: {rate:.2f} images/s", flush=True)
        found["rates"] = {name: statistics.median(values) for name, values in rates.items()}
        found["waits"] = {name: loops[name].wait_s / seconds[name] for name in loops if name != "theirs"}
    side = options.side
    found["loaders"] = measure_loader(pairs[:64], hw=(side, side), seconds=0.2 if options.quick else 1.0)
    return found


def main() -> None:
    """Measures, prints both tables and writes the page; the last line is one JSON object."""
    is_cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A smoke run: a small model, and no page.")
    parser.add_argument("--batch", type=int, default=32 if is_cuda else 4)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--images", type=int, default=2048 if is_cuda else 64)
    parser.add_argument("--steps", type=int, default=40 if is_cuda else 2, help="Steps of a block.")
    parser.add_argument("--blocks", type=int, default=5 if is_cuda else 4)
    parser.add_argument("--warm-up", type=int, default=20 if is_cuda else 1)
    options = parser.parse_args()
    if options.quick:
        options.side, options.images, options.steps, options.blocks = 64, 16, 1, 2
    with tempfile.TemporaryDirectory(prefix="segsearch-bench-") as folder:
        found = measure(options, Path(folder))
    rates, loaders = found["rates"], found["loaders"]
    rows = [
        [
            name,
            f"{rate:.2f}",
            f"{rate / rates['theirs']:.2f}",
            f"{100 * found['waits'][name]:.1f}%" if name in found["waits"] else "",
        ]
        for name, rate in rates.items()
    ]
    lines = table(["loop", "images/s", "ratio", "waiting for batches"], rows)
    lines += ["", f"Theirs augments by {found['theirs_by']}; batch {options.batch}, {options.side} px.", ""]
    lines += table(
        ["files, one core", "images per CPU-second", "decoding, in units of what the policy adds", "loader ratio"],
        [
            [
                name, f"{rate:,.0f}",
                f"{loaders.ratios[f'decode/{name}']:.1f}" if f"decode/{name}" in loaders.ratios else "",
                f"{loaders.ratios[f'loader/{name}']:.1f}" if f"loader/{name}" in loaders.ratios else "",
            ]
            for name, rate in loaders.images_s.items()
        ],
    )  # fmt: skip
    print("\n".join(lines))
    if not options.quick:
        about = (__doc__ or "").split("NAME=step")[-1]
        print(f"wrote {write_page('step', 'Training speed', about, lines, 'timm', 'albumentations')}")
    best = max((name for name in rates if name != "theirs"), key=lambda name: rates[name])
    print(
        json.dumps(
            {
                "images_s_ratio": round(rates[best] / rates["theirs"], 3),
                "loader_ratio": round(loaders.ratios["loader/light"], 3),
                "light_ratio": round(loaders.ratios["decode/light"], 3),
                "loader_wait": round(found["waits"][best], 4),
                "device": device_name(),
            }
        )
    )


if __name__ == "__main__":
    main()
