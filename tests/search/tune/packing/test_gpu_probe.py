from typing import Any

import pytest
import torch

from search.tune.packing import gpu_probe
from search.tune.packing.gpu_probe import _probe, estimate
from segcore.config import TrainConfig
from segcore.training.memory_estimate import estimate_training_bytes, trace_model


def config_of(width: int, **train: Any) -> TrainConfig:
    loop = {"precision": "fp32", **train}
    tree = {"data": {"image_size": 32}, "model": {"base_channels": width, "depth": 2}, "train": loop}
    return TrainConfig.model_validate(tree)


def test_the_largest_is_found_by_the_estimate_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segcore.training.device.choose_device", lambda: torch.device("cpu"))
    configs = [config_of(4), config_of(8, batch_size=64, micro_batch_size=2), config_of(8, batch_size=32), config_of(6)]
    found = _probe([config.model_dump_json() for config in configs])
    assert found.largest == 2
    assert found.estimate_bytes == estimate_training_bytes(configs[2], trace_model(configs[2], torch.device("cpu")))
    assert (found.peak_bytes, found.free_bytes, found.fits) == (None, None, True)
    assert (found.num_models, found.num_estimated) == (3, 3)


def test_a_model_is_gone_through_once_and_no_more_than_there_is_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    traced = []

    def trace(config: TrainConfig, device: torch.device) -> object:
        traced.append((config.model.base_channels, config.train.precision))
        return trace_model(config, device)

    monkeypatch.setattr("segcore.training.memory_estimate.trace_model", trace)
    monkeypatch.setattr(gpu_probe, "MOST_MODELS", 3)
    configs = [config_of(width, batch_size=size) for width in (2, 3) for size in (4, 8)]
    configs += [config_of(2, precision="bf16", batch_size=4), config_of(5)]
    found, num_models = estimate(configs, torch.device("cpu"))
    assert traced == [(2, "fp32"), (3, "fp32"), (2, "bf16")]
    assert (sorted(found), num_models) == ([0, 1, 2, 3, 4], 4)
    assert found[1] > found[0] > found[4]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_peak_is_measured() -> None:
    configs = [config_of(8), config_of(32, batch_size=32)]
    found = _probe([config.model_dump_json() for config in configs])
    assert found.largest == 1
    assert found.fits
    assert found.free_bytes is not None
    assert found.peak_bytes is not None
    assert 0 < found.peak_bytes < found.free_bytes
