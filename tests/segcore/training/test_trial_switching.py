"""A reused process trains each trial as a fresh one would: A, then something very different, then A again."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import tune
from safetensors.torch import load_file

from segcore.config import TrainConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.trainable import train_trial

A: dict[str, Any] = {
    "data": {"root": "synthetic", "image_size": 32, "synthetic": {"num_images": 24}},
    "model": {"base_channels": 4, "depth": 2, "dropout": 0.3},
    "augment": {"policy": "medium"},
    "optimizer": {"lr": 3e-3},
    "train": {"epochs": 3, "batch_size": 4, "ema_decay": 0.9},
}
B: dict[str, Any] = {
    **copy.deepcopy(A),
    "model": {"arch": "residual_attention_unet", "base_channels": 12, "depth": 3},
    "augment": {"policy": "heavy"},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "train": {"epochs": 1, "batch_size": 8, "seed": 7, "precision": "bf16", "num_workers": 1},
}


def careless_trial(config: dict[str, Any]) -> None:
    """Trains as always, tells its process, and leaves it in disorder when it is the one in between."""
    spec = config["spec"]
    folder = Path(spec["folder"])
    (folder / "process.json").write_text(json.dumps({"pid": os.getpid()}))
    train_trial(spec)
    if spec["number"] == 1:
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(2)
        torch.manual_seed(99)
        torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_trial_is_bitwise_the_same_before_and_after_another_one(tmp_path: Path) -> None:
    data = TrainConfig.model_validate(A).data.model_copy(update={"cache_dir": str(tmp_path)})
    cache = build_cache(discover(data), data)
    specs = []
    for number, tree in enumerate((A, B, A)):
        folder = tmp_path / f"trial_{number}"
        folder.mkdir()
        specs.append(
            {
                "number": number, "train": TrainConfig.model_validate(tree).model_dump(mode="json"),
                "cache": str(cache), "metric": "val/iou", "num_cpus": 2 if number == 1 else 1, "gpu_fraction": 0.0,
                "checkpoints": [], "folder": str(folder), "save_at": [3],
            }
        )  # fmt: skip
    results = tune.Tuner(
        tune.with_resources(careless_trial, {"cpu": 1}),
        param_space={"spec": tune.grid_search(specs)},
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "ray"), verbose=0),
    ).fit()
    assert [result.error for result in results] == [None] * 3
    processes = {json.loads((tmp_path / f"trial_{n}" / "process.json").read_text())["pid"] for n in range(3)}
    assert len(processes) == 1
    first, last = (final_state(tmp_path / f"trial_{number}") for number in (0, 2))
    assert first.keys() == last.keys()
    for name, value in first.items():
        assert torch.equal(value, last[name]), name


def final_state(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the last checkpoint: weights, averages, the optimizer's moments, the best epoch's weights."""
    (checkpoint,) = folder.glob("checkpoint_*")
    tensors = {name: value for file in checkpoint.glob("*.safetensors") for name, value in with_prefix(file).items()}
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    return tensors | dict(flattened("state", state))


def with_prefix(file: Path) -> dict[str, torch.Tensor]:
    return {f"{file.name}/{name}": value for name, value in load_file(file).items()}


def flattened(name: str, value: Any) -> list[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        return [(name, value)]
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in flattened(f"{name}/{key}", inner)]
    if isinstance(value, list | tuple):
        return [pair for key, inner in enumerate(value) for pair in flattened(f"{name}/{key}", inner)]
    return []
