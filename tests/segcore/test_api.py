"""`segcore.fit` and `segcore.load_model` in a program."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import segcore
from segcore.api import Epoch, Fitted
from segcore.config import SyntheticConfig
from segcore.data.synthetic import write_synthetic
from segcore.errors import BundleError, ConfigError, DataError

CONFIG = {
    "data": {"image_size": 32},
    "model": {"base_channels": 4, "depth": 2},
    "train": {"epochs": 3, "batch_size": 8},
    "optimizer": {"lr": 3e-3},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_synthetic(root, SyntheticConfig(num_images=20), seed=1)
    return root


@pytest.fixture(scope="module")
def fitted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    config = {**CONFIG, "data": {**CONFIG["data"], "cache_dir": str(tmp_path_factory.mktemp("cache"))}}
    return segcore.fit(config, data)


def test_fit_gives_all_epochs_and_the_model_of_the_best(fitted: Fitted) -> None:
    assert [epoch.number for epoch in fitted.epochs] == [1, 2, 3]
    values = [epoch.metrics["val/iou"] for epoch in fitted.epochs]
    assert fitted.best.metrics["val/iou"] == max(values)
    assert fitted.model.threshold == fitted.best.metrics["val/threshold"]


def test_the_model_scores_what_its_epoch_says(fitted: Fitted, data: Path) -> None:
    ious = []
    for path in sorted(data.glob("val/images/*/*.jpg")):
        pred = fitted.model.predict(path, original_size=False) == 1
        target = Image.open(next(data.glob(f"val/gt/*/{path.stem}.png"))).convert("L").resize((32, 32), 0)
        mask = np.asarray(target) > 127
        union = np.count_nonzero(pred | mask)
        ious.append(np.count_nonzero(pred & mask) / union if union else 1.0)
    assert np.mean(ious) == pytest.approx(fitted.best.metrics["val/iou"], abs=1e-6)


def test_fit_leaves_the_programs_random_numbers_alone(data: Path, tmp_path: Path) -> None:
    config = segcore.TrainConfig.model_validate({**CONFIG, "train": {"epochs": 1, "batch_size": 8}})
    config = config.model_copy(update={"data": config.data.model_copy(update={"cache_dir": str(tmp_path)})})
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    segcore.fit(config, data)
    assert torch.equal(torch.rand(3), expected)


def test_a_caller_hears_of_each_epoch_and_may_end_it(data: Path, tmp_path: Path) -> None:
    heard: list[int] = []

    def stop(epoch: Epoch) -> None:
        heard.append(epoch.number)
        if epoch.number == 2:
            raise StopAsyncIteration("enough")

    config = {**CONFIG, "data": {"image_size": 32, "cache_dir": str(tmp_path)}}
    with pytest.raises(StopAsyncIteration, match="enough"):
        segcore.fit(config, data, on_epoch=stop)
    assert heard == [1, 2]


def test_mistakes_are_exceptions_with_their_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.epochs: "):
        segcore.fit({"train": {"epochs": 0}})
    with pytest.raises(DataError, match="no images with masks found"):
        segcore.fit(CONFIG, tmp_path)


def test_a_saved_model_is_the_same_model(fitted: Fitted, tmp_path: Path) -> None:
    fitted.model.save(tmp_path / "my model")
    image = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    for folder in (tmp_path / "my model", str(tmp_path / "my model")):
        model = segcore.load_model(folder)
        assert np.array_equal(model.predict(image), fitted.model.predict(image))
    (tmp_path / "run").mkdir()
    os.replace(tmp_path / "my model", tmp_path / "run" / "best")
    assert np.array_equal(segcore.load_model(tmp_path / "run").predict(image), fitted.model.predict(image))


def test_no_model_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no model there, and none in its best/: looked for card\.json"):
        segcore.load_model(tmp_path)


def test_an_image_is_a_file_an_image_or_an_array(fitted: Fitted, tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(array).save(tmp_path / "x.png")
    mask = fitted.model.predict(array)
    assert mask.shape == (40, 60)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1}
    for image in (tmp_path / "x.png", str(tmp_path / "x.png"), Image.fromarray(array)):
        assert np.array_equal(fitted.model.predict(image), mask)
    grey = array[:, :, 0]
    assert np.array_equal(fitted.model.predict(grey), fitted.model.predict(Image.fromarray(grey)))
    assert fitted.model.predict_probs(array, original_size=False).shape == (1, 32, 32)


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)])
def test_pixels_of_another_kind_are_refused(fitted: Fitted, array: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"must be uint8, \(H, W, 3\) in RGB or \(H, W\) in grey; found"):
        fitted.model.predict(array)
