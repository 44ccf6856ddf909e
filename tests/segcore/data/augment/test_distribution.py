"""Our own steps against albumentations' transforms of the same settings: equal in distribution, by what they do."""

import os
from functools import cache

import cv2
import numpy as np
import pytest
from data_folders import disk
from scipy.stats import ks_2samp

from segcore.config import AugmentConfig
from segcore.data.augment.plan import mixed_seeds
from segcore.data.augment.policy import SeededCompose, build_augmentation

pytestmark = pytest.mark.slow

HW = (52, 64)  # OpenCV rounds the last pixels of other widths otherwise than the rest
DRAWS = 1000
ALPHA = 0.001  # 56 comparisons: one in twenty such files of equal distributions has a p-value below it


def reference(config: AugmentConfig) -> SeededCompose:
    """The policy in albumentations' own transforms."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A

    class RoundedNoise(A.GaussNoise):
        """Its own noise, added and rounded; it cuts the noise down to whole levels before adding it."""

        def apply(self, img: np.ndarray, noise_map: np.ndarray, **params: object) -> np.ndarray:
            return np.rint(img + noise_map).clip(0, 255).astype(np.uint8)

    p, color = config.probability, config.color
    transforms = [A.HorizontalFlip(p=p)]
    if config.vertical_flip:
        transforms.append(A.VerticalFlip(p=p))
    transforms += [
        A.Affine(
            scale=(1 - config.scale, 1 + config.scale),
            rotate=(-config.rotate, config.rotate),
            translate_percent=(-0.0625, 0.0625),
            interpolation=cv2.INTER_LINEAR,
            mask_interpolation=cv2.INTER_NEAREST,
            border_mode=cv2.BORDER_REFLECT_101,
            p=p,
        ),
        A.RandomBrightnessContrast(brightness_limit=color, contrast_limit=color, p=p),
    ]
    if config.policy == "medium":
        transforms += [
            A.HueSaturationValue(
                hue_shift_limit=50 * color, sat_shift_limit=100 * color, val_shift_limit=50 * color, p=p
            ),
            RoundedNoise(std_range=(0.01, 0.06), noise_scale_factor=0.5, p=p),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.2, 1.2), p=p),
        ]
    return SeededCompose(transforms)


def ramps() -> tuple[np.ndarray, np.ndarray]:
    """Red tells the column, green the row; the mask is a slanted bar off the centre."""
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    image = np.stack([columns * 3 + 40, rows * 2 + 50, np.full(HW, 128)], axis=-1).astype(np.uint8)
    return image, (np.abs(rows - 30 + 0.5 * (columns - 20)) < 6).astype(np.uint8) * (np.abs(columns - 20) < 12)


def plain() -> tuple[np.ndarray, np.ndarray]:
    """One colour, which no flip or affine map changes."""
    return np.full((*HW, 3), (70, 120, 160), np.uint8), disk(HW)


def statistics(picture: str, image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """What tells one augmentation from another: colours and noise, or where the pixels have gone."""
    values = image.astype(np.float64)
    middle = values[18:34, 24:40]
    steps_x, steps_y = np.diff(middle, axis=1), np.diff(middle, axis=0)
    if picture == "plain":
        return {
            "red": values[..., 0].mean(),
            "green": values[..., 1].mean(),
            "blue": values[..., 2].mean(),
            "deviation": values[..., 2].std(),
            "roughness": np.abs(steps_x).mean(),
        }
    rows, columns = np.nonzero(mask)
    return {
        "red": values[..., 0].mean(),
        "red_along_x": steps_x[..., 0].mean(),
        "red_along_y": steps_y[..., 0].mean(),
        "green_along_x": steps_x[..., 1].mean(),
        "green_along_y": steps_y[..., 1].mean(),
        "mask_area": float(mask.sum()),
        "mask_x": columns.mean(),
        "mask_y": rows.mean(),
        "mask_spread": np.cov(columns, rows)[0, 1],
    }


@cache
def samples(whose: str, picture: str, config: AugmentConfig) -> dict[str, np.ndarray]:
    """`DRAWS` values of each statistic."""
    image, mask = {"ramps": ramps, "plain": plain}[picture]()
    if whose == "ours":
        augmentation, seeds = build_augmentation(config), mixed_seeds(3, 0, range(DRAWS))
        images, masks = np.empty((DRAWS, *HW, 3), np.uint8), np.empty((DRAWS, *HW), np.uint8)
        augmentation.apply(augmentation.plan(HW, seeds), seeds, [image] * DRAWS, [mask] * DRAWS, images, masks)
        found = [statistics(picture, *pair) for pair in zip(images, masks, strict=True)]
    else:
        theirs = reference(config)
        found = []
        for seed in mixed_seeds(4, 0, range(DRAWS)):
            theirs.reseed(int(seed))
            found.append(statistics(picture, *theirs(image, mask)))
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The Kolmogorov-Smirnov p-value, small where distributions differ; a hundredth of the spread counts as none."""
    scale = max(ours.std(), theirs.std(), 1e-9) / 100
    return float(ks_2samp(np.round(ours / scale), np.round(theirs / scale)).pvalue)


SETTINGS = [
    AugmentConfig(policy="light"),
    AugmentConfig(policy="light", probability=1.0, vertical_flip=True, rotate=40, scale=0.3, color=0.1),
    AugmentConfig(policy="medium"),
    AugmentConfig(policy="medium", probability=1.0, color=0.15, scale=0.1),
]


@pytest.mark.parametrize("config", SETTINGS, ids=lambda config: f"{config.policy}-{config.probability}")
@pytest.mark.parametrize("picture", ["ramps", "plain"])
def test_effects_have_the_distribution_of_albumentations(picture: str, config: AugmentConfig) -> None:
    ours, theirs = (samples(whose, picture, config) for whose in ("ours", "theirs"))
    pvalues = {name: difference(ours[name], theirs[name]) for name in ours}
    assert min(pvalues.values()) > ALPHA, pvalues


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "picture", "tells"),
    [
        ({"rotate": 25.0}, "ramps", "red_along_y"),
        ({"scale": 0.15}, "ramps", "mask_area"),
        ({"color": 0.2}, "plain", "green"),
        ({"vertical_flip": True}, "ramps", "green_along_y"),
        ({"probability": 0.75}, "plain", "roughness"),
    ],
    ids=str,
)
def test_these_statistics_tell_other_settings(change: dict[str, float], picture: str, tells: str) -> None:
    config = SETTINGS[-1]
    theirs, other = samples("theirs", picture, config), samples("ours", picture, config.model_copy(update=change))
    assert difference(other[tells], theirs[tells]) < ALPHA
