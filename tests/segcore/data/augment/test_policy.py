import subprocess
import sys
import warnings

import numpy as np
import pytest
from data_folders import disk, picture

from segcore.config import AugmentConfig
from segcore.data.augment.plan import Column, draw_plan, mixed_seeds
from segcore.data.augment.policy import Augmentation, SeededCompose, build_augmentation

HW = (48, 40)
POLICIES = ["none", "flip", "light", "medium", "heavy"]


@pytest.fixture
def image() -> np.ndarray:
    return picture(0, HW)


@pytest.fixture
def mask() -> np.ndarray:
    mask = disk(HW, radius=12)
    mask[:20, :15] = 1  # no symmetry
    return mask


def augmented(
    augmentation: Augmentation, image: np.ndarray, mask: np.ndarray, seeds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Each seed's version of one sample; the result's memory is filled with rubbish first."""
    n, hw = len(seeds), mask.shape
    images, masks = np.full((n, *hw, 3), 77, np.uint8), np.full((n, *hw), 77, np.uint8)
    augmentation.apply(augmentation.plan(hw, seeds), seeds, [image] * n, [mask] * n, images, masks)
    return images, masks


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_keeps_types_and_values_and_its_inputs(policy: str, image: np.ndarray, mask: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        augmentation = build_augmentation(AugmentConfig(policy=policy, probability=0.7, vertical_flip=True))
    image.flags.writeable = mask.flags.writeable = False  # as the cache's views are
    before = image.copy(), mask.copy()
    images, masks = augmented(augmentation, image, mask, mixed_seeds(0, 0, range(60)))
    assert set(np.unique(masks)) == {0, 1}
    assert ((masks.mean((1, 2)) > 0.1) & (masks.mean((1, 2)) < 0.95)).all()
    changed = (images != image).any((1, 2, 3)).sum()
    assert changed == 0 if policy == "none" else changed > 40
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


@pytest.mark.parametrize("policy", POLICIES)
def test_a_seed_decides_everything(policy: str, image: np.ndarray, mask: np.ndarray) -> None:
    one, two = (build_augmentation(AugmentConfig(policy=policy)) for _ in range(2))
    seeds = mixed_seeds(3, 1, range(12))
    together = augmented(one, image, mask, seeds)
    augmented(two, image, mask, seeds[5:])  # use up some random numbers
    for number in reversed(range(12)):  # one by one, in another order
        alone = augmented(two, image, mask, seeds[number : number + 1])
        np.testing.assert_array_equal(alone[0][0], together[0][number])
        np.testing.assert_array_equal(alone[1][0], together[1][number])
    if policy != "none":
        assert (together[0] != together[0][0]).any()


def test_the_seed_of_a_sample_is_a_function_of_run_epoch_and_sample() -> None:
    seeds = mixed_seeds(5, 2, [7, 8, 7])
    assert seeds[0] == seeds[2] == mixed_seeds(5, 2, [7])[0]
    near = {int(s) for run in range(4) for epoch in range(4) for s in mixed_seeds(run, epoch, range(4))}
    assert len(near) == 64
    assert mixed_seeds(-1, 0, [0]).shape == (1,)


def test_transforms_are_drawn_independently_and_as_often_as_asked(mask: np.ndarray) -> None:
    """Left-right and upside-down flips must occur alone and together, each with its probability."""
    augmentation = build_augmentation(AugmentConfig(policy="flip", vertical_flip=True, probability=0.3))
    image = np.zeros((*HW, 3), np.uint8)
    image[0, 0], image[0, -1], image[-1, 0], image[-1, -1] = 1, 2, 3, 4
    images, _ = augmented(augmentation, image, mask, mixed_seeds(0, 0, range(2000)))
    counts = np.bincount(images[:, 0, 0, 0], minlength=5)[1:]  # neither, left-right, upside down, both
    assert (np.abs(counts - [980, 420, 420, 180]) < 80).all(), counts


def test_every_pair_of_steps_occurs_as_often_as_chance_has_it() -> None:
    plan = draw_plan(AugmentConfig(policy="medium", vertical_flip=True), HW, mixed_seeds(1, 0, range(4000)))
    nothing = draw_plan(AugmentConfig(policy="none"), HW, mixed_seeds(1, 0, [0]))[0]
    columns = [0, 1, Column.ANGLE, Column.CONTRAST, Column.HUE, Column.NOISE_STD, Column.BLUR_SIGMA]
    applied = (plan[:, columns] != nothing[columns]).astype(float)
    together = applied.T @ applied / len(plan)
    np.testing.assert_allclose(together, np.where(np.eye(7), 0.5, 0.25), atol=0.035)
    many = draw_plan(AugmentConfig(policy="medium", probability=1), HW, mixed_seeds(1, 0, range(4000)))[:, 2:]
    assert np.abs(np.corrcoef(many.T) - np.eye(many.shape[1])).max() < 0.07


def test_image_and_mask_move_together(mask: np.ndarray) -> None:
    config = AugmentConfig(policy="light", probability=1.0, color=0.0, rotate=30, scale=0.3, vertical_flip=True)
    image = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    images, masks = augmented(build_augmentation(config), image, mask, mixed_seeds(0, 0, range(50)))
    np.testing.assert_array_equal(images[..., 0] >= 128, masks == 1)


@pytest.mark.parametrize("scale", [0.2, 0.9])  # 0.9: a picture may shrink to a tenth, and is reflected many times
def test_a_border_is_filled_with_its_reflection_not_with_black(scale: float) -> None:
    config = AugmentConfig(policy="light", probability=1.0, color=0.0, scale=scale)
    white, full = np.full((*HW, 3), 255, np.uint8), np.ones(HW, np.uint8)
    images, masks = augmented(build_augmentation(config), white, full, mixed_seeds(0, 0, range(30)))
    assert images.min() == 255
    assert masks.min() == 1


def test_settings_reach_the_steps() -> None:
    config = AugmentConfig(policy="heavy", probability=0.4, rotate=33.0, scale=0.1, color=0.05, vertical_flip=True)
    lines = build_augmentation(config).describe()
    names = [line.split("(")[0] for line in lines]
    assert names == [
        "HorizontalFlip",
        "VerticalFlip",
        "Affine",
        "BrightnessContrast",
        "HueSaturationValue",
        "GaussNoise",
        "GaussianBlur",
        "OneOf",
        "CLAHE",
        "CoarseDropout",
    ]
    assert all("p=0.4" in line for line in lines)
    assert "33.0" in lines[2]
    assert "0.9" in lines[2]
    assert "0.05" in lines[3]
    assert "VerticalFlip" not in str(build_augmentation(AugmentConfig(policy="heavy")).describe())


def test_what_is_described_is_what_is_drawn() -> None:
    config = AugmentConfig(policy="medium", probability=1, rotate=33.0, scale=0.1, color=0.3)
    plan = draw_plan(config, (64, 200), mixed_seeds(0, 0, range(3000)))
    low, high = plan.min(0), plan.max(0)
    expected = {
        Column.FLIP_X: (1, 1),
        Column.FLIP_Y: (0, 0),
        Column.SCALE_X: (0.9, 1.1),
        Column.SCALE_Y: (0.9, 1.1),
        Column.ANGLE: (-33, 33),
        Column.SHIFT_X: (-12, 12),
        Column.SHIFT_Y: (-3, 3),
        Column.CONTRAST: (0.7, 1.3),
        Column.BRIGHTNESS: (-76.5, 76.5),
        Column.HUE: (-15, 15),
        Column.SATURATION: (-30, 30),
        Column.VALUE: (-15, 15),
        Column.NOISE_STD: (2.55, 15.3),
        Column.NOISE_X: (0, 255),
        Column.NOISE_Y: (0, 255),
        Column.BLUR_SIGMA: (0.2, 1.2),
    }
    assert expected.keys() == set(Column)
    for column, (lowest, highest) in expected.items():
        slack = (highest - lowest) * 0.01 + 1e-5
        assert lowest - 1e-5 <= low[column] <= lowest + slack, column
        assert highest - slack <= high[column] <= highest + 1e-5, column


@pytest.mark.parametrize("policy", POLICIES)
def test_probability_0_changes_nothing(policy: str, image: np.ndarray, mask: np.ndarray) -> None:
    augmentation = build_augmentation(AugmentConfig(policy=policy, probability=0))
    assert augmentation.describe() == []
    images, masks = augmented(augmentation, image, mask, mixed_seeds(0, 0, range(20)))
    assert (images == image).all()
    assert (masks == mask).all()


def test_ranges_of_0_leave_flips_and_shifts(image: np.ndarray) -> None:
    still = AugmentConfig(policy="light", color=0, rotate=0, scale=0, probability=1)
    images, masks = augmented(build_augmentation(still), image, np.ones(HW, np.uint8), mixed_seeds(0, 0, range(20)))
    plan = draw_plan(still, HW, mixed_seeds(0, 0, range(20)))
    for row, shifted in zip(plan, images, strict=True):
        x, y = int(row[Column.SHIFT_X]), int(row[Column.SHIFT_Y])
        expected = np.roll(image[:, ::-1], (y, x), (0, 1))
        inner = np.s_[3:-3, 3:-3]
        np.testing.assert_array_equal(shifted[inner], expected[inner])
    assert (masks == 1).all()


def test_a_wrong_keyword_is_an_error_not_a_warning() -> None:
    import albumentations

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserWarning, match="var_limit"):
            SeededCompose([albumentations.GaussNoise(var_limit=(10, 50), p=1)])


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["none", "flip", "light", "medium"])
def test_only_heavy_imports_albumentations(policy: str) -> None:
    code = (
        "import sys; from segcore.config import AugmentConfig; "
        "from segcore.data.augment.policy import build_augmentation; "
        f"build_augmentation(AugmentConfig(policy='{policy}')); assert 'albumentations' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
