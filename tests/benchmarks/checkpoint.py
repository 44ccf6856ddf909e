"""What saving an epoch costs the trial that saves it: as Ray takes checkpoints, and written beside validation.

    make bench NAME=checkpoint [ARGS="--quick"]

An attention U-Net on a ResNet50 with AdamW goes through epochs of validation alone, every one of them the best so far,
on one core. *Before*: the state, with the weights of the best epoch beside those of the last, is written to a folder of
its own after validation, copied to the trial's folder as `ray.tune.report` does (`pyarrow.fs.copy_files`), and the
first one deleted. *After*: `segcore.checkpoint.writer`. *Late* is the same for an epoch that nobody expected to be the
best, so that everything is written after validation. Seconds on the critical path are those within the calls that save,
and those by which validation takes longer while a thread writes; medians of epochs that take turns.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs
import torch
from bench_page import device_name, table, write_page
from plain_config import plain_config
from safetensors.torch import save_file
from torch import Tensor

from segcore.checkpoint.files import folder_bytes
from segcore.checkpoint.state import BestModel, TrainingState
from segcore.checkpoint.writer import CheckpointWriter
from segcore.models.build import build_model
from segcore.training.device import choose_device
from segcore.training.groups import build_optimizer
from segcore.training.schedule import build_lr_scheduler

MODEL = {"model.arch": "attention_unet", "model.encoder": "timm:resnet50", "model.encoder_weights": "none"}
IMAGE_SIZE, NUM_OVERLAYS = 256, 6
EPOCHS, QUICK_EPOCHS = 12, 3
VALIDATION_S, QUICK_VALIDATION_S = 3.0, 1.5

WAYS = ("alone", "before", "after", "late")


class Trial:
    """A trained model and its optimizer, without training: all tensors are there, and no two of them are alike."""

    def __init__(self, device: torch.device) -> None:
        torch.manual_seed(0)
        config = plain_config(MODEL)
        model = build_model(config.model).to(device).to(memory_format=torch.channels_last)
        optimizer = build_optimizer(model, config.optimizer)
        schedule = build_lr_scheduler(optimizer, config.lr_scheduler, 100, 1)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        optimizer.zero_grad()
        self.state = TrainingState(model, optimizer, schedule, torch.amp.GradScaler(device.type, enabled=False), None)
        rng = np.random.default_rng(0)
        shape = (NUM_OVERLAYS, IMAGE_SIZE, IMAGE_SIZE)
        self.overlays = {
            "images": rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
            "targets": rng.integers(0, 2, shape, dtype=np.uint8),
            "probs": rng.random(shape).astype(np.float16),
        }
        self._images = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE, device=device).mul(255)

    @torch.inference_mode()
    def validate(self, num_batches: int) -> None:
        """Forward passes, and what `fit` does with the result of a best epoch."""
        self.state.model.eval()
        total: Tensor | float = 0.0
        for _ in range(num_batches):
            total = self.state.model(self._images).mean() + total
        float(total)
        metrics = {"val/iou": 0.5 + self.state.epoch / 1000, "val/threshold": 0.5}
        curve = {"threshold": [0.0, 1.0]}
        self.state.best = BestModel.copy_of(self.state.model, self.state.epoch, metrics, curve, self.overlays)


def save_as_before(state: TrainingState, place: Path) -> None:
    """Everything after validation, in a folder of its own, copied to its place and deleted."""
    assert state.best is not None
    best = state.best
    payload: dict[str, Any] = {
        "epoch": state.epoch,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "lr_schedule": state.lr_schedule.state_dict(),
    }
    with tempfile.TemporaryDirectory(prefix="segsearch-bench-") as name:
        folder = Path(name)
        torch.save(payload, folder / "state.pt")
        save_file(best.weights, folder / "best.safetensors")
        (folder / "curve.json").write_text(json.dumps(best.curve))
        np.savez_compressed(folder / "overlays.npz", **best.overlays)  # type: ignore[arg-type]
        (folder / "best.json").write_text(json.dumps({"epoch": best.epoch, "metrics": best.metrics}))
        place.mkdir(parents=True)
        pyarrow.fs.copy_files(
            str(folder), str(place), source_filesystem=pyarrow.fs.LocalFileSystem(),
            destination_filesystem=pyarrow.fs.LocalFileSystem(), chunk_size=64 * 2**20,
        )  # fmt: skip


def num_batches_for(trial: Trial, seconds: float) -> int:
    """Forward passes that take about so long."""
    trial.validate(2)
    started = time.perf_counter()
    trial.validate(2)
    return max(2, round(2 * seconds / (time.perf_counter() - started)))


def measure(num_epochs: int, validation_s: float, folder: Path) -> dict[str, float]:
    """Medians over epochs: seconds in the calls that save, seconds of validation, and megabytes, of each way."""
    trial = Trial(choose_device())
    state = trial.state
    num_batches = num_batches_for(trial, validation_s)
    found: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for name, value in values.items():
            found.setdefault(name, []).append(value)

    with CheckpointWriter(folder / "trial") as writer:
        for number in range(num_epochs + 1):
            for way in WAYS:
                state.epoch += 1
                place = folder / "trial" / f"checkpoint_{state.epoch:06d}"
                started = time.perf_counter()
                if way == "after":
                    state.best = None  # the first epoch of a trial, which will surely be saved
                    writer.begin(state)
                begun = time.perf_counter()
                trial.validate(num_batches)
                validated = time.perf_counter()
                if way == "before":
                    save_as_before(state, place)
                elif way != "alone":
                    writer.end(state, is_best=True)
                ended = time.perf_counter()
                if number:  # the first round warms up
                    note(
                        **{f"{way}_validation": validated - begun, f"{way}_calls": ended - validated + begun - started}
                    )
                if way == "before":
                    note(before_mb=folder_bytes([place]) / 1e6)
                    shutil.rmtree(place)
                elif way != "alone":
                    note(after_mb=folder_bytes([place]) / 1e6)
                    writer.reported()
                    writer._thread.submit(int).result()  # what is deleted meanwhile is not the next way's cost
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    """Measures, prints the table and writes the page; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A smoke run: fewer, shorter epochs, and no page.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    num_epochs = QUICK_EPOCHS if options.quick else EPOCHS
    validation_s = QUICK_VALIDATION_S if options.quick else VALIDATION_S
    with tempfile.TemporaryDirectory(prefix="segsearch-bench-") as folder:
        found = measure(num_epochs, validation_s, Path(folder))
    slower = max(found["after_validation"] - found["alone_validation"], 0.0)
    critical = {"before": found["before_calls"], "after": found["after_calls"] + slower, "late": found["late_calls"]}
    less = {way: critical["before"] / seconds for way, seconds in critical.items()}
    lines = table(
        ["written", "MB", "critical s", "times less"],
        [
            [way, f"{found['before_mb' if way == 'before' else 'after_mb']:.0f}", f"{seconds:.3f}", f"{less[way]:.1f}"]
            for way, seconds in critical.items()
        ],
    )
    lines += [
        "",
        f"Validation: {found['alone_validation']:.2f} s alone, {found['after_validation']:.2f} s beside the thread; "
        f"of the {critical['after']:.3f} s, {found['after_calls']:.3f} s are within calls.",
    ]
    print("\n".join(lines))
    if not options.quick:
        about = (__doc__ or "").split('[ARGS="--quick"]')[-1]
        print(f"wrote {write_page('checkpoint', 'What saving an epoch costs', about, lines, 'safetensors', 'pyarrow')}")
    print(
        json.dumps(
            {
                "device": device_name(),
                "critical_s_before": round(critical["before"], 4),
                "critical_s_after": round(critical["after"], 4),
                "critical_s_late": round(critical["late"], 4),
                "ratio": round(less["after"], 2),
                "mb_before": round(found["before_mb"], 1),
                "mb_after": round(found["after_mb"], 1),
            }
        )
    )


if __name__ == "__main__":
    main()
