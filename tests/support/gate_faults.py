"""Faults that are put into a healthy pipeline, and healthy configs: what the gate's tests and its benchmark share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segcore.config import TrainConfig
from segcore.data.loader import Batch, build_loader
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import SampleCache, open_cache
from segcore.gate.pipeline import Pipeline

SMALL: dict[str, Any] = {
    "data.root": "synthetic", "data.image_size": 48, "model.base_channels": 8, "model.depth": 3,
    "optimizer.lr": 3e-3, "train.batch_size": 8,
}  # fmt: skip
"""A model and images that take seconds."""

LITE0 = {"model.encoder": "timm:tf_efficientnet_lite0"}


def config_of(changes: dict[str, Any], cache_dir: Path) -> TrainConfig:
    """The small config with dotted keys changed."""
    tree: dict[str, Any] = {"data": {"cache_dir": str(cache_dir)}}
    for key, value in {**SMALL, **changes}.items():
        section, _, leaf = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[leaf] = value
    return TrainConfig.model_validate(tree)


def cache_of(config: TrainConfig) -> SampleCache:
    """The decoded samples of a config."""
    return open_cache(build_cache(discover(config.data), config.data))


@dataclass(frozen=True)
class Fault:
    """A fault, the code that the gate must name it by, and how it is put into a pipeline."""

    name: str
    code: str
    inject: Callable[[Pipeline], None]
    changes: dict[str, Any] | None = None


class Wrapped(nn.Module):
    """A model with something done to its logits."""

    def __init__(self, model: nn.Module, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._after = after

    def forward(self, images: Tensor) -> Tensor:
        return self._after(self.model(images))


class AlwaysDropout(nn.Module):
    """Dropout whose author forgot `training=self.training`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout2d(x, 0.3, training=True)


class Detached(nn.Module):
    """An encoder whose features are cut off from the graph."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> list[Tensor]:
        return [feature.detach() for feature in self.encoder(x)]


def with_targets(pipeline: Pipeline, change: Callable[[Batch], Tensor]) -> None:
    """Lets every batch that is read have other targets."""
    read = pipeline.read

    def changed(indices: Sequence[int]) -> Batch:
        batch = read(indices)
        return replace(batch, targets=change(batch))

    pipeline.read = changed


def with_images(pipeline: Pipeline, change: Callable[[Tensor], Tensor]) -> None:
    """Lets every batch that is read have other images."""
    read = pipeline.read

    def changed(indices: Sequence[int]) -> Batch:
        batch = read(indices)
        return replace(batch, images=change(batch.images))

    pipeline.read = changed


def masks_of_others(pipeline: Pipeline, order: Sequence[int]) -> None:
    """Pairs each training image with the mask of another one."""
    other = dict(zip(pipeline.cache.source.indices("train"), order, strict=True))
    read = pipeline.read
    with_targets(pipeline, lambda batch: read([other[i] for i in batch.indices.tolist()]).targets)


def shuffle(pipeline: Pipeline) -> None:
    masks_of_others(pipeline, np.random.default_rng(0).permutation(pipeline.cache.source.indices("train")).tolist())


def off_by_one(pipeline: Pipeline) -> None:
    masks_of_others(pipeline, np.roll(pipeline.cache.source.indices("train"), 1).tolist())


def center_crop(batch: Batch) -> Tensor:
    """Masks cropped to their middle before they are resized, images not."""
    height, width = batch.targets.shape[2:]
    top, left = height // 8, width // 8
    return F.interpolate(batch.targets[:, :, top : height - top, left : width - left].float(), (height, width)).byte()


def letterbox(pipeline: Pipeline) -> None:
    """Masks padded to a square before they are resized, images stretched."""
    sizes = pipeline.cache.source.original_hw

    def padded(batch: Batch) -> Tensor:
        height, width = batch.targets.shape[2:]
        masks = torch.zeros_like(batch.targets)
        for place, index in enumerate(batch.indices.tolist()):
            h, w = (int(side * min(height, width) / max(sizes[index])) for side in sizes[index])
            top, left = (height - h) // 2, (width - w) // 2
            small = F.interpolate(batch.targets[place : place + 1].float(), (h, w))
            masks[place, :, top : top + h, left : left + w] = small[0].byte()
        return masks

    with_targets(pipeline, padded)


def normalise(pipeline: Pipeline) -> None:
    """The data set normalises, as the model does."""
    mean, std = (torch.tensor(pipeline.encoder.__dict__[name]).view(3, 1, 1) for name in ("mean", "std"))
    with_images(pipeline, lambda images: (images.float() / 255.0 - mean) / std)


def other_encoders_numbers(pipeline: Pipeline) -> None:
    """A model normalises with the numbers of another encoder."""
    pipeline.model.get_buffer("mean").copy_(torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
    pipeline.model.get_buffer("std").copy_(torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))


def two_sigmoids(pipeline: Pipeline) -> None:
    pipeline.step.model = Wrapped(pipeline.model, torch.sigmoid)


class SigmoidFirst(nn.Module):
    """A loss that takes logits and is given probabilities."""

    def __init__(self, loss_fn: nn.Module) -> None:
        super().__init__()
        self.loss_fn = loss_fn

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.loss_fn(logits.sigmoid(), targets)


def sigmoid_before_loss(pipeline: Pipeline) -> None:
    pipeline.step.loss_fn = SigmoidFirst(pipeline.step.loss_fn)


def learning_rate(value: float) -> Callable[[Pipeline], None]:
    def inject(pipeline: Pipeline) -> None:
        for group in pipeline.step.optimizer.param_groups:
            group["lr"] = group["peak_lr"] = value

    return inject


def freeze(pipeline: Pipeline) -> None:
    for parameter in pipeline.encoder.parameters():
        parameter.requires_grad_(False)


def leave_decoder_out(pipeline: Pipeline) -> None:
    """The optimizer is made of the encoder's parameters alone."""
    groups = pipeline.step.optimizer.param_groups
    groups[:] = [group for group in groups if group["name"].startswith("encoder")]


def detach(pipeline: Pipeline) -> None:
    model: Any = pipeline.model
    model.encoder = Detached(model.encoder)


def dead_relu(pipeline: Pipeline) -> None:
    """A stage whose activations are all below 0."""
    model: Any = pipeline.model
    nn.init.constant_(model.decoder.stages[0].block.norm2.bias, -1000.0)


def dropout_in_eval(pipeline: Pipeline) -> None:
    model: Any = pipeline.model
    model.dropout = AlwaysDropout()


def augmented_validation(pipeline: Pipeline) -> None:
    """The validation loader is built like the training one."""

    def val_pass(number: int) -> Iterator[Batch]:
        loader = build_loader(
            pipeline.cache.source, "val", batch_size=8, augment=pipeline.config.augment, shuffle=False, drop_last=False,
            seed=0, num_workers=0, pin_memory=False,
        )  # fmt: skip
        loader.set_epoch(number)
        yield from loader

    pipeline.val_pass = val_pass


def notebook_iou(logits: Tensor, mask: Tensor, threshold: float) -> float:
    """The IoU of the notebook that this project began with: whatever it is given, it answers."""
    pred = (torch.sigmoid(logits) > threshold).float()
    both = (pred * mask).sum()
    return float((both + 1e-6) / ((pred + mask).sum() - both + 1e-6))


def swap(metric: Callable[[Tensor, Tensor, float], float]) -> Callable[[Pipeline], None]:
    def inject(pipeline: Pipeline) -> None:
        pipeline.metric = lambda logits, targets, threshold: metric(targets, logits, threshold)

    return inject


def swap_own(pipeline: Pipeline) -> None:
    swap(pipeline.metric)(pipeline)


def threshold(value: float) -> Callable[[Pipeline], None]:
    def inject(pipeline: Pipeline) -> None:
        pipeline.threshold = value

    return inject


FAULTS: tuple[Fault, ...] = (
    Fault("masks left at 0/255", "masks_0_255", lambda p: with_targets(p, lambda batch: batch.targets * 255)),
    Fault("inverted masks", "inverted_masks", lambda p: with_targets(p, lambda batch: 1 - batch.targets)),
    Fault("masks shuffled", "shuffled_masks", shuffle),
    Fault("masks off by one", "shuffled_masks", off_by_one),
    Fault("mask cropped, image not", "geometry_mismatch", lambda p: with_targets(p, center_crop)),
    Fault("mask padded, image stretched", "geometry_mismatch", letterbox),
    Fault("mask with height and width swapped", "geometry_mismatch",
          lambda p: with_targets(p, lambda batch: batch.targets.transpose(2, 3))),
    Fault("image flipped, mask not", "geometry_mismatch", lambda p: with_images(p, lambda images: images.flip(3))),
    Fault("normalised twice", "normalised_twice", normalise),
    Fault("normalised twice, timm encoder", "normalised_twice", normalise, LITE0),
    Fault("wrong encoder's numbers", "wrong_normalisation", other_encoders_numbers),
    Fault("wrong encoder's numbers, timm encoder", "wrong_normalisation", other_encoders_numbers, LITE0),
    Fault("colours in the wrong order", "channels_swapped", lambda p: with_images(p, lambda images: images.flip(1))),
    Fault("sigmoid in the model", "double_sigmoid", two_sigmoids),
    Fault("sigmoid before the loss", "double_sigmoid", sigmoid_before_loss),
    Fault("learning rate 0", "lr_zero", learning_rate(0.0)),
    Fault("learning rate far too high", "lr_too_high", learning_rate(30.0)),
    Fault("learning rate far too high, sgd", "lr_too_high", learning_rate(1e4), {"optimizer.name": "sgd"}),
    Fault("learning rate far too low", "lr_too_low", learning_rate(1e-7)),
    Fault("learning rate far too low, sgd", "lr_too_low", learning_rate(1e-6), {"optimizer.name": "sgd"}),
    Fault("encoder frozen", "frozen_layers", freeze),
    Fault("decoder not in the optimizer", "frozen_layers", leave_decoder_out),
    Fault("features detached", "dead_gradient", detach),
    Fault("dead activations", "dead_gradient", dead_relu),
    Fault("dropout left on", "dropout_left_on", dropout_in_eval),
    Fault("augmentation left on", "augmentation_left_on", augmented_validation),
    Fault("masks all empty", "constant_target",
          lambda p: with_targets(p, lambda batch: torch.zeros_like(batch.targets))),
    Fault("masks all full", "constant_target", lambda p: with_targets(p, lambda batch: torch.ones_like(batch.targets))),
    Fault("metric's arguments swapped", "metric_swapped", swap_own),
    Fault("the notebook's metric, swapped", "metric_swapped", swap(notebook_iou)),
    Fault("threshold far too high", "threshold_far", threshold(0.999)),
    Fault("threshold far too low", "threshold_far", threshold(0.001)),
)  # fmt: skip

HEALTHY: dict[str, dict[str, Any]] = {
    "unet, adamw, cosine, light": {},
    "residual_unet, sgd, onecycle, no augmentation": {
        "model.arch": "residual_unet", "optimizer.name": "sgd", "optimizer.lr": 0.1, "lr_scheduler.name": "onecycle",
        "augment.policy": "none",
    },
    "attention_unet, nadam, plateau, heavy": {
        "model.arch": "attention_unet", "optimizer.name": "nadam", "lr_scheduler.name": "plateau",
        "augment.policy": "heavy", "optimizer.lr": 1e-3,
    },
    "residual_attention_unet, polynomial, focal + dice, medium": {
        "model.arch": "residual_attention_unet", "lr_scheduler.name": "polynomial", "loss.bce": 0.0,
        "loss.focal": 1.0, "augment.policy": "medium",
    },
    "unet, Tversky alone, flips, dropout 0.4": {
        "loss.bce": 0.0, "loss.dice": 0.0, "loss.tversky": 1.0, "augment.policy": "flip", "model.dropout": 0.4,
    },
    "unet, Lovász + BCE, moving average, threshold 0.5": {
        "loss.dice": 0.0, "loss.lovasz": 1.0, "train.ema_decay": 0.999, "threshold": 0.5,
    },
    "EfficientNet-Lite0, adamw 1e-3": {**LITE0, "optimizer.lr": 1e-3},
    "EfficientNet-Lite0 frozen on purpose, attention": {
        **LITE0, "model.arch": "attention_unet", "optimizer.encoder_lr_factor": 0.0, "optimizer.lr": 1e-3,
    },
    "the notebook's: attention, adamw 1e-4, BCE + Dice, threshold 0.25": {
        "model.arch": "attention_unet", "model.base_channels": 16, "optimizer.lr": 1e-4, "threshold": 0.25,
        "lr_scheduler.name": "plateau",
    },
    "not square, BCE alone, parts of 4 images, float32": {
        "data.image_size": (64, 40), "loss.dice": 0.0, "train.micro_batch_size": 4, "train.precision": "fp32",
        "lr_scheduler.name": "constant",
    },
}  # fmt: skip
