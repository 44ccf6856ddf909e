"""The loop that people write first, as the notebook that this project began with has it: the baseline of `bench step`.

JPEG and PNG are decoded, resized and augmented sample by sample in `__getitem__`; normalisation is done there in
float32; the model trains in float32 and contiguous memory; `.item()` and an IoU are read in each step. With
albumentations installed it augments by that, else by this project's own transforms of the same policy.
"""

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from plain_config import plain_config
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from segcore.data.augment import build_augmentation
from segcore.data.augment_plan import mixed_seeds

THRESHOLD = 0.25
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


class FileDataset(Dataset[tuple[Tensor, Tensor]]):
    """Decodes, resizes, augments and normalises one sample at a time.

    Args:
        pairs: Image and mask files.
        side: Height and width of what it returns.
        transform: `(image, mask) -> (image, mask)` on uint8 arrays; None for nothing.
    """

    def __init__(self, pairs: list[tuple[Path, Path]], side: int, transform: Any = None) -> None:
        self.pairs = pairs
        self.side = side
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """`(3, side, side) float32`, `(1, side, side) float32`."""
        image_path, mask_path = self.pairs[index]
        image = cv2.cvtColor(cv2.imread(str(image_path)), cv2.COLOR_BGR2RGB)
        mask = cv2.imread(str(mask_path), cv2.IMREAD_GRAYSCALE)
        image = cv2.resize(image, (self.side, self.side), interpolation=cv2.INTER_LINEAR)
        mask = (cv2.resize(mask, (self.side, self.side), interpolation=cv2.INTER_NEAREST) > 127).astype(np.uint8)
        if self.transform is not None:
            image, mask = self.transform(image, mask)
        normalised = (image.astype(np.float32) / 255.0 - MEAN) / STD
        return torch.from_numpy(normalised.transpose(2, 0, 1).copy()), torch.from_numpy(mask[None].astype(np.float32))


def albumentations_light() -> Any | None:
    """The policy `light` in albumentations' own words, or None where it is not installed."""
    try:
        import albumentations as A
    except ModuleNotFoundError:
        return None
    compose = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.Affine(
                scale=(0.8, 1.2), rotate=(-15, 15), translate_percent=(-0.0625, 0.0625),
                border_mode=cv2.BORDER_REFLECT_101, p=0.5,
            ),
            A.RandomBrightnessContrast(brightness_limit=0.2, contrast_limit=0.2, p=0.5),
        ]
    )  # fmt: skip

    def transform(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        result = compose(image=image, mask=mask)
        return result["image"], result["mask"]

    return transform


def own_light() -> Any:
    """The policy `light` of this project, sample by sample, for where albumentations is not installed."""
    augmentation, count = build_augmentation(plain_config().augment), itertools.count()

    def transform(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seeds = mixed_seeds(0, 0, [next(count)])
        images, masks = np.empty((1, *image.shape), np.uint8), np.empty((1, *mask.shape), np.uint8)
        augmentation.apply(augmentation.plan(mask.shape, seeds), seeds, [image], [mask], images, masks)
        return images[0], masks[0]

    return transform


class HomeworkLoop:
    """Model, AdamW at 1e-4, BCE + Dice, and an endless loader."""

    def __init__(
        self, model: nn.Module, pairs: list[tuple[Path, Path]], *, side: int, batch_size: int, num_workers: int,
        device: torch.device, transform: Any,
    ) -> None:  # fmt: skip
        self.model = model.to(device).to(memory_format=torch.contiguous_format)
        self.device = device
        self.loader = DataLoader(
            FileDataset(pairs, side, transform), batch_size, shuffle=True, drop_last=True, num_workers=num_workers
        )
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
        self.bce = nn.BCEWithLogitsLoss()
        self.batches = self._endless()
        self.losses: list[float] = []
        self.ious: list[float] = []

    def step(self) -> int:
        """One step of the notebook; returns how many images it took."""
        images, masks = next(self.batches)
        images, masks = images.to(self.device), masks.to(self.device)
        self.optimizer.zero_grad()
        logits = self._logits(images)
        probs = torch.sigmoid(logits)
        intersection = (probs * masks).sum()
        dice = 1 - (2 * intersection + 1) / (probs.sum() + masks.sum() + 1)
        loss = self.bce(logits, masks) + dice
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.item())
        preds = (torch.sigmoid(logits) > THRESHOLD).float()
        both = (preds * masks).sum((1, 2, 3))
        union = (preds + masks - preds * masks).sum((1, 2, 3))
        self.ious.append(((both + 1e-6) / (union + 1e-6)).mean().item())
        return len(images)

    def _logits(self, images: Tensor) -> Tensor:
        """The model without its own normalisation, which the data set has done here."""
        model: Any = self.model
        logits: Tensor = model.segmentation_head(model.dropout(model.decoder(model.encoder(images))))
        return logits

    def _endless(self) -> Any:
        self.model.train()
        while True:
            yield from self.loader
