import subprocess
import sys
import warnings

import numpy as np
import pytest
from data_folders import disk, picture

from segcore.config import AugmentConfig
from segcore.data.augment import Augmentation, build_augmentation

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


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_keeps_shapes_types_and_values(policy: str, image: np.ndarray, mask: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        augmentation = build_augmentation(AugmentConfig(policy=policy, probability=0.7, vertical_flip=True), seed=0)
    image.flags.writeable = mask.flags.writeable = False  # as the cache's views are
    before = image.copy()
    changed = 0
    for seed in range(60):
        augmentation.reseed(seed)
        new_image, new_mask = augmentation(image, mask)
        assert (new_image.shape, new_image.dtype) == (image.shape, np.uint8)
        assert (new_mask.shape, new_mask.dtype) == (mask.shape, np.uint8)
        assert set(np.unique(new_mask)) <= {0, 1}
        assert 0.1 < new_mask.mean() < 0.95
        changed += not np.array_equal(new_image, image)
    assert changed == 0 if policy == "none" else changed > 40
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_seed_decides_everything(policy: str, image: np.ndarray, mask: np.ndarray) -> None:
    one, two = (build_augmentation(AugmentConfig(policy=policy), seed) for seed in (1, 2))
    outcomes = []
    for seed in (5, 6, 2**63 + 5, 5):
        two(image, mask)  # use up some random numbers
        one.reseed(seed)
        two.reseed(seed)
        a, b = one(image, mask), two(image, mask)
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
        outcomes.append(a[0])
    np.testing.assert_array_equal(outcomes[0], outcomes[3])
    if policy not in ("none", "flip"):
        assert not np.array_equal(outcomes[0], outcomes[1])


def test_the_first_seed_counts(image: np.ndarray, mask: np.ndarray) -> None:
    one = build_augmentation(AugmentConfig(policy="medium"), seed=7)
    two = build_augmentation(AugmentConfig(policy="medium"), seed=0)
    two.reseed(7)
    np.testing.assert_array_equal(one(image, mask)[0], two(image, mask)[0])


def test_transforms_are_drawn_independently_and_as_often_as_asked(mask: np.ndarray) -> None:
    """Left-right and upside-down flips must occur alone and together, each with its probability."""
    augmentation = build_augmentation(AugmentConfig(policy="flip", vertical_flip=True, probability=0.3), seed=0)
    image = np.arange(HW[0] * HW[1] * 3, dtype=np.uint32).astype(np.uint8).reshape(*HW, 3)
    image[0, 0], image[0, -1], image[-1, 0], image[-1, -1] = 1, 2, 3, 4
    corner = {1: "neither", 2: "left-right", 3: "upside-down", 4: "both"}
    counts = dict.fromkeys(corner.values(), 0)
    for seed in range(2000):
        augmentation.reseed(seed)
        counts[corner[int(augmentation(image, mask)[0][0, 0, 0])]] += 1
    expected = {"neither": 980, "left-right": 420, "upside-down": 420, "both": 180}
    assert all(abs(counts[key] - number) < 80 for key, number in expected.items()), counts


def test_image_and_mask_move_together(mask: np.ndarray) -> None:
    config = AugmentConfig(policy="light", probability=1.0, color=0.0, rotate=30, scale=0.3)
    augmentation = build_augmentation(config, seed=0)
    image = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    for seed in range(20):
        augmentation.reseed(seed)
        new_image, new_mask = augmentation(image, mask)
        disagree = (new_image[..., 0] >= 128) != (new_mask == 1)
        assert disagree.mean() < 0.03  # a pixel's width along the edge


def test_a_border_is_filled_with_its_reflection_not_with_black() -> None:
    augmentation = build_augmentation(AugmentConfig(policy="light", probability=1.0, color=0.0), seed=0)
    white, full = np.full((*HW, 3), 255, np.uint8), np.ones(HW, np.uint8)
    for seed in range(10):
        augmentation.reseed(seed)
        image, mask = augmentation(white, full)
        assert image.min() == 255
        assert mask.min() == 1


def test_settings_reach_the_transforms() -> None:
    config = AugmentConfig(policy="heavy", probability=0.4, rotate=33.0, scale=0.1, color=0.05, vertical_flip=True)
    lines = build_augmentation(config, seed=0).describe()
    names = [line.split("(")[0] for line in lines]
    assert names == [
        "HorizontalFlip",
        "VerticalFlip",
        "Affine",
        "RandomBrightnessContrast",
        "OneOf",
        "HueSaturationValue",
        "GaussNoise",
        "GaussianBlur",
        "CLAHE",
        "CoarseDropout",
    ]
    assert all("p=0.4" in line for line in lines)
    assert "33.0" in lines[2]
    assert "0.9" in lines[2]
    assert "0.05" in lines[3]
    assert "VerticalFlip" not in str(build_augmentation(AugmentConfig(policy="heavy"), seed=0).describe())


def test_color_0_and_probability_0_change_nothing(image: np.ndarray, mask: np.ndarray) -> None:
    assert build_augmentation(AugmentConfig(policy="heavy", probability=0), seed=0).describe() == []
    still = AugmentConfig(policy="light", color=0, rotate=0, scale=0)
    augmentation = build_augmentation(still, seed=0)
    augmentation.reseed(3)
    assert augmentation(image, mask)[1].shape == mask.shape


def test_a_wrong_keyword_is_an_error_not_a_warning() -> None:
    import albumentations

    def build() -> Augmentation:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            return Augmentation([albumentations.GaussNoise(var_limit=(10, 50), p=1)], seed=0)

    with pytest.raises(UserWarning, match="var_limit"):
        build()


@pytest.mark.slow
def test_no_augmentation_imports_no_albumentations() -> None:
    code = (
        "import sys; from segcore.config import AugmentConfig; from segcore.data.augment import build_augmentation; "
        "build_augmentation(AugmentConfig(policy='none'), 0); assert 'albumentations' not in sys.modules; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
