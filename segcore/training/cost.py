"""What a model costs whoever uses it: its number of parameters, and how long it takes for one image."""

import statistics
import time

import torch
from torch import nn

PARAMETERS = "cost/parameters"
"""Key of a report: all numbers that the model learns or holds frozen, without buffers."""
LATENCY = "cost/latency_ms"
"""Key of a report: median milliseconds of one image's way through the model."""

WARM_UPS = 3
RUNS = 10


def num_parameters(model: nn.Module) -> int:
    """All parameters, trainable or not."""
    return sum(parameter.numel() for parameter in model.parameters())


@torch.inference_mode()
def measure_latency_ms(model: nn.Module, image_hw: tuple[int, int]) -> float:
    """Median time of a forward pass of one image, in milliseconds, the way a sealed model predicts.

    That is in eval mode, in float32, on the model's device and with the threads that this process has. The model is
    left as it was: each module's mode is restored, batch norm keeps its statistics, nothing random is drawn. What else
    runs on the machine slows this too, so only times that were taken side by side with as much compare.
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
