import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from data_folders import disk, picture, save, write_flat, write_split

from segcore.config import DataConfig
from segcore.data.pairs.discovery import discover
from segcore.data.pixels import cache as cache_module
from segcore.data.pixels.cache import build_cache, cache_path
from segcore.data.pixels.cache_file import open_cache
from segcore.data.pixels.decode import read_image, read_mask
from segcore.errors import DataError

SLOW_BUILD = """
import sys, time
from segcore.config import DataConfig
from segcore.data.pixels.cache import build_cache
from segcore.data.pairs.discovery import discover

config = DataConfig(root=sys.argv[1], cache_dir=sys.argv[2], image_size=32)

def progress(done, total):
    print(done, flush=True)
    time.sleep(float(sys.argv[3]))

print("built", build_cache(discover(config), config, progress), flush=True)
"""


def settings(root: Path, **more: object) -> DataConfig:
    return DataConfig(**{"root": str(root), "cache_dir": str(root.parent / "cache"), "image_size": 32, **more})


def build(config: DataConfig) -> Path:
    return build_cache(discover(config), config)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_split(tmp_path / "my data", {"train": 3, "val": 2})


def leftovers(root: Path) -> list[Path]:
    return list((root.parent / "cache").glob(".*.tmp"))


def test_the_cache_holds_what_decoding_gives(root: Path) -> None:
    config = settings(root, image_size=[24, 32])
    index = discover(config)
    steps: list[tuple[int, int]] = []
    path = build_cache(index, config, lambda done, total: steps.append((done, total)))
    assert steps == [(i, 10) for i in range(1, 11)]
    assert path.parent == root.parent / "cache"
    assert path.name.startswith("my_data-24x32-")
    with open_cache(path) as cache:
        assert len(cache) == 10
        assert cache.hw == (24, 32)
        assert cache.path == path
        assert cache.names == [sample.name for sample in index.samples]
        assert cache.class_names == [sample.class_name for sample in index.samples]
        assert cache.groups == cache.names
        assert cache.indices("train") == list(range(6))
        assert cache.indices("val") == list(range(6, 10))
        assert cache.indices("test") == []
        assert cache.warnings == ()
        assert cache.original_hw.tolist() == [[32, 40]] * 10
        for i, sample in enumerate(index.samples):
            np.testing.assert_array_equal(cache.image(i), read_image(sample.image, (24, 32)))
            np.testing.assert_array_equal(cache.mask(i), read_mask(sample.mask, cache.mask_rule, (24, 32)))
        with pytest.raises(IndexError, match="sample 10 of 10"):
            cache.image(10)


def test_views_are_of_the_mapped_file_and_read_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_BATCH_BYTES", 3 * 32 * 32 * 4)  # several batches
    with open_cache(build(settings(root))) as cache:
        allocated = pa.total_allocated_bytes()
        images = [cache.image(i) for i in range(10)]
        masks = [cache.mask(i) for i in range(10)]
        assert pa.total_allocated_bytes() == allocated
        assert not any(array.flags.writeable or array.flags.owndata for array in images + masks)
        with pytest.raises(ValueError, match="read-only"):
            images[0][0, 0, 0] = 1
        maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(".arrow")]
        spans = [tuple(int(edge, 16) for edge in line[0].split("-")) for line in maps]
        for array in images + masks:
            address = array.__array_interface__["data"][0]
            assert any(low <= address < high for low, high in spans)
        before = images[9].copy()
    np.testing.assert_array_equal(images[9], before)  # views outlive `close`


def test_a_second_build_returns_at_once(root: Path) -> None:
    config = settings(root)
    path = build(config)
    stamp = path.stat().st_mtime_ns
    assert build_cache(discover(config), config, lambda done, total: pytest.fail("decoded again")) == path
    assert path.stat().st_mtime_ns == stamp


def test_it_pickles_as_its_path(root: Path) -> None:
    with open_cache(build(settings(root))) as cache:
        data = pickle.dumps(cache)
        assert len(data) < 500
        again = pickle.loads(data)
        np.testing.assert_array_equal(again.image(3), cache.image(3))


def change_pixels(root: Path) -> None:
    save(root / "train/images/a/001.jpg", picture(99))


def change_mask_keeping_size_and_time(root: Path) -> None:
    path = root / "train/gt/a/001.png"
    stat = path.stat()
    data = bytearray(path.read_bytes())
    # Another mask of the same file size: a text chunk fills what is missing.
    save(path, disk(radius=8) * 255)
    smaller = path.read_bytes()
    if len(smaller) < len(data):
        path.write_bytes(smaller + bytes(len(data) - len(smaller)))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_mtime_ns == stat.st_mtime_ns


def add_pair(root: Path) -> None:
    save(root / "train/images/a/new.jpg", picture(50))
    save(root / "train/gt/a/new.png", disk() * 255)


def remove_pair(root: Path) -> None:
    (root / "train/images/a/001.jpg").unlink()
    (root / "train/gt/a/001.png").unlink()


def move_to_val(root: Path) -> None:
    (root / "train/images/a/001.jpg").rename(root / "val/images/a/moved.jpg")
    (root / "train/gt/a/001.png").rename(root / "val/gt/a/moved.png")


CHANGES = [change_pixels, change_mask_keeping_size_and_time, add_pair, remove_pair, move_to_val]


@pytest.mark.parametrize("change", CHANGES, ids=[change.__name__ for change in CHANGES])
def test_a_change_of_the_data_rebuilds(root: Path, change: object) -> None:
    config = settings(root)
    before = build(config)
    with open_cache(before) as cache:
        fingerprint = cache.fingerprint
    time.sleep(0.02)  # the file system's clock ticks in steps
    change(root)  # type: ignore[operator]
    after = build(config)
    assert after != before
    assert before.exists()
    with open_cache(after) as cache:
        assert cache.fingerprint != fingerprint


def test_another_image_size_is_another_cache_and_touching_changes_no_fingerprint(root: Path) -> None:
    first = build(settings(root))
    assert build(settings(root, image_size=16)) != first
    os.utime(root / "train/images/a/001.jpg")
    touched = build(settings(root))
    assert touched != first
    with open_cache(first) as one, open_cache(touched) as two:
        assert one.fingerprint == two.fingerprint


def test_the_fingerprint_is_of_pixels_not_of_names_and_places(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(root, copy)
    (copy / "train/images/a/001.jpg").rename(copy / "train/images/a/zzz.jpg")
    (copy / "train/gt/a/001.png").rename(copy / "train/gt/a/zzz.png")
    with open_cache(build(settings(root))) as one, open_cache(build(settings(copy))) as two:
        assert one.fingerprint == two.fingerprint
        assert len(one.fingerprint) == 64
        assert one.names != two.names


def run_slow_build(root: Path, pause_s: float) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", SLOW_BUILD, str(root), str(root.parent / "cache"), str(pause_s)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_killed_build_leaves_nothing_that_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = run_slow_build(root, pause_s=0.5)
    assert process.stdout is not None
    for _ in range(4):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(leftovers(root)) == 1
    config = settings(root)
    assert not cache_path(discover(config), config).exists()
    with open_cache(build(config)) as cache:
        assert len(cache) == 10
    assert leftovers(root) == []


@pytest.mark.slow
def test_another_data_sets_build_removes_a_dead_ones_leftovers_but_not_a_living_ones(root: Path) -> None:
    living = run_slow_build(root, pause_s=0.3)
    assert living.stdout is not None
    living.stdout.readline()
    assert len(leftovers(root)) == 1
    build(settings(write_flat(root.parent / "second", 3)))
    assert len(leftovers(root)) == 1
    living.kill()
    living.wait()
    living.stdout.close()
    build(settings(write_flat(root.parent / "third", 3)))
    assert leftovers(root) == []


@pytest.mark.slow
def test_two_processes_build_once(root: Path) -> None:
    processes = [run_slow_build(root, pause_s=0.1) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert sorted(len(lines) for lines in outputs) == [1, 11]  # one counted ten samples, both have the path
    assert outputs[0][-1] == outputs[1][-1]
    assert len(list((root.parent / "cache").glob("*.arrow"))) == 1


@pytest.mark.parametrize("keep", [0, 100, 0.5, -1])
def test_a_damaged_cache_is_refused_and_built_again(root: Path, keep: float) -> None:
    config = settings(root)
    path = build(config)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match=r"\.arrow: not a whole cache .*; delete it and build it again"):
        open_cache(path)
    assert build(config) == path
    assert path.read_bytes() == data


def test_other_files_are_no_caches(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.arrow: no such cache"):
        open_cache(tmp_path / "none.arrow")
    schema = pa.schema([("x", pa.int32())])
    for name, batches in (("empty.arrow", 0), ("alien.arrow", 1)):
        with pa.ipc.new_file(str(tmp_path / name), schema) as writer:
            for _ in range(batches):
                writer.write_batch(pa.RecordBatch.from_pylist([{"x": 1}], schema=schema))
        with pytest.raises(DataError, match=rf"{name[:-6]}\.arrow: not a whole cache"):
            open_cache(tmp_path / name)


def test_too_little_room_is_told_before_the_work(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"no room for the decoded images: .*cache needs 0\.00 GB .*data\.cache_dir"):
        build(settings(root))
    assert leftovers(root) == []


def test_a_disk_that_fills_up_in_the_middle_leaves_no_half_file(root: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    arguments = [sys.executable, "-c", limit + SLOW_BUILD, str(root), str(root.parent / "cache"), "0"]
    process = subprocess.run(arguments, capture_output=True, text=True)
    assert "DataError: no room for the decoded images" in process.stderr
    assert "built" not in process.stdout
    assert leftovers(root) == []
    assert list((root.parent / "cache").glob("*.arrow")) == []


def test_a_cache_folder_that_cannot_be_made(root: Path) -> None:
    (root.parent / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the cache .*/file/.*; set data\.cache_dir to another folder"):
        build(settings(root, cache_dir=str(root.parent / "file")))


def resident_anonymous_bytes() -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) * 1024


@pytest.mark.slow
def test_building_and_reading_need_little_of_the_files_size_in_memory(tmp_path: Path) -> None:
    config = settings(write_flat(tmp_path / "data", 60), image_size=1024)  # 60 x 4 MiB
    index = discover(config)
    before, most = resident_anonymous_bytes(), 0

    def progress(done: int, total: int) -> None:
        nonlocal most
        most = max(most, resident_anonymous_bytes() - before)

    path = build_cache(index, config, progress)
    assert path.stat().st_size > 240 * 1024**2
    assert most < 130 * 1024**2
    before = resident_anonymous_bytes()
    with open_cache(path) as cache:
        assert sum(int(cache.image(i)[0, 0, 0]) for i in range(len(cache))) >= 0
        assert resident_anonymous_bytes() - before < 8 * 1024**2


@pytest.mark.shared
def test_real_images(horses_dir: Path, tmp_path: Path) -> None:
    config = DataConfig(root=str(horses_dir), cache_dir=str(tmp_path), image_size=48)
    with open_cache(build(config)) as cache:
        assert len(cache) == 319
        assert cache.warnings == ()
        assert 0.2 < np.mean([cache.mask(i).mean() for i in range(319)]) < 0.3
