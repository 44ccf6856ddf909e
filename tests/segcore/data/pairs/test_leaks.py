import io
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_folders import disk, save
from PIL import Image

from segcore.config import DataConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pairs.leaks import leak_counts, leak_warnings
from segcore.data.pairs.likeness import (
    Leak,
    find_leaks,
    group_alike,
    likeness_of,
)
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import open_cache

HW = (72, 96)


def photo(seed: int) -> np.ndarray:
    """Blobs of all sizes, the larger the stronger, as in photos, `(72, 96, 3) uint8`; no two seeds are alike."""
    rng = np.random.default_rng(seed)
    total = np.full((*HW, 3), 128.0)
    for cells in (3, 6, 12, 24, 48):
        coarse = rng.normal(0, 150 / cells, (cells, cells, 3)).astype(np.float32)
        total += cv2.resize(coarse, HW[::-1], interpolation=cv2.INTER_CUBIC)
    return total.clip(0, 255).astype(np.uint8)


def recompressed(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.array(Image.open(file))


def resized(image: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    return np.array(Image.fromarray(image).resize(hw[::-1], Image.Resampling.BILINEAR))


EDITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "compressed": lambda image: recompressed(image, 30),
    "half the size": lambda image: resized(resized(image, (36, 48)), HW),
    "another aspect": lambda image: resized(image, (96, 96)),
    "brighter": lambda image: np.clip(image * 1.15 + 12, 0, 255).astype(np.uint8),
    "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), 1.5),
    "noisy": lambda image: (image + np.random.default_rng(0).normal(0, 10, image.shape)).clip(0, 255).astype(np.uint8),
    "cropped by 2 %": lambda image: resized(image[1:-1, 2:-2], HW),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_copy_is_found_among_others(edit: str) -> None:
    images = [photo(seed) for seed in range(40)]
    copies = [EDITS[edit](images[i]) for i in (3, 17, 31)]
    splits = ["train"] * 40 + ["val"] * 3
    found = find_leaks([likeness_of(image) for image in [*images, *copies]], splits)
    assert found == [Leak(40 + n, i, "nearly identical") for n, i in enumerate((3, 17, 31))]


def test_a_mirrored_copy_is_found_and_called_so() -> None:
    images = [photo(seed) for seed in range(20)]
    copies = [np.ascontiguousarray(images[4][:, ::-1]), recompressed(images[5][:, ::-1], 50), images[6]]
    likenesses = [likeness_of(image) for image in [*images, *copies]]
    digests = [image.tobytes() for image in [*images, *copies]]
    assert find_leaks(likenesses, ["train"] * 20 + ["test"] * 3, digests) == [
        Leak(20, 4, "mirrored"), Leak(21, 5, "mirrored"), Leak(22, 6, "identical"),
    ]  # fmt: skip


def test_different_pictures_are_not_alike() -> None:
    likenesses = [likeness_of(photo(seed)) for seed in range(400)]
    assert find_leaks(likenesses, ["train"] * 300 + ["val"] * 60 + ["test"] * 40) == []
    assert group_alike(likenesses, [str(i) for i in range(400)]) == [str(i) for i in range(400)]


def test_pictures_of_one_colour_are_alike_when_it_is_the_same() -> None:
    likenesses = [likeness_of(np.full((*HW, 3), level, np.uint8)) for level in (10, 200, 200)]
    assert find_leaks(likenesses, ["train", "train", "val"]) == [Leak(2, 1, "nearly identical")]


def test_each_image_is_told_once_for_each_earlier_split_with_its_nearest_twin() -> None:
    base = photo(0)
    images = [recompressed(base, 20), base, base, base]
    found = find_leaks([likeness_of(image) for image in images], ["train", "train", "val", "test"])
    assert [(leak.sample, leak.twin) for leak in found] == [(2, 1), (3, 1), (3, 2)]


def test_groups_grow_over_twins_and_keep_what_belonged_together() -> None:
    """0 and 3 are one picture, 3 and 4 one film, 5 is alone: 0, 1 (of the film of 0), 3 and 4 come together."""
    images = [photo(0), photo(1), photo(2), np.ascontiguousarray(photo(0)[:, ::-1]), photo(4), photo(5)]
    groups = group_alike([likeness_of(image) for image in images], ["b", "b", "x", "a", "a", "y"])
    assert groups == ["a", "a", "x", "a", "a", "y"]


def write(root: Path, pictures: dict[str, np.ndarray]) -> Path:
    for name, image in pictures.items():
        folder, _, stem = name.rpartition("/")
        masks = folder.replace("images", "gt") if folder else "gt"
        save(root / (folder or "images") / f"{stem}.png", image)
        save(root / masks / f"{stem}.png", disk(HW, 20) * 255)
    return root


def settings(root: Path, **more: object) -> DataConfig:
    return DataConfig(**{"root": str(root), "image_size": 64, "cache_dir": str(root.parent / "cache"), **more})


def test_twins_in_given_splits_are_told_before_training(tmp_path: Path) -> None:
    pictures = {f"train/images/{i}": photo(i) for i in range(8)} | {f"val/images/v{i}": photo(50 + i) for i in range(4)}
    pictures["val/images/v1"] = np.ascontiguousarray(photo(2)[:, ::-1])
    pictures["val/images/v2"] = photo(3)
    index = discover(config := settings(write(tmp_path / "data", pictures)))
    with open_cache(build_cache(index, config)) as cache:
        assert leak_warnings(cache, index) == [
            "2 of 4 val images are in train too (1 mirrored, 1 identical), so their scores flatter: v1 = 2, v2 = 3; "
            "the val split came with the data and is kept as it is: take these images out of one of the two"
        ]
        assert leak_counts(cache) == {"val in train": 2}
    grouped = settings(tmp_path / "data", group_duplicates=True, test_fraction=0.25)
    assert discover(grouped).counts() == {"train": 6, "val": 4, "test": 2}


def test_twins_stay_in_one_split_where_that_is_asked_for(tmp_path: Path) -> None:
    """Twenty pictures, each with an edited copy of another name; without grouping some are torn."""
    pictures = {f"a{i}": photo(i) for i in range(20)} | {f"b{i}": recompressed(photo(i), 60) for i in range(20)}
    root = write(tmp_path / "data", pictures)
    plain = discover(config := settings(root, test_fraction=0.2))
    with open_cache(build_cache(plain, config)) as cache:
        assert len(cache.leaks) > 5
        assert all("--set data.group_duplicates=true" in line for line in leak_warnings(cache, plain))
        assert all("nearly identical" in line for line in leak_warnings(cache, plain))
    index = discover(config := settings(root, test_fraction=0.2, group_duplicates=True))
    where = {sample.name: sample.split for sample in index.samples}
    assert all(where[f"a{i}"] == where[f"b{i}"] for i in range(20))
    assert index.counts() == {"train": 24, "val": 8, "test": 8}
    with open_cache(build_cache(index, config)) as cache:
        assert cache.leaks == ()
        assert leak_warnings(cache, index) == []
        assert leak_counts(cache) == {}


def test_a_file_that_cannot_be_read_is_left_for_the_cache_to_tell(tmp_path: Path) -> None:
    root = write(tmp_path / "data", {f"{i}": photo(i) for i in range(6)})
    (root / "images" / "3.png").write_bytes(b"no image")
    assert len(discover(settings(root, group_duplicates=True)).samples) == 6


def test_hashing_and_comparing_costs_well_under_a_second_a_thousand() -> None:
    image = photo(0)
    begin = time.process_time()
    likenesses = [likeness_of(image) for _ in range(100)]
    assert time.process_time() - begin < 0.5
    many = [likeness_of(photo(seed)) for seed in range(50)] * 40
    assert len(likenesses) == 100
    begin = time.process_time()
    find_leaks(many[:1000], ["train"] * 999 + ["val"])
    assert time.process_time() - begin < 1.0


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("name", ["horses", "nuclei"])
def test_real_images_raise_no_false_alarm(name: str, shared_dir: Path, tmp_path: Path) -> None:
    """The only twins in either are two of the training images, so no two splits share a picture."""
    root = shared_dir / "data" / name
    config = DataConfig(root=str(root), image_size=96, cache_dir=str(tmp_path))
    with open_cache(build_cache(discover(config), config)) as cache:
        assert cache.leaks == ()
        likenesses = [likeness_of(cache.image(i)) for i in range(len(cache))]
    groups = group_alike(likenesses, [str(i) for i in range(len(likenesses))])
    assert len(groups) - len(set(groups)) == 1
