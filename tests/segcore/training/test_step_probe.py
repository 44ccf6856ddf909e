import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import ROOT

from segcore.config import TrainConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.training.step import build_step
from segcore.training.step_probe import RateProbe, endless_batches, random_batch

SUPPORT = ROOT / "tests" / "support"
CONFIG = TrainConfig.model_validate(
    {
        "data": {"root": "synthetic", "image_size": [32, 48], "synthetic": {"num_images": 32}},
        "model": {"base_channels": 4, "depth": 2},
        "train": {"batch_size": 8, "ema_decay": 0.9, "micro_batch_size": 4},
    }
)
CPU = torch.device("cpu")


def test_a_random_batch_has_the_configs_size() -> None:
    batch = random_batch(CONFIG)
    assert batch.images.shape == (8, 3, 32, 48)
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.targets.shape == (8, 1, 32, 48)
    assert set(batch.targets.unique().tolist()) == {0, 1}
    assert len(batch) == 8


def test_the_step_is_the_configs_and_trains() -> None:
    step = build_step(CONFIG, CPU, steps_per_epoch=10, load_pretrained=False)
    assert step.ema is not None
    assert (step.micro_batch_size, step.grad_clip, step.augment) == (4, CONFIG.train.grad_clip, None)
    torch.manual_seed(0)
    batch = random_batch(CONFIG)
    losses = [step(batch).item() for _ in range(20)]
    assert losses[-1] < losses[0]


def test_the_rate_counts_every_image_of_the_time_that_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = RateProbe(CONFIG, itertools.repeat(random_batch(CONFIG)), CPU)
    clock = itertools.count(100.0, 0.5)  # begin; before each further step; the end
    monkeypatch.setattr("segcore.training.step_probe.time.perf_counter", lambda: next(clock))
    assert probe.images_per_s(1.0) == 8 * 2 / 1.5
    assert probe.images_per_s(0.0) == 8 / 1.0, "one step is taken at least"


def test_batches_come_epoch_after_epoch(tmp_path: Path) -> None:
    data = CONFIG.data.model_copy(update={"cache_dir": str(tmp_path)})
    cache_path = build_cache(discover(data), data)
    with endless_batches(CONFIG, cache_path, 1, CPU) as batches:
        seen = [next(batches) for _ in range(12)]
    assert {len(batch) for batch in seen} == {8}
    assert len({tuple(batch.indices.tolist()) for batch in seen}) == 12, "each epoch has an order of its own"


class Neighbour:
    """A run of `gpu_neighbour.py`."""

    def __init__(self, width: int, share: float, steps: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(SUPPORT / "gpu_neighbour.py"), str(width), str(share), str(steps)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), str(ROOT)]),
                 "CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def losses(self) -> list[float] | None:
        """Of the whole run; None if it ran out of memory."""
        found: list[float] | None = json.loads(self.process.communicate("go\n", timeout=300)[0])
        assert self.process.returncode == 0
        return found

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()


@pytest.mark.slow
def test_two_runs_of_the_neighbour_are_bitwise_the_same() -> None:
    first, second = Neighbour(4, 0.5, 3).losses(), Neighbour(4, 0.5, 3).losses()
    assert first is not None
    assert len(first) == 3
    assert first == second


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_greedy_run_is_ended_by_its_cap_and_its_neighbours_losses_are_bitwise_the_same() -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    share = 1.5e9 / total  # of every size of GPU about as much: what 16 channels need, and 256 do not have
    alone = Neighbour(16, share, 200).losses()
    neighbour, greedy = Neighbour(16, share, 200), Neighbour(256, share, 200)
    neighbour.go()
    greedy.go()
    assert greedy.losses() is None
    assert neighbour.losses() == alone
    assert alone is not None
