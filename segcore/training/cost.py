"""What a model costs at inference: its number of parameters, and its latency for one image."""

import statistics
import time

import torch
from torch import nn

PARAMETERS = "cost/parameters"
"""Report key: number of parameters, trained or frozen, without buffers."""
LATENCY = "cost/latency_ms"
"""Report key: median milliseconds of a forward pass of one image."""

WARM_UPS = 3
RUNS = 10


def num_parameters(model: nn.Module) -> int:
    """All parameters, trainable or not."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.inference_mode()
def measure_latency_ms(model: nn.Module, image_hw: tuple[int, int]) -> float:
    """Median time of a forward pass of one image, in milliseconds, as a sealed model predicts.

    It runs in eval mode, in float32, on the model's device and with this process's threads. The model is left as it
    was: each module's mode is restored, batch norm keeps its statistics, no random numbers are drawn. Other load on the
    machine slows it, so only times measured under equal load are comparable.
    """
    device = next(model.parameters()).device
    image = torch.zeros((1, 3, *image_hw), dtype=torch.uint8, device=device)
    image = image.contiguous(memory_format=torch.channels_last)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        times = [_seconds_of(model, image) for _ in range(WARM_UPS + RUNS)]
    finally:
        for module in training:
            module.training = True
    return 1000.0 * statistics.median(times[WARM_UPS:])


def _seconds_of(model: nn.Module, image: torch.Tensor) -> float:
    _wait_for(image.device)
    started = time.perf_counter()
    model(image)
    _wait_for(image.device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
