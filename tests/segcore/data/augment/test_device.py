import numpy as np
import pytest
import torch
from data_folders import picture

from segcore.config import AugmentConfig
from segcore.data.augment.device import build_device_augmentation
from segcore.data.augment.plan import Column, draw_plan, mixed_seeds
from segcore.data.augment.policy import build_augmentation

POLICIES = ["flip", "light", "medium"]
NUM_SAMPLES = 12


def samples(hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Photo-like images, and masks of smooth and of ragged outline."""
    images = np.stack([picture(seed, hw) for seed in range(NUM_SAMPLES)])
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    masks = np.stack([(np.sin(rows / 5 + n) + np.cos(columns / (3 + n)) > 0.3) for n in range(NUM_SAMPLES)])
    masks[0] = np.random.default_rng(0).random(hw) < 0.5
    return images, masks.astype(np.uint8)


def both(
    config: AugmentConfig, hw: tuple[int, int], device: str = "cpu"
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The loader's and the device's version of the same samples by the same plan."""
    images, masks = samples(hw)
    seeds = mixed_seeds(0, 3, range(NUM_SAMPLES))
    augmentation, on_device = build_augmentation(config), build_device_augmentation(config)
    assert on_device is not None
    plan = augmentation.plan(hw, seeds)
    ours = np.zeros_like(images), np.zeros_like(masks)
    augmentation.apply(plan, seeds, list(images), list(masks), *ours)
    tensors = [
        torch.from_numpy(images).permute(0, 3, 1, 2),
        torch.from_numpy(masks).unsqueeze(1),
        torch.from_numpy(plan),
    ]
    new_images, new_targets = on_device(*(tensor.to(device) for tensor in tensors))
    assert (new_images.shape, new_images.dtype) == (tensors[0].shape, torch.uint8)
    assert (new_targets.shape, new_targets.dtype) == (tensors[1].shape, torch.uint8)
    assert new_images.is_contiguous(memory_format=torch.channels_last)
    return ours, (new_images.permute(0, 2, 3, 1).cpu().numpy(), new_targets[:, 0].cpu().numpy())


def assert_alike(config: AugmentConfig, hw: tuple[int, int], device: str = "cpu") -> None:
    """Levels may differ by 1 where one rounds up and one down, which the hue of a pixel that is near grey amplifies."""
    (images, masks), (device_images, device_masks) = both(config, hw, device)
    levels = np.abs(images.astype(int) - device_images)
    if config.policy == "flip":
        assert levels.max() == 0
    assert (levels > 1).mean() < 1e-3
    assert levels.mean() < (0.05 if config.policy == "medium" else 0.01)
    assert set(np.unique(device_masks)) == {0, 1}
    assert (masks != device_masks).mean() <= 1e-3


@pytest.mark.parametrize("hw", [(64, 64), (33, 57), (128, 50), (16, 16)], ids=str)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_the_same_plan_gives_the_same_picture(policy: str, probability: float, hw: tuple[int, int]) -> None:
    assert_alike(AugmentConfig(policy=policy, probability=probability, vertical_flip=True), hw)


def test_far_turns_and_zooms_reflect_alike() -> None:
    assert_alike(AugmentConfig(policy="light", probability=1.0, rotate=180, scale=0.8, color=0.0), (48, 64))


@pytest.mark.parametrize(
    "column",
    [Column.CONTRAST, Column.BRIGHTNESS, Column.HUE, Column.SATURATION, Column.VALUE, Column.NOISE_STD,
     Column.BLUR_SIGMA, Column.ANGLE, Column.SCALE_X, Column.SHIFT_Y],
    ids=lambda column: column.name,
)  # fmt: skip
def test_each_step_alone(column: Column) -> None:
    """Each column by itself changes the picture, in the same way on both."""
    hw, config = (40, 56), AugmentConfig(policy="medium", probability=1.0)
    seeds = mixed_seeds(0, 3, range(NUM_SAMPLES))
    drawn = draw_plan(config, hw, seeds)
    plan = draw_plan(AugmentConfig(policy="none"), hw, seeds)
    plan[:, column] = drawn[:, column]
    images, masks = samples(hw)
    ours = np.zeros_like(images), np.zeros_like(masks)
    build_augmentation(config).apply(plan, seeds, list(images), list(masks), *ours)
    assert (ours[0] != images).any((1, 2, 3)).mean() > 0.5
    on_device = build_device_augmentation(config)
    assert on_device is not None
    new_images, new_targets = on_device(
        torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)[:, None], torch.from_numpy(plan)
    )
    levels = np.abs(new_images.permute(0, 2, 3, 1).numpy().astype(int) - ours[0])
    assert levels.max() <= 1
    assert levels.mean() < 0.03
    np.testing.assert_array_equal(new_targets[:, 0], ours[1])


def test_one_sample_is_what_it_is_in_a_batch() -> None:
    config, hw = AugmentConfig(policy="medium"), (32, 24)
    images, masks = samples(hw)
    on_device = build_device_augmentation(config)
    assert on_device is not None
    plan = torch.from_numpy(draw_plan(config, hw, mixed_seeds(0, 0, range(NUM_SAMPLES))))
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)[:, None], plan
    together = on_device(*tensors)
    for n in range(NUM_SAMPLES):
        alone = on_device(*(tensor[n : n + 1] for tensor in tensors))
        assert torch.equal(alone[0][0], together[0][n])
        assert torch.equal(alone[1][0], together[1][n])


def test_a_plan_that_says_nothing_changes_nothing() -> None:
    images, masks = samples((32, 24))
    plan = torch.from_numpy(draw_plan(AugmentConfig(policy="none"), (32, 24), mixed_seeds(0, 0, range(NUM_SAMPLES))))
    for policy in POLICIES:
        on_device = build_device_augmentation(AugmentConfig(policy=policy))
        assert on_device is not None
        before = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks)[:, None]
        after = on_device(*before, plan)
        assert torch.equal(after[0], before[0])
        assert torch.equal(after[1], before[1])


@pytest.mark.parametrize(
    "config", [AugmentConfig(policy="none"), AugmentConfig(policy="heavy"), AugmentConfig(probability=0)], ids=str
)
def test_what_is_not_done_on_a_device(config: AugmentConfig) -> None:
    assert build_device_augmentation(config) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("policy", POLICIES)
def test_a_gpu_gives_the_loaders_picture_without_waiting(policy: str) -> None:
    config = AugmentConfig(policy=policy, probability=1.0)
    assert_alike(config, (64, 48), "cuda")  # fills the bank of noise, which waits once
    images, masks = samples((64, 48))
    plan = torch.from_numpy(draw_plan(config, (64, 48), mixed_seeds(0, 0, range(NUM_SAMPLES)))).cuda()
    arguments = torch.from_numpy(images).permute(0, 3, 1, 2).cuda(), torch.from_numpy(masks)[:, None].cuda(), plan
    on_device = build_device_augmentation(config)
    assert on_device is not None
    torch.cuda.set_sync_debug_mode("error")
    try:
        on_device(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")
