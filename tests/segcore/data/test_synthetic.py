import multiprocessing
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segcore.config import DataConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import open_cache
from segcore.data.synthetic import draw_sample, ensure_synthetic
from segcore.errors import DataError


def settings(folder: Path, num_images: int = 24, noise: float = 0.25, **more: object) -> DataConfig:
    synthetic = {"num_images": num_images, "noise": noise}
    return DataConfig(**{"root": "synthetic", "cache_dir": str(folder), "image_size": 32, **more}, synthetic=synthetic)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}


def test_it_is_found_like_any_data_set(tmp_path: Path) -> None:
    index = discover(settings(tmp_path))
    assert index.layout == "split_folders"
    assert index.counts() == {"train": 16, "val": 4, "test": 4}
    assert index.warnings == ()
    by_class = Counter((sample.split, sample.class_name) for sample in index.samples)
    assert by_class == {
        (split, name): number
        for split, number in (("train", 8), ("val", 2), ("test", 2))
        for name in ("disk", "polygon")
    }
    config = settings(tmp_path)
    with open_cache(build_cache(index, config)) as cache:
        assert cache.warnings == ()
        shares = [float(cache.mask(i).mean()) for i in range(len(cache))]
    assert min(shares) > 0.005
    assert max(shares) < 0.8
    sizes = {Image.open(sample.image).size for sample in index.samples}
    assert len(sizes) > 10
    assert all(64 <= side <= 128 for size in sizes for side in size)


@pytest.mark.parametrize("num_images", [8, 11, 12, 13, 50])
def test_every_number_of_images_gives_all_splits(tmp_path: Path, num_images: int) -> None:
    counts = discover(settings(tmp_path, num_images)).counts()
    assert sum(counts.values()) == num_images
    assert min(counts.values()) >= 1


def test_equal_settings_give_equal_files_and_others_other_folders(tmp_path: Path) -> None:
    one, two = ensure_synthetic(settings(tmp_path / "x")), ensure_synthetic(settings(tmp_path / "y"))
    assert one.name == two.name
    assert contents(one) == contents(two)
    assert len(contents(one)) == 49
    others = [
        ensure_synthetic(settings(tmp_path / "x", **change))
        for change in ({"num_images": 25}, {"noise": 0.5}, {"seed": 1})
    ]
    assert len({one, *others}) == 4
    larger = contents(others[0])
    assert {name: larger[name] for name in contents(one) if name != "SOURCE.txt"} == {
        name: data for name, data in contents(one).items() if name != "SOURCE.txt"
    }


def test_it_is_written_once(tmp_path: Path) -> None:
    folder = ensure_synthetic(settings(tmp_path))
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert ensure_synthetic(settings(tmp_path)) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == stamps


def test_a_half_written_folder_is_written_again(tmp_path: Path) -> None:
    whole = contents(ensure_synthetic(settings(tmp_path / "x")))
    name = ensure_synthetic(settings(tmp_path / "x")).name
    half = tmp_path / "y" / f".{name}.tmp" / "train/images/disk"
    half.mkdir(parents=True)
    (half / "99999.jpg").write_bytes(b"half")
    assert contents(ensure_synthetic(settings(tmp_path / "y"))) == whole
    assert not list((tmp_path / "y").glob(".*.tmp"))


@pytest.mark.slow
def test_processes_that_start_together_share_it(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = pool.map(ensure_synthetic, [settings(tmp_path)] * 2)
    assert folders[0] == folders[1]
    assert len(contents(folders[0])) == 49


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the synthetic data to .*; set data\.cache_dir"):
        ensure_synthetic(settings(tmp_path / "file"))


def test_no_single_colour_tells_the_answer_but_colour_helps() -> None:
    """The best threshold on red minus blue, chosen per image, must stay behind what a network reaches."""
    best = []
    for i in range(40):
        image, mask = draw_sample(np.random.default_rng((0, i)), "disk", noise=0.25)
        red_minus_blue = image[..., 0].astype(int) - image[..., 2]
        scores = []
        for threshold in range(-60, 120, 6):
            pred = red_minus_blue > threshold
            scores.append((pred & (mask == 1)).sum() / max(1, (pred | (mask == 1)).sum()))
        best.append(max(scores))
    assert 0.3 < float(np.mean(best)) < 0.8


def test_noise_is_as_asked() -> None:
    clean, noisy = (draw_sample(np.random.default_rng(5), "polygon", noise)[0].astype(float) for noise in (0.0, 0.4))
    assert abs((noisy - clean).std() / 255 - 0.2) < 0.04
