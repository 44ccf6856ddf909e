import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from search.cli import main
from search.errors import PredictionError
from search.stages.predicting import (
    evaluate_data,
    find_images,
    find_model,
    load_model,
    predict_images,
    require_writable,
)
from segcore.config import DataConfig, SyntheticConfig, TrainConfig
from segcore.data.synthetic import write_synthetic
from segcore.errors import BundleError, DataError
from segcore.models.build import build_model
from segcore.sealed.bundle import Bundle, write_bundle
from segcore.sealed.card import Card, Threshold

CONFIG = TrainConfig.model_validate({"data": {"image_size": 32}, "model": {"base_channels": 2, "depth": 2}})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated images: 8 train, 2 val, 2 test."""
    root = tmp_path_factory.mktemp("data")
    write_synthetic(root, SyntheticConfig(num_images=12), seed=1)
    return root


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """An untrained model at the threshold that divides its probabilities in half."""
    folder = tmp_path_factory.mktemp("models") / "best"
    torch.manual_seed(0)
    model = build_model(CONFIG.model)
    weights = {name: value.clone().contiguous() for name, value in model.state_dict().items()}
    image = np.asarray(Image.open(next(data.rglob("val/images/*/*.jpg"))).convert("RGB").resize((32, 32)))
    with torch.inference_mode():
        probs = model.eval()(torch.from_numpy(image.copy()).permute(2, 0, 1)[None]).sigmoid()
    write_bundle(folder, weights, CONFIG, Card(threshold=Threshold(value=float(probs.median()))))
    return folder


@pytest.fixture(scope="module")
def bundle(model_folder: Path) -> Bundle:
    return load_model(str(model_folder), Path("nowhere"))


def new_run(results: Path, model_folder: Path | None) -> None:
    folder = results / "birds"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": "done"}))
    if model_folder is not None:
        (folder / "best").symlink_to(model_folder)


def write_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10)).save(path)
    return path


def test_a_model_is_found_as_folder_as_run_and_as_run_folder(model_folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    new_run(results, model_folder)
    assert find_model(str(model_folder), results) == model_folder
    assert find_model("birds", results) == (results / "birds" / "best")
    assert find_model(str(results / "birds"), tmp_path) == (results / "birds" / "best")


def test_a_run_without_a_model_says_how_to_get_one(tmp_path: Path) -> None:
    new_run(tmp_path, None)
    with pytest.raises(
        BundleError, match="the run 'birds' has no sealed model yet; continue with: segsearch resume birds"
    ):
        find_model("birds", tmp_path)


def test_no_such_model(tmp_path: Path) -> None:
    match = r"no model 'birds': it is no folder with a card\.json, no run \(looked in .*\), and does not start with yan"
    with pytest.raises(BundleError, match=match):
        find_model("birds", tmp_path)


def test_images_of_a_folder_are_found_at_any_depth_and_in_order(tmp_path: Path) -> None:
    for name in ("b/x.png", "a/кот (1).JPG", "a/x.y.tif", "a/notes.txt"):
        write_image(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("no image")
    assert find_images([tmp_path]) == [
        ("a/x.y", tmp_path / "a" / "x.y.tif"),
        ("a/кот (1)", tmp_path / "a" / "кот (1).JPG"),
        ("b/x", tmp_path / "b" / "x.png"),
    ]


def test_hidden_files_are_no_images_of_a_folder(tmp_path: Path) -> None:
    """macOS leaves a `._x.jpg` beside each x.jpg on a foreign disk; it holds no picture."""
    write_image(tmp_path / "x.png")
    write_image(tmp_path / ".thumbnails" / "x.png")
    (tmp_path / "._x.png").write_bytes(b"\x00\x05\x16\x07")
    assert find_images([tmp_path]) == [("x", tmp_path / "x.png")]
    hidden = write_image(tmp_path / ".y.png")
    assert find_images([hidden]) == [(".y", hidden)]  # but named, it is meant


def test_files_are_taken_by_their_name(tmp_path: Path) -> None:
    one, two = write_image(tmp_path / "a" / "one.png"), write_image(tmp_path / "b" / "two.png")
    assert find_images([two, one]) == [("two", two), ("one", one)]


def test_what_is_wrong_with_the_images_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such image or folder: .*absent"):
        find_images([tmp_path / "absent"])
    with pytest.raises(DataError, match=r"holds no image \(looked for .*\.jpg, .*\.png"):
        find_images([tmp_path])
    one, two = write_image(tmp_path / "x.png"), write_image(tmp_path / "x.jpg")
    with pytest.raises(DataError, match=r"x\.png and .*x\.jpg would both be written as x\.png; predict them apart"):
        find_images([tmp_path])
    with pytest.raises(DataError, match="would both be written"):
        find_images([one, two])


@pytest.mark.parametrize("original_size", [True, False])
def test_a_mask_is_written_for_each_image(bundle: Bundle, data: Path, tmp_path: Path, original_size: bool) -> None:
    images = find_images([data / "val" / "images"])
    done: list[int] = []
    predict_images(bundle, images, tmp_path / "out", original_size=original_size, progress=done.append)
    assert done == [1, 2]
    written = sorted((tmp_path / "out").rglob("*"))
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written if path.is_file()] == sorted(
        f"{name}.png" for name, _ in images
    )
    for name, path in images:
        with Image.open(tmp_path / "out" / f"{name}.png") as mask, Image.open(path) as image:
            assert mask.mode == "L"
            assert mask.size == (image.size if original_size else (32, 32))
            assert np.array_equal(np.asarray(mask), bundle.predict_file(path, original_size=original_size))


def test_an_image_that_cannot_be_read_does_not_stop_the_others(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    good = next(data.rglob("val/images/*/*.jpg"))
    bad, text = tmp_path / "bad.jpg", tmp_path / "text.png"
    bad.write_bytes(good.read_bytes()[:200])
    text.write_text("no image")
    done: list[int] = []
    images = [("bad", bad), ("good", good), ("text", text), ("sub/good", good)]
    failures = predict_images(bundle, images, tmp_path / "out", original_size=True, progress=done.append)
    assert [failure.path for failure in failures] == [bad, text]
    assert failures[1].reason == "not an image file (it begins with 'no image')"
    assert str(bad) not in failures[0].reason
    assert done == [1, 2, 3, 4]
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.png")) == ["good.png", "good.png"]


def test_pages_that_are_not_predicted_are_told(
    bundle: Bundle, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Image.open(next(data.rglob("val/images/*/*.jpg"))) as good:
        good.save(tmp_path / "pages.tif", save_all=True, append_images=[good, good])
        good.save(tmp_path / "page.tif")
    images = [("pages", tmp_path / "pages.tif"), ("page", tmp_path / "page.tif")]
    assert predict_images(bundle, images, tmp_path / "out", original_size=True) == []
    expected = "1 of 2 images have several pages or frames, of which the first alone was predicted: "
    assert [record.getMessage() for record in caplog.records] == [expected + str(tmp_path / "pages.tif")]


def test_a_mask_that_cannot_be_written_does_not_stop_the_others(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    good = next(data.rglob("val/images/*/*.jpg"))
    (tmp_path / "out" / "taken.png").mkdir(parents=True)
    (tmp_path / "out" / "file").write_text("in the way")
    images = [("taken", good), ("file/x", good), ("free", good)]
    failures = predict_images(bundle, images, tmp_path / "out", original_size=True)
    assert [failure.reason.partition(":")[0] for failure in failures] == ["its mask cannot be written"] * 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["file", "free.png", "taken.png"]


def test_a_full_disk_ends_it_at_once(
    bundle: Bundle, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = next(data.rglob("val/images/*/*.jpg"))
    replace, calls = os.replace, []

    def full(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(PredictionError, match=r"out: No space left on device after 1 of 3 masks"):
        predict_images(bundle, [(name, good) for name in "abc"], tmp_path / "out", original_size=True)
    assert os.listdir(tmp_path / "out") == ["a.png"]  # noqa: PTH208


@pytest.mark.parametrize("below", ["file", "/proc/masks"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="masks cannot be written there: "):
        require_writable(tmp_path / below / "a" / "b")
    assert (tmp_path / "file").read_text() == "in the way"


def test_the_proof_that_a_folder_can_be_written_leaves_nothing(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    require_writable(tmp_path / "mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_the_command_names_what_failed_and_how_many(
    model_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = next(data.rglob("val/images/*/*.jpg"))
    (tmp_path / "in").mkdir()
    for name in "abc":
        (tmp_path / "in" / f"{name}.jpg").write_bytes(good.read_bytes())
    (tmp_path / "in" / "b [1].jpg").write_bytes(b"broken")
    result = CliRunner().invoke(main, ["predict", str(model_folder), "in", "-o", "out"])
    assert result.exit_code == 1, result.output
    assert "3 masks in out" in result.output
    assert (
        "error: 1 of 4 images have no mask\n  in/b [1].jpg: not an image file (it begins with 'broken')\n"
        in result.output
    )
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png", "c.png"]


def test_the_command_refuses_the_folder_before_it_loads_the_model(
    model_folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.stages.predicting.load_model", lambda *_: pytest.fail("the model was loaded"))
    (tmp_path / "file").write_text("in the way")
    arguments = ["predict", str(model_folder), str(data / "val" / "images"), "-o", str(tmp_path / "file" / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert "masks cannot be written there: Not a directory" in " ".join(result.output.split())


def independent_iou(mask: Path, written: Path) -> float:
    """PIL and numpy alone."""
    pred = np.asarray(Image.open(written)) > 127
    foreground = Image.fromarray((np.asarray(Image.open(mask)) > 127).astype(np.uint8))
    target = np.asarray(foreground.resize((32, 32), Image.Resampling.NEAREST)) == 1
    union = np.count_nonzero(pred | target)
    return np.count_nonzero(pred & target) / union if union else 1.0


def test_the_reported_score_is_that_of_the_written_masks(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    report = evaluate_data(bundle, DataConfig(root=str(data), image_size=32), "all").tree()
    assert (report["split"], report["num_images"], report["threshold"]) == ("all", 12, bundle.threshold)
    expected = {}
    for split in ("train", "val", "test"):
        images = find_images([data / split / "images"])
        predict_images(bundle, images, tmp_path / split, original_size=False)
        for name, _ in images:
            expected[name] = independent_iou(data / split / "gt" / f"{name}.png", tmp_path / split / f"{name}.png")
    assert {row["name"]: row["iou"] for row in report["images"]} == expected
    assert report["iou"] == pytest.approx(np.mean(list(expected.values())), abs=1e-12)
    assert len(set(expected.values())) > 6
    low, high = report["iou_interval"]
    assert low < report["iou"] < high
    assert set(report["by_class"]) == {"disk", "polygon"}
    assert {"precision", "recall", "boundary_iou", "ece", "size", "class"} <= set(report["images"][0])
    json.dumps(report, allow_nan=False)


def test_the_split_is_test_where_there_is_one(bundle: Bundle, data: Path) -> None:
    config = DataConfig(root=str(data))
    done: list[tuple[int, int]] = []
    report = evaluate_data(bundle, config, None, lambda now, total: done.append((now, total))).tree()
    assert (report["split"], report["num_images"]) == ("test", 2)
    assert done == [(1, 2), (2, 2)]
    assert evaluate_data(bundle, config, "val").scores.num_images == 2
    assert evaluate_data(bundle, config, "train").scores.num_images == 8


def test_data_without_splits_is_scored_as_a_whole(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(data / "train" / "images")
    (tmp_path / "masks").symlink_to(data / "train" / "gt")
    report = evaluate_data(bundle, DataConfig(root=str(tmp_path)), None).tree()
    assert (report["split"], report["num_images"]) == ("test", 8)


def test_masks_in_doubt_are_asked_about_and_the_option_settles_them(
    model_folder: Path, data: Path, tmp_path: Path
) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / "odd" / split).mkdir(parents=True)
        (tmp_path / "odd" / split / "images").symlink_to(data / split / "images")
        shutil.copytree(data / split / "gt", tmp_path / "odd" / split / "gt")
        for path in (tmp_path / "odd" / split / "gt").rglob("*.png"):
            mask = np.asarray(Image.open(path)) // 255
            Image.fromarray(np.where(np.arange(len(mask))[:, None] < 2, 255, mask).astype(np.uint8)).save(path)
    arguments = ["evaluate", str(model_folder), str(tmp_path / "odd"), "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert "12 masks with values up to 1 beside 255, which commonly marks" in result.output
    assert "here data.foreground is given as: --foreground VALUE" in result.output
    result = CliRunner().invoke(main, [*arguments, "--foreground", "1"])
    assert result.exit_code == 0, result.output
    assert "neither a whole number nor a colour" in CliRunner().invoke(main, [*arguments, "--foreground", "x"]).output


def test_an_empty_split_is_told_with_those_there_are(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).symlink_to(data / split)
    with pytest.raises(DataError, match=r"has no images in the split 'test'; it has train \(8\), val \(2\)"):
        evaluate_data(bundle, DataConfig(root=str(tmp_path)), "test")
    report = evaluate_data(bundle, DataConfig(root=str(tmp_path)), None).tree()
    assert (report["split"], report["num_images"]) == ("val", 2)
