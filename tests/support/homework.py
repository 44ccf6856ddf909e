"""The loop that people write first, as the notebook that this project began with has it: the baseline of `bench step`.

JPEG and PNG are decoded, resized and augmented sample by sample in `__getitem__`; normalisation is done there in
float32; the model trains in float32 and contiguous memory; `.item()` and an IoU are read in each step. With
albumentations installed it augments by that, else by this project's own transforms of the same policy.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader_bench import decode
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

THRESHOLD = 0.25
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


class FileDataset(Dataset[tuple[Tensor, Tensor]]):
    """Decodes, resizes, augments and normalises one sample at a time.

    Args:
        pairs: Image and mask files.
        side: Height and width of what it returns.
        transform: `(image, mask, count) -> (image, mask)` on uint8 arrays; None for nothing.
    """

    def __init__(self, pairs: list[tuple[Path, Path]], side: int, transform: Any = None) -> None:
        self.pairs = pairs
        self.side = side
        self.transform = transform
        self.count = 0

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """`(3, side, side) float32`, `(1, side, side) float32`."""
        image, mask = decode(*self.pairs[index], (self.side, self.side))
        if self.transform is not None:
            self.count += 1
            image, mask = self.transform(image, mask, self.count)
        normalised = (image.astype(np.float32) / 255.0 - MEAN) / STD
        return torch.from_numpy(normalised.transpose(2, 0, 1).copy()), torch.from_numpy(mask[None].astype(np.float32))


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
