"""How a batch is split into the parts that go through the model at once, and what a part of one image breaks.

Batch norm takes its mean over images and pixels, so while it trains it needs more than one value a channel. A part of
one image gives a single one where a feature map is one pixel: a small image under a deep encoder, or a layer that pools
over the whole image. Batches are split as evenly as they can be, which leaves such parts only where the config asks for
them; then it is the config that is at fault, as no other statistics would train the same model.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from segcore.models.build import build_model
from segcore.models.unet import MIN_SIDE

if TYPE_CHECKING:
    from segcore.config import LoopConfig, ModelConfig, TrainConfig

_ONE_VALUE = "Expected more than 1"


def part_sizes(num_images: int, largest: int | None) -> list[int]:
    """Split a batch into the fewest parts of at most `largest` images, as even as they can be, the larger ones first.

    Args:
        num_images: Images of the batch, at least 1.
        largest: `train.micro_batch_size`; None for a single part.
    """
    num_parts = 1 if largest is None else -(-num_images // largest)
    size, rest = divmod(num_images, num_parts)
    return [size + 1] * rest + [size] * (num_parts - rest)


def smallest_part(batch_size: int, micro_batch_size: int | None, num_train: int) -> int:
    """The fewest images that training puts through the model at once.

    Args:
        batch_size: `train.batch_size`; a last batch that is not full is left out, unless it is the only one.
        micro_batch_size: `train.micro_batch_size`.
        num_train: Training images.
    """
    return min(part_sizes(max(1, min(batch_size, num_train)), micro_batch_size))


def one_image_problem(config: TrainConfig, num_train: int) -> str | None:
    """What is wrong with a config that trains on single images with a model that cannot; None where nothing is.

    Args:
        config: Batches, image size and model.
        num_train: Training images.
    """
    loop, model, hw = config.train, config.model, config.data.image_hw
    if smallest_part(loop.batch_size, loop.micro_batch_size, num_train) > 1:
        return None
    reduction = reduction_without_one_image(model, hw, is_frozen=config.optimizer.encoder_lr_factor == 0.0)
    if reduction is None:
        return None
    key, ways = _single_by(loop, num_train)
    encoder = f"model.depth {model.depth}" if model.encoder == "none" else f"model.encoder {model.encoder}"
    if max(hw) <= reduction:
        size = str(hw[0]) if hw[0] == hw[1] else str(list(hw))
        why = f"with data.image_size {size} and {encoder} the deepest feature map is one pixel"
        ways += f", or data.image_size above {reduction}" + (", or a smaller model.depth" * (model.encoder == "none"))
    else:
        why = f"{encoder} has layers that pool over the whole image"
        ways += ", or another model.encoder"
    return (
        f"{key}: single images would go through the model; {why}, and batch norm cannot train on one value a channel; "
        f"valid: {ways}"
    )


def _single_by(loop: LoopConfig, num_train: int) -> tuple[str, str]:
    """What makes a part of one image, and what else it may be."""
    batch = min(loop.batch_size, num_train)
    if num_train < 2:
        return f"data.root: it has {num_train} training image", "at least 2 training images"
    if loop.batch_size == 1:
        return "train.batch_size is 1", "train.batch_size of at least 2"
    if loop.micro_batch_size == 1:
        at_least = 2 if batch % 2 == 0 else 3
        return "train.micro_batch_size is 1", f"train.micro_batch_size null or at least {at_least}"
    return (
        f"train.micro_batch_size is {loop.micro_batch_size} for batches of {batch}",
        "train.micro_batch_size null or at least 3, or an even train.batch_size",
    )


def reduction_without_one_image(model: ModelConfig, hw: tuple[int, int], *, is_frozen: bool) -> int | None:
    """The model's largest reduction where it cannot train on single images of a size, None where it can.

    Args:
        model: What to build.
        hw: Height and width of the images.
        is_frozen: Whether a timm encoder is not trained, so that its norms use what they have stored.
    """
    if model.encoder == "none":  # a batch norm at each of its features
        reduction = 2**model.depth
        return reduction if max(hw) <= reduction else None
    decoder = tuple(model.decoder_channels) if model.decoder_channels else None
    return _tried(model.arch, model.encoder, decoder, max(hw), is_frozen)


@lru_cache(maxsize=64)
def _tried(arch: str, encoder: str, decoder: tuple[int, ...] | None, longest: int, is_frozen: bool) -> int | None:
    """Put a single small image through a model in training mode."""
    from segcore.config import ModelConfig

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        config = ModelConfig.model_validate({"arch": arch, "encoder": encoder, "decoder_channels": decoder})
        model = build_model(config, load_pretrained=False)
        if is_frozen:
            model.freeze_encoder()
        reduction = int(model.encoder.reductions[-1])
        # Above the reduction, all sizes are alike: no map is one pixel, but for what pools over the whole image.
        width = max(reduction, MIN_SIDE) if longest <= reduction else 2 * max(reduction, MIN_SIDE)
        try:
            model(torch.zeros(1, 3, max(reduction, MIN_SIDE), width))
        except ValueError as error:
            if _ONE_VALUE not in str(error):
                raise
            return reduction
    return None
