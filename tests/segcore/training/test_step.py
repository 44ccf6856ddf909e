"""One optimizer step: gradients of a batch in parts, precision, and what it never waits for."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segcore.config import (
    LossConfig,
    LRSchedulerConfig,
    ModelConfig,
    OptimizerConfig,
)
from segcore.data.loader import Batch
from segcore.losses.mix import build_loss
from segcore.models.build import build_model
from segcore.registries import LOSSES
from segcore.training.groups import build_optimizer
from segcore.training.schedule import build_lr_scheduler
from segcore.training.step import TrainStep, build_ema

CPU = torch.device("cpu")


def new_batch(num_images: int = 6, side: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (num_images, side, side, 3), dtype=torch.uint8, generator=generator)
    targets = torch.rand((num_images, 1, side, side), generator=generator).round().byte()
    targets[0] = 0  # an empty mask among them
    return Batch(images.permute(0, 3, 1, 2), targets, torch.arange(num_images))


def new_step(loss: LossConfig | None = None, device: torch.device = CPU, **options: Any) -> TrainStep:
    torch.manual_seed(0)
    model = build_model(ModelConfig(base_channels=4, depth=2)).to(device)
    optimizer = build_optimizer(model, OptimizerConfig(name="sgd", lr=0.1, momentum=0.0, weight_decay=0.0))
    schedule = build_lr_scheduler(optimizer, LRSchedulerConfig(name="constant"), epochs=1, steps_per_epoch=10)
    precision = options.pop("precision", torch.float32)
    scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)
    ema = build_ema(model, options.pop("ema_decay", 0.0))
    return TrainStep(
        model,
        build_loss(loss or LossConfig()).to(device),
        optimizer,
        schedule,
        scaler,
        ema,
        precision,
        device,
        **options,
    )


def weights_of(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def gradients_after(step: TrainStep, batch: Batch) -> tuple[Tensor, float]:
    """All gradients as one vector, with batch norm's statistics fixed so that parts and whole see the same model."""
    step.model.eval()
    loss = step(batch)
    return torch.cat([p.grad.flatten() for p in step.model.parameters() if p.grad is not None]), loss.item()


@pytest.mark.parametrize("name", LOSSES.names)
@pytest.mark.parametrize("size", [1, 2, 4, 6, 100])
def test_parts_of_a_batch_have_the_whole_batchs_loss_and_gradient(name: str, size: int) -> None:
    loss = LossConfig.model_validate({"bce": 0.0, "dice": 0.0, name: 1.0})
    whole, whole_loss = gradients_after(new_step(loss), new_batch())
    parts, parts_loss = gradients_after(new_step(loss, micro_batch_size=size), new_batch())
    assert parts_loss == pytest.approx(whole_loss, rel=1e-5)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_clipping_concerns_the_whole_batchs_gradient() -> None:
    step = new_step(micro_batch_size=2, grad_clip=1e-3)
    gradient, _ = gradients_after(step, new_batch())
    assert gradient.norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_a_step_changes_weights_schedule_and_average() -> None:
    step = new_step(ema_decay=0.5)
    before = weights_of(step.model)
    loss = step(new_batch())
    assert loss.shape == ()
    assert not loss.requires_grad
    assert step.lr_schedule.state_dict()["num_steps"] == 1
    after = weights_of(step.model)
    assert not torch.equal(before, after)
    assert step.ema is not None
    assert torch.equal(weights_of(step.ema.module), after)  # the first one is taken whole
    assert int(step.ema.n_averaged) == 1


def test_the_average_is_the_ramp_of_its_formula_for_weights_statistics_and_counters() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    ema = build_ema(model, decay=0.3)
    assert ema is not None
    expected = None
    for n, value in enumerate([1.0, 2.0, 5.0, -3.0]):
        with torch.no_grad():
            model[0].weight.fill_(value)
            model[1].running_mean.fill_(value)
            model[1].num_batches_tracked.fill_(n)
        ema.update_parameters(model)
        decay = min(0.3, (1 + n) / (10 + n))
        expected = value if expected is None else expected + (1 - decay) * (value - expected)
        assert ema.module[0].weight.item() == pytest.approx(expected)
        assert ema.module[1].running_mean.item() == pytest.approx(expected)
        assert ema.module[1].num_batches_tracked.item() == n


def test_bf16_trains_with_float32_losses_and_weights() -> None:
    step = new_step(precision=torch.bfloat16)
    loss = step(new_batch())
    assert loss.dtype == torch.float32
    assert {p.dtype for p in step.model.parameters()} == {torch.float32}
    assert torch.isfinite(loss)


def test_what_the_loader_left_is_done_on_the_device_part_by_part() -> None:
    seen = []

    def augment(images: Tensor, targets: Tensor, plan: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(plan.flatten().tolist())
        return images, targets

    batch = new_batch(5)
    batch.plan = torch.arange(5.0).unsqueeze(1)
    new_step(augment=augment, micro_batch_size=2)(batch)
    assert seen == [[0.0, 1.0], [2.0, 3.0], [4.0]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gpu_step_waits_for_nothing(precision: torch.dtype) -> None:
    """No host synchronisation in a step; fp16's scaler has to look for overflows, so it is exempt."""
    step = new_step(device=torch.device("cuda"), precision=precision, grad_clip=1.0, ema_decay=0.9)
    for _ in range(2):
        step(new_batch())
    torch.cuda.set_sync_debug_mode("default" if precision is torch.float16 else "error")
    try:
        loss = step(new_batch())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(loss).item()
