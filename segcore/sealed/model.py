"""A trained model for use in programs: an image in, a mask out."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from segcore.config import TrainConfig
from segcore.data.pixels.decode import read_image, to_rgb
from segcore.errors import BundleError, DataError
from segcore.sealed.bundle import load_bundle, write_bundle
from segcore.sealed.card import CARD_FILE, Card
from segcore.sealed.predictor import FloatArray, Predictor
from segcore.task import ByteArray

BUNDLE_OF_A_RUN = "best"
"""Name of the sealed model's folder in a run's folder."""

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray
"""An image file, a Pillow image, or pixels `(H, W, 3) uint8` RGB or `(H, W) uint8` grey."""


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        predictor: Maps images to probabilities.
        threshold: Probability from which a pixel is foreground, in [0, 1].
        config: The training's config.
        card: What is known about it: scores, data, versions; nearly empty for a model that was not sealed.
    """

    predictor: Predictor
    threshold: float
    config: TrainConfig
    card: Card

    def predict(self, image: ImageLike, *, original_size: bool = True) -> ByteArray:
        """The mask of one image.

        Args:
            image: A file, a Pillow image, or pixels.
            original_size: Whether the mask has the image's own size; else the size that the model was trained at.

        Returns:
            `(H, W) uint8`: 1 in the foreground, 0 elsewhere.

        Raises:
            DataError: The image cannot be read, or the pixels have another shape or type.
        """
        probs = self.predict_probs(image, original_size=original_size)
        return self.predictor.task.decide(probs, self.threshold)

    def predict_probs(self, image: ImageLike, *, original_size: bool = True) -> FloatArray:
        """Probabilities of one image, `(C, H, W) float32` in [0, 1]; the arguments are those of `predict`."""
        return self.predictor.probs(_pixels(image), original_size=original_size)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model as a bundle for `load_model` and every command, replacing an existing one."""
        weights = {name: value.detach().cpu().contiguous() for name, value in self.predictor.model.state_dict().items()}
        write_bundle(Path(folder), weights, self.config, self.card)


def load_model(path: str | os.PathLike[str], *, device: torch.device | None = None) -> Model:
    """Load a sealed model after checking its hashes.

    Args:
        path: The folder of a bundle, or of a run, whose best model is loaded.
        device: The model's device; by default the GPU when there is one.

    Raises:
        BundleError: There is no model, a file is missing or altered, or the card does not describe the weights.
    """
    folder = Path(path)
    candidates = (folder, folder / BUNDLE_OF_A_RUN)
    found = next((candidate for candidate in candidates if (candidate / CARD_FILE).is_file()), None)
    if found is None:
        raise BundleError(f"{folder}: no model there, and none in its {BUNDLE_OF_A_RUN}/: looked for {CARD_FILE}")
    bundle = load_bundle(found, device)
    return Model(bundle.predictor, bundle.threshold, bundle.config, bundle.card)


def _pixels(image: ImageLike) -> ByteArray:
    """`(H, W, 3) uint8` RGB."""
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return np.array(to_rgb(ImageOps.exif_transpose(image), "the image"), dtype=np.uint8)
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise DataError(
            f"an image as an array must be uint8, (H, W, 3) in RGB or (H, W) in grey; found {pixels.dtype} "
            f"{tuple(pixels.shape)}"
        )
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels
