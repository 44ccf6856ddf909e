"""From an image to probabilities, in one place for validation, sealing, evaluate, predict, the gate and pictures.

The steps: decode, resize to the model's training size, forward pass (the model normalises), activation, and for the
image's own size resize the probabilities rather than the mask, which gives smoother edges. The task turns them into
labels. Samples of the decoded cache have passed the first two steps and start at `logits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from segcore.data.pixels.decode import read_image, resize_image
from segcore.task import ByteArray, Task

FloatArray = npt.NDArray[np.float32]


def forward(model: nn.Module, images: Tensor, precision: torch.dtype = torch.float32) -> Tensor:
    """The logits of a batch; the model's training or eval mode is not changed.

    Args:
        model: Takes bytes and normalises them itself.
        images: `(N, 3, H, W) uint8`, on the model's device.
        precision: dtype of autocast; float32 means none.

    Returns:
        Logits `(N, C, H, W) float32`.
    """
    with torch.autocast(images.device.type, dtype=precision, enabled=precision is not torch.float32):
        logits: Tensor = model(images)
    return logits.float()


@dataclass(frozen=True)
class Predictor:
    """A model that predicts.

    It processes one image at a time, so that a mask or a score does not depend on which images share a batch;
    validation during training calls `logits` with its batches.

    Attributes:
        model: From bytes to logits, in eval mode.
        task: What logits mean.
        hw: Height and width in pixels that the model was trained at; images are resized to it.
        device: The model's device.
        precision: dtype of autocast; float32 means none.
    """

    model: nn.Module
    task: Task
    hw: tuple[int, int]
    device: torch.device
    precision: torch.dtype = torch.float32

    def logits(self, images: Tensor) -> Tensor:
        """Logits `(N, C, H, W) float32` of a batch `(N, 3, H, W) uint8`, both on the model's device."""
        return forward(self.model, images, self.precision)

    @torch.inference_mode()
    def probs_as_it_is(self, image: ByteArray) -> FloatArray:
        """Probabilities `(C, H, W) float32` in [0, 1] of one image `(H, W, 3) uint8` RGB, without resizing."""
        pixels = np.require(image, requirements=["C", "W"])  # torch warns of an array that cannot be written to
        batch = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).to(self.device)
        probs: FloatArray = self.task.probs(self.logits(batch))[0].cpu().numpy()
        return probs

    def probs(self, image: ByteArray, *, original_size: bool = False) -> FloatArray:
        """Probabilities of one image, which is resized to the model's training size.

        Args:
            image: `(H, W, 3) uint8` RGB of any size.
            original_size: Whether the result has the image's own size; else it has `hw`.

        Returns:
            `(C, H, W) float32` in [0, 1].
        """
        probs = self.probs_as_it_is(resize_image(image, self.hw))
        height, width = image.shape[:2]
        if not original_size or (height, width) == self.hw:
            return probs
        planes = (Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR) for plane in probs)
        return np.stack([np.asarray(plane) for plane in planes])

    def probs_of_file(self, path: Path, *, original_size: bool = False) -> FloatArray:
        """`probs` of an image file.

        Raises:
            UnreadableFileError: The file cannot be opened or decoded.
        """
        return self.probs(read_image(path), original_size=original_size)

    def mask_of_file(self, path: Path, threshold: float, *, original_size: bool = False) -> ByteArray:
        """The mask of an image file, `(H, W) uint8` of the task's labels.

        Args:
            path: The image file.
            threshold: In [0, 1].
            original_size: Whether the mask has the image's own size; else it has `hw`.

        Raises:
            UnreadableFileError: The file cannot be opened or decoded.
        """
        return self.task.decide(self.probs_of_file(path, original_size=original_size), threshold)
