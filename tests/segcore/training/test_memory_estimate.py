import pytest
import torch
from torch import Tensor

from segcore.config import TrainConfig
from segcore.losses.mix import build_loss
from segcore.models.build import build_model
from segcore.training.device import choose_device
from segcore.training.memory_estimate import ModelMemory, estimate_training_bytes, trace_model
from segcore.training.step_probe import measure_memory

CPU = torch.device("cpu")


def config_of(**changes: object) -> TrainConfig:
    tree: dict[str, dict[str, object]] = {"data": {"image_size": 32}, "model": {"base_channels": 4, "depth": 2}}
    for key, value in changes.items():
        section, _, leaf = key.partition("__")
        tree.setdefault(section, {})[leaf] = value
    return TrainConfig.model_validate(tree)


def really_kept(config: TrainConfig, count: int) -> int:
    """Bytes that autograd keeps of a real forward pass and loss, apart from the weights."""
    model = build_model(config.model, load_pretrained=False)
    if config.optimizer.encoder_lr_factor == 0:
        model.freeze_encoder()
    own = {value.untyped_storage().data_ptr() for value in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    images = torch.zeros((count, 3, *config.data.image_hw), dtype=torch.uint8)
    targets = torch.zeros((count, 1, *config.data.image_hw), dtype=torch.uint8)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        build_loss(config.loss)(model(images.contiguous(memory_format=torch.channels_last)).float(), targets)
    return sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in own)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model__arch": "residual_attention_unet"},
        {"model__encoder": "timm:resnet18", "data__image_size": 64},
        {"model__encoder": "timm:resnet18", "data__image_size": 64, "optimizer__encoder_lr_factor": 0.0},
        {"loss__lovasz": 1.0},
    ],
)
def test_the_trace_keeps_what_a_real_forward_pass_keeps(changes: dict[str, object]) -> None:
    config = config_of(**changes, train__precision="fp32")
    real = really_kept(config, 4)
    assert trace_model(config, CPU).bytes_per_image * 4 == pytest.approx(real, rel=0.02)
    assert real > 0


def test_what_is_not_trained_costs_neither_gradients_nor_activations() -> None:
    trained = trace_model(config_of(model__encoder="timm:resnet18", data__image_size=64), CPU)
    frozen = trace_model(
        config_of(model__encoder="timm:resnet18", data__image_size=64, optimizer__encoder_lr_factor=0.0), CPU
    )
    assert frozen.all_bytes == trained.all_bytes
    assert frozen.trained_bytes < trained.trained_bytes / 2
    assert frozen.bytes_per_image < trained.bytes_per_image


def test_half_precision_takes_less() -> None:
    full, half = (trace_model(config_of(model__base_channels=16, train__precision=p), CPU) for p in ("fp32", "bf16"))
    assert half.bytes_per_image < 0.8 * full.bytes_per_image


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"optimizer__name": "adamw"}, 110 + 100 * 3 + 7 * 16),
        ({"optimizer__name": "nadam"}, 110 + 100 * 3 + 7 * 16),
        ({"optimizer__name": "sgd"}, 110 + 100 * 2 + 7 * 16),
        ({"optimizer__name": "sgd", "optimizer__momentum": 0.0}, 110 + 100 + 7 * 16),
        ({"train__ema_decay": 0.9}, 110 * 2 + 100 * 3 + 7 * 16),
        ({"train__batch_size": 5}, 110 + 100 * 3 + 7 * 5),
        ({"train__batch_size": 32, "train__micro_batch_size": 4}, 110 + 100 * 3 + 7 * 4),
        ({"train__batch_size": 2, "train__micro_batch_size": 4}, 110 + 100 * 3 + 7 * 2),
    ],
)
def test_the_parts_add_up(changes: dict[str, object], expected: int) -> None:
    assert estimate_training_bytes(config_of(**changes), ModelMemory(110, 100, 7)) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_measured_peak_is_near_the_estimate_and_never_far_below_it() -> None:
    config = config_of(model__base_channels=32, model__depth=4, data__image_size=256, train__precision="fp32")
    estimate = estimate_training_bytes(config, trace_model(config, choose_device()))
    seen = measure_memory(config, choose_device())
    assert 0.8 * estimate < seen.peak_bytes < 3 * estimate
    assert seen.peak_bytes < seen.free_bytes <= seen.total_bytes
