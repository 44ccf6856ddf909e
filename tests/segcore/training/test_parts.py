"""Batches in parts, and single images under a model that cannot train on them."""

import re

import pytest
import torch

from segcore.config import TrainConfig
from segcore.data.loader import Batch
from segcore.training.parts import one_image_problem, part_sizes, reduction_without_one_image, smallest_part
from segcore.training.step import build_step


def config_of(side: int | tuple[int, int] = 16, model: dict[str, object] | None = None, **loop: object) -> TrainConfig:
    plain = {"arch": "unet", "encoder": "none", "base_channels": 2, "depth": 4}
    return TrainConfig.model_validate({"data": {"image_size": side}, "model": model or plain, "train": loop})


@pytest.mark.parametrize(
    ("num_images", "largest", "sizes"),
    [
        (8, None, [8]), (8, 8, [8]), (9, 8, [5, 4]), (7, 3, [3, 2, 2]), (4, 3, [2, 2]), (16, 5, [4, 4, 4, 4]),
        (3, 2, [2, 1]), (3, 1, [1, 1, 1]), (1, 4, [1]), (25, 8, [7, 6, 6, 6]),
    ],
)  # fmt: skip
def test_parts_are_few_and_even(num_images: int, largest: int | None, sizes: list[int]) -> None:
    assert part_sizes(num_images, largest) == sizes


def test_only_a_config_that_asks_for_it_trains_on_single_images() -> None:
    for batch_size in range(2, 40):
        for largest in range(3, 40):
            assert smallest_part(batch_size, largest, 1000) > 1
    assert smallest_part(16, None, 5) == 5, "fewer images than a batch are one batch"
    assert smallest_part(16, None, 1) == smallest_part(1, None, 9) == smallest_part(16, 1, 9) == 1
    assert smallest_part(5, 2, 9) == 1
    assert smallest_part(6, 2, 9) == 2
    assert smallest_part(6, 2, 5) == 1


@pytest.mark.parametrize(
    ("config", "num_train", "problem"),
    [
        (
            config_of(batch_size=1), 9,
            "train.batch_size is 1: single images would go through the model; with data.image_size 16 and model.depth "
            "4 the deepest feature map is one pixel, and batch norm cannot train on one value a channel; valid: "
            "train.batch_size of at least 2, or data.image_size above 16, or a smaller model.depth",
        ),
        (config_of(batch_size=6, micro_batch_size=1), 9, "valid: train.micro_batch_size null or at least 2, or data"),
        (
            config_of(batch_size=5, micro_batch_size=2), 9,
            "train.micro_batch_size is 2 for batches of 5: .*null or at least 3, or an even train.batch_size, or data",
        ),
        (config_of(batch_size=6), 1, "data.root: it has 1 training image: .*valid: at least 2 training images"),
        (config_of((16, 17), batch_size=1), 9, None),
        (config_of((16, 16), batch_size=1), 9, "data.image_size 16 "),
        (config_of(batch_size=6, micro_batch_size=4), 9, None),
        (config_of(batch_size=7, micro_batch_size=3), 9, None),
    ],
)  # fmt: skip
def test_the_message_names_the_key_and_what_is_valid(config: TrainConfig, num_train: int, problem: str | None) -> None:
    found = one_image_problem(config, num_train)
    if problem is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(problem, found), found


@pytest.mark.parametrize(("side", "depth", "arch"), [(16, 4, "unet"), (17, 4, "unet"), (16, 5, "residual_unet")])
def test_it_foretells_what_a_step_does(side: int, depth: int, arch: str) -> None:
    model = {"arch": arch, "encoder": "none", "base_channels": 2, "depth": depth}
    config = config_of(side, model, batch_size=1)
    step = build_step(config, torch.device("cpu"), steps_per_epoch=1)
    images = torch.zeros(1, 3, *config.data.image_hw, dtype=torch.uint8)
    batch = Batch(images, images[:, :1], torch.arange(1))
    if one_image_problem(config, 9) is None:
        step(batch)
    else:
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            step(batch)


def tried(encoder: str, side: int, is_frozen: bool = False) -> int | None:
    model = config_of(side, {"arch": "unet", "encoder": encoder, "encoder_weights": "imagenet"}).model
    return reduction_without_one_image(model, (side, side), is_frozen=is_frozen)


def test_an_encoder_of_timm_is_tried_without_its_weights() -> None:
    assert tried("timm:resnet10t", 32) == 32
    assert tried("timm:resnet10t", 33) is None


@pytest.mark.slow
def test_what_an_encoder_is_made_of_counts() -> None:
    assert tried("timm:skresnet18", 64) == 32, "its selective kernels pool over the image, before a batch norm"
    assert tried("timm:convnext_atto", 32) is None, "it has no batch norm"
    assert tried("timm:resnet10t", 32, is_frozen=True) is None, "its norms are not trained"
