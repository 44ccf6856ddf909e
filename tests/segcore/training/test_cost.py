"""What a model costs: counted by hand, and measured without leaving a trace in the training."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from segcore.config import TrainConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import SampleCache, open_cache
from segcore.models.build import build_model
from segcore.training.cost import (
    RUNS,
    WARM_UPS,
    measure_latency_ms,
    num_parameters,
)
from segcore.training.loop import fit

CONFIG = TrainConfig.model_validate(
    {
        "data": {"root": "synthetic", "image_size": [32, 48], "synthetic": {"num_images": 16}},
        "model": {"base_channels": 4, "depth": 2, "dropout": 0.3},
        "augment": {"policy": "light"},
        "train": {"epochs": 3, "batch_size": 4, "ema_decay": 0.9},
    }
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleCache]:
    data = CONFIG.data.model_copy(update={"cache_dir": str(tmp_path_factory.mktemp("cache"))})
    with open_cache(build_cache(discover(data), data)) as opened:
        yield opened


def test_frozen_parameters_count_and_buffers_do_not() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model[0].requires_grad_(False)
    assert num_parameters(model) == (3 * 4 * 9 + 4) + (4 + 4)


class Probe(nn.Module):
    """Notes what it is shown, and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[torch.Size, torch.dtype, bool, bool]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append((images.shape, images.dtype, self.training, torch.is_grad_enabled()))
        return images


def test_one_image_of_the_configs_size_goes_through_in_eval_mode() -> None:
    probe = Probe()
    assert measure_latency_ms(probe, (32, 48)) > 0
    assert probe.seen == [(torch.Size([1, 3, 32, 48]), torch.uint8, False, False)] * (WARM_UPS + RUNS)


def test_each_module_keeps_its_own_mode_and_an_error_does_not_change_that() -> None:
    model = build_model(CONFIG.model)
    model.train()
    frozen = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    frozen.eval()
    modes = [module.training for module in model.modules()]
    assert measure_latency_ms(model, (32, 48)) > 0
    assert [module.training for module in model.modules()] == modes

    def run_out_of_memory(*_: object) -> None:
        raise RuntimeError("out of memory")

    model.register_forward_pre_hook(run_out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        measure_latency_ms(model, (32, 48))
    assert [module.training for module in model.modules()] == modes


@pytest.mark.slow
def test_a_wider_model_costs_more() -> None:
    narrow, wide = (build_model(CONFIG.model.model_copy(update={"base_channels": c})).eval() for c in (4, 64))
    assert num_parameters(narrow) < num_parameters(wide)
    assert measure_latency_ms(narrow, (96, 96)) < measure_latency_ms(wide, (96, 96))


@pytest.mark.slow
@pytest.mark.parametrize("measured_in", [(1,), (1, 2, 3)])
def test_measuring_changes_no_bit_of_the_training(cache: SampleCache, measured_in: tuple[int, ...]) -> None:
    def weights_after(epochs: tuple[int, ...]) -> list[torch.Tensor]:
        for result in fit(CONFIG, cache, device=torch.device("cpu")):
            if result.epoch in epochs:
                before = torch.random.get_rng_state()
                measure_latency_ms(result.state.model, CONFIG.data.image_hw)
                assert torch.equal(torch.random.get_rng_state(), before)
        state = result.state
        assert state.ema is not None
        assert state.best is not None
        parts = (state.model.state_dict(), state.ema.state_dict(), state.best.weights)
        return [tensor for part in parts for tensor in part.values()]

    plain, measured = weights_after(()), weights_after(measured_in)
    assert len(plain) == len(measured) > 0
    assert all(torch.equal(a, b) for a, b in zip(plain, measured, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_clock_waits_for_the_work_to_be_done() -> None:
    device = torch.device("cuda")
    model = build_model(CONFIG.model.model_copy(update={"base_channels": 64})).to(device).eval()
    image = torch.zeros((1, 3, 512, 512), dtype=torch.uint8, device=device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    measured = measure_latency_ms(model, (512, 512))
    with torch.inference_mode():
        start.record()
        for _ in range(20):
            model(image)
        end.record()
        torch.cuda.synchronize()
    assert measured > 0.5 * start.elapsed_time(end) / 20
