import copy
import math

import pytest
import torch

from segcore.config import LRSchedulerConfig, ModelConfig, OptimizerConfig
from segcore.models.build import build_model
from segcore.registries import OPTIMIZERS, SCHEDULES
from segcore.training.groups import build_optimizer
from segcore.training.schedule import build_lr_scheduler

TIMM = ModelConfig(encoder="timm:mobilenetv3_small_050", decoder_channels=(8, 8, 8, 8, 8))
PLAIN = ModelConfig(base_channels=2, depth=1)
EPOCHS, STEPS = 5, 4
TOTAL = EPOCHS * STEPS


def _optimizer(name="adamw", model=PLAIN, **settings):
    return build_optimizer(build_model(model), OptimizerConfig(name=name, **settings))


def _run(config, lr=0.1, **optimizer_settings):
    """The learning rate that each step of a run is taken at."""
    optimizer = _optimizer("sgd", lr=lr, **optimizer_settings)
    schedule = build_lr_scheduler(optimizer, config, EPOCHS, STEPS)
    used = []
    for _ in range(TOTAL):
        used.append(schedule.lr)
        optimizer.step()
        schedule.step()
    return used, schedule


def _train(optimizer, model, schedule=None, steps=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=generator)
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()
        if schedule is not None:
            schedule.step()


@pytest.mark.parametrize("name", OPTIMIZERS.names)
def test_optimizer_and_schedule_go_on_where_they_were_saved(name):
    config = LRSchedulerConfig(name="cosine", warmup_epochs=0.5)

    def start():
        torch.manual_seed(0)
        model = build_model(PLAIN)
        optimizer = build_optimizer(model, OptimizerConfig(name=name))
        return model, optimizer, build_lr_scheduler(optimizer, config, EPOCHS, STEPS)

    model, optimizer, schedule = start()
    _train(optimizer, model, schedule, seed=1)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), schedule.state_dict()))
    _train(optimizer, model, schedule, seed=2)

    model_2, optimizer_2, schedule_2 = start()
    model_2.load_state_dict(saved[0])
    optimizer_2.load_state_dict(saved[1])
    schedule_2.load_state_dict(saved[2])
    _train(optimizer_2, model_2, schedule_2, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), model_2.parameters(), strict=True))
    assert schedule_2.last_lr == schedule.last_lr


def test_a_schedule_built_after_the_optimizers_state_was_loaded_has_the_same_peaks():
    config = LRSchedulerConfig(name="cosine")
    optimizer = _optimizer("sgd", lr=0.1)
    schedule = build_lr_scheduler(optimizer, config, EPOCHS, STEPS)
    for _ in range(15):
        optimizer.step()
        schedule.step()
    other = _optimizer("sgd", lr=0.1)
    other.load_state_dict(optimizer.state_dict())
    again = build_lr_scheduler(other, config, EPOCHS, STEPS)
    again.load_state_dict(schedule.state_dict())
    assert again.last_lr == schedule.last_lr


def test_constant():
    used, _ = _run(LRSchedulerConfig(name="constant"))
    assert used == [0.1] * TOTAL


def test_cosine_with_warm_up():
    used, schedule = _run(LRSchedulerConfig(name="cosine", warmup_epochs=1.5, min_lr_factor=0.05))
    warmup = 6
    expected = [0.1 * (s + 1) / warmup for s in range(warmup)]
    expected += [
        0.1 * (0.05 + 0.95 * (1 + math.cos(math.pi * (s - warmup) / (TOTAL - warmup))) / 2)
        for s in range(warmup, TOTAL)
    ]
    assert used == pytest.approx(expected)
    assert schedule.lr == pytest.approx(0.1 * 0.05)


def test_polynomial():
    used, schedule = _run(LRSchedulerConfig(name="polynomial", warmup_epochs=0.0, min_lr_factor=0.1, power=2.0))
    assert used == pytest.approx([0.1 * (0.1 + 0.9 * (1 - s / TOTAL) ** 2) for s in range(TOTAL)])
    assert schedule.lr == pytest.approx(0.01)


def test_onecycle():
    used, schedule = _run(LRSchedulerConfig(name="onecycle", pct_start=0.25, min_lr_factor=0.01))
    peak = 5
    rising = [0.1 * (1 + (0.04 - 1) * (1 + math.cos(math.pi * s / peak)) / 2) for s in range(peak)]
    falling = [0.1 * (0.01 + 0.99 * (1 + math.cos(math.pi * s / (TOTAL - peak))) / 2) for s in range(TOTAL - peak)]
    assert used == pytest.approx(rising + falling)
    assert used[0] == pytest.approx(0.1 / 25)
    assert max(used) == used[peak] == 0.1
    assert schedule.lr == pytest.approx(0.001)


def test_plateau_waits_and_cuts_and_stops_at_the_floor():
    optimizer = _optimizer("sgd", lr=1.0)
    config = LRSchedulerConfig(name="plateau", patience=1, factor=0.1, min_lr_factor=0.05)
    schedule = build_lr_scheduler(optimizer, config, 10, 1)
    seen = []
    for metric in (0.5, 0.6, 0.6, 0.5, 0.7, math.nan, 0.7, 0.1, 0.1, 0.8):
        schedule.step()
        schedule.end_epoch(metric)
        seen.append(schedule.lr)
    #       best best  bad  cut  best bad  cut   bad   cut   best
    assert seen == pytest.approx([1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05])


def test_plateau_agrees_with_torchs():
    ours, theirs = _optimizer("sgd", lr=1.0), _optimizer("sgd", lr=1.0)
    config = LRSchedulerConfig(name="plateau", patience=2, factor=0.5, min_lr_factor=0.0)
    schedule = build_lr_scheduler(ours, config, 30, 1)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, mode="max", patience=2, factor=0.5, threshold=0.0)
    generator = torch.Generator().manual_seed(0)
    for metric in torch.rand(30, generator=generator).tolist():
        schedule.end_epoch(metric)
        reference.step(metric)
        assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    assert schedule.lr < 0.1


def test_plateau_state_survives_a_round_trip():
    config = LRSchedulerConfig(name="plateau", patience=1, factor=0.5)
    first = build_lr_scheduler(_optimizer(lr=1.0), config, 9, 1)
    for metric in (0.5, 0.4, 0.3, 0.2):
        first.end_epoch(metric)
    second = build_lr_scheduler(_optimizer(lr=1.0), config, 9, 1)
    second.load_state_dict(first.state_dict())
    assert second.lr == first.lr == 0.5
    for schedule in (first, second):
        schedule.end_epoch(0.45)  # second bad epoch in a row
    assert second.lr == first.lr == 0.25


@pytest.mark.parametrize("name", SCHEDULES.names)
def test_every_group_keeps_its_share(name):
    model = build_model(TIMM)
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.1, encoder_lr_factor=0.25))
    schedule = build_lr_scheduler(optimizer, LRSchedulerConfig(name=name), EPOCHS, STEPS)
    for _ in range(TOTAL):
        schedule.step()
        lr = schedule.last_lr
        assert lr["encoder/decay"] == lr["encoder/no_decay"] == pytest.approx(0.25 * lr["decoder/decay"])
        assert lr["decoder/decay"] == schedule.lr == optimizer.param_groups[-1]["lr"]
        assert schedule.lr > 0


@pytest.mark.parametrize("name", SCHEDULES.names)
@pytest.mark.parametrize(("epochs", "steps"), [(1, 1), (1, 3), (2, 1)])
def test_the_shortest_runs_have_learning_rates_within_the_peak(name, epochs, steps):
    schedule = build_lr_scheduler(_optimizer("sgd", lr=0.1), LRSchedulerConfig(name=name), epochs, steps)
    for _ in range(epochs * steps + 2):  # and beyond the end
        assert 0 < schedule.lr <= 0.1
        schedule.step()


def test_an_empty_run_is_refused():
    with pytest.raises(ValueError, match="at least 1, found 3 and 0"):
        build_lr_scheduler(_optimizer(), LRSchedulerConfig(), 3, 0)
