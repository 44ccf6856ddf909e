"""How much memory a training step will take, computed without allocating it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from segcore.losses.mix import build_loss
from segcore.models.build import build_model_outline
from segcore.registries import OPTIMIZERS
from segcore.training.device import choose_precision

if TYPE_CHECKING:
    from segcore.config import TrainConfig

_TRACED_IMAGES = 2  # batch norm needs more than one value per channel


@dataclass(frozen=True)
class ModelMemory:
    """The memory of a model, independent of the batch size.

    Attributes:
        all_bytes: Bytes of parameters and buffers.
        trained_bytes: Bytes of the parameters that get a gradient.
        bytes_per_image: Bytes that forward pass and loss keep per image for the backward pass.
    """

    all_bytes: int
    trained_bytes: int
    bytes_per_image: int


def trace_model(config: TrainConfig, device: torch.device) -> ModelMemory:
    """Run forward pass and loss with tensors that have a shape but no data, and add up what is kept.

    Args:
        config: Its `model`, `loss`, `data.image_size`, `optimizer.encoder_lr_factor` and `train.precision` count.
        device: The device the model would train on, which decides the precision.
    """
    model = build_model_outline(config.model)
    if config.optimizer.encoder_lr_factor == 0 and model.has_timm_encoder:
        model.freeze_encoder()
    precision = choose_precision(config.train, device, model)
    loss_fn = build_loss(config.loss)
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True):
        state = {name: _like(value) for name, value in [*model.named_parameters(), *model.named_buffers()]}
        images = torch.zeros((_TRACED_IMAGES, 3, *config.data.image_hw), dtype=torch.uint8)
        images = images.contiguous(memory_format=torch.channels_last)
        targets = torch.zeros((_TRACED_IMAGES, 1, *config.data.image_hw), dtype=torch.uint8)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            with torch.autocast("cpu", dtype=precision, enabled=precision is not torch.float32):
                logits = torch.func.functional_call(model, state, (images,))
            loss_fn(logits.float(), targets)
        for value in state.values():
            kept.pop(value.untyped_storage()._cdata, None)
        activations = sum(storage.nbytes() for storage in kept.values())
    return ModelMemory(
        all_bytes=sum(_num_bytes(value) for value in [*model.parameters(), *model.buffers()]),
        trained_bytes=sum(_num_bytes(value) for value in model.parameters() if value.requires_grad),
        bytes_per_image=activations // _TRACED_IMAGES,
    )


def estimate_training_bytes(config: TrainConfig, model: ModelMemory) -> int:
    """Bytes that training with this config holds at the end of a forward pass, without kernels' working space.

    They are weights, gradients, optimizer state, the moving average, and the activations of the images that go through
    the model at once.
    """
    optimizer, loop = config.optimizer, config.train
    rule = OPTIMIZERS[optimizer.name]
    states = rule.build.num_states(**rule.arguments(optimizer))
    at_once = min(loop.batch_size, loop.micro_batch_size or loop.batch_size)
    average = model.all_bytes if loop.ema_decay > 0 else 0
    return model.all_bytes + model.trained_bytes * (1 + states) + average + model.bytes_per_image * at_once


def _like(value: Tensor) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype, requires_grad=value.requires_grad)


def _num_bytes(value: Tensor | nn.Parameter) -> int:
    return value.numel() * value.element_size()
