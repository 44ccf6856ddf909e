"""The way from a file to a mask, against the same done by hand with PIL, numpy and the bare model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

from segcore.config import ModelConfig
from segcore.data.pixels.decode import UnreadableFileError, read_image, resize_image
from segcore.models.build import build_model
from segcore.sealed.predictor import Predictor, forward
from segcore.task import BINARY

CPU = torch.device("cpu")
HW = (32, 48)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_model(ModelConfig(base_channels=2, depth=2)).eval()


@pytest.fixture
def predictor(model: nn.Module) -> Predictor:
    return Predictor(model, BINARY, HW, CPU)


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    """Something with structure at several scales."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.normal(0, 20, (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


def save_turned(path: Path) -> None:
    """EXIF orientation 6: stored as 70 x 50, shown as 50 x 70 (width x height)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(50, 70).save(path, exif=exif, quality=95)


FILES = {
    "larger.png": lambda path: photo(70, 101).save(path),
    "smaller.jpg": lambda path: photo(20, 17).save(path),
    "exact.png": lambda path: photo(*HW).save(path),
    "turned.jpg": save_turned,
    "grey.png": lambda path: photo(40, 60).convert("L").save(path),
    "palette.png": lambda path: photo(40, 60).quantize(16).save(path),
    "transparent.png": lambda path: photo(40, 60).convert("RGBA").save(path),
}


def by_hand(model: nn.Module, path: Path, *, original_size: bool) -> np.ndarray:
    """Probabilities `(H, W)`; every step but the model is PIL's or numpy's."""
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    small = np.asarray(image.resize(HW[::-1], Image.Resampling.BILINEAR))
    with torch.inference_mode():
        logits = model(torch.from_numpy(small.transpose(2, 0, 1).copy())[None].float())[0, 0].double().numpy()
    probs = (1 / (1 + np.exp(-logits))).astype(np.float32)
    if original_size:
        probs = np.asarray(Image.fromarray(probs).resize(image.size, Image.Resampling.BILINEAR))
    return probs


@pytest.mark.parametrize("original_size", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_what_its_pieces_give_by_hand(
    predictor: Predictor, model: nn.Module, tmp_path: Path, name: str, original_size: bool
) -> None:
    path = tmp_path / name
    FILES[name](path)
    probs = predictor.probs_of_file(path, original_size=original_size)
    expected = by_hand(model, path, original_size=original_size)
    assert (probs.shape, probs.dtype) == ((1, *expected.shape), np.float32)
    assert np.abs(probs[0] - expected).max() < 1e-6
    threshold = float(np.median(expected)) + 1e-5
    mask = predictor.mask_of_file(path, threshold, original_size=original_size)
    is_clear = np.abs(expected - threshold) > 1e-6
    assert is_clear.mean() > 0.95
    assert np.array_equal(mask[is_clear], (expected >= threshold)[is_clear])
    assert set(np.unique(mask)) == {0, 1}


def test_an_array_gives_what_its_file_gives(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "larger.png"
    FILES["larger.png"](path)
    for original_size in (False, True):
        from_array = predictor.probs(np.asarray(Image.open(path)), original_size=original_size)
        assert np.array_equal(from_array, predictor.probs_of_file(path, original_size=original_size))


@pytest.mark.parametrize("name", FILES)
def test_a_decoded_image_is_resized_to_the_bytes_that_reading_at_that_size_gives(tmp_path: Path, name: str) -> None:
    """So the samples of the cache, which were read at that size, are what the model sees of a file."""
    FILES[name](tmp_path / name)
    resized = resize_image(read_image(tmp_path / name), HW)
    assert np.array_equal(resized, read_image(tmp_path / name, HW))


def test_a_batch_of_the_cache_gives_the_logits_behind_the_probabilities(predictor: Predictor) -> None:
    images = np.stack([np.asarray(photo(*HW, seed=seed)) for seed in range(2)])
    with torch.inference_mode():
        logits = predictor.logits(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert (logits.shape, logits.dtype) == ((2, 1, *HW), torch.float32)
    for image, own in zip(images, logits, strict=True):
        assert np.abs(predictor.probs(image) - own.sigmoid().numpy()).max() < 1e-6


def test_an_image_as_it_is_is_not_resized(predictor: Predictor) -> None:
    assert predictor.probs_as_it_is(np.asarray(photo(33, 21))).shape == (1, 33, 21)


def test_precision_is_that_of_the_forward_pass_and_logits_are_float32(model: nn.Module) -> None:
    images = torch.from_numpy(np.asarray(photo(*HW)).copy()).permute(2, 0, 1)[None]
    with torch.inference_mode():
        exact, coarse = forward(model, images), forward(model, images, torch.bfloat16)
    assert exact.dtype == coarse.dtype == torch.float32
    assert 0 < float((exact - coarse).abs().max()) < 0.1


def test_weights_that_are_nan_give_nan_and_no_foreground(model: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "exact.png"
    FILES["exact.png"](path)

    class Broken(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, :1].float() * float("nan")

    predictor = Predictor(Broken(), BINARY, HW, CPU)
    assert np.isnan(predictor.probs_of_file(path)).all()
    assert predictor.mask_of_file(path, 0.0).max() == 0


def test_a_file_that_is_no_image_is_told(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no image")
    with pytest.raises(UnreadableFileError, match=r"notes\.png: not an image file"):
        predictor.probs_of_file(tmp_path / "notes.png")
