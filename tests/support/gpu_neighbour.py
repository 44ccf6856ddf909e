"""One training run on a share of a real GPU: prints `ready`, waits for a line, trains, and prints its losses as JSON.

    python -P tests/support/gpu_neighbour.py WIDTH SHARE STEPS

A run that runs out of its share's memory prints `null`. Losses are bitwise comparable: only deterministic kernels run.
"""

import json
import sys

import torch
from plain_config import plain_config

from segcore.training.device import begin_trial, choose_device, is_out_of_memory
from segcore.training.step import build_step
from segcore.training.step_probe import random_batch


def main(width: int, share: float, steps: int) -> None:
    """The run."""
    begin_trial(1, share)
    torch.use_deterministic_algorithms(True, warn_only=True)
    config = plain_config({"model.base_channels": width, "data.image_size": 128, "train.compile": False})
    torch.manual_seed(0)
    batch = random_batch(config)
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        step = build_step(config, choose_device(), steps_per_epoch=1000, load_pretrained=False)
        torch.backends.cudnn.benchmark = False  # it would choose by what is fastest now
        losses = [step(batch).item() for _ in range(steps)]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        losses = None
    print(json.dumps(losses), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
