import copy
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from data_folders import write_split

from segcore.config import AugmentConfig, DataConfig
from segcore.data.augment.device import build_device_augmentation
from segcore.data.loader import Loader, build_loader
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import SampleCache, open_cache
from segcore.errors import DataError


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleCache]:
    folder = tmp_path_factory.mktemp("loader")
    root = write_split(folder / "data", {"train": 11, "val": 3}, classes=("a",))
    config = DataConfig(root=str(root), cache_dir=str(folder), image_size=[16, 32])
    with open_cache(build_cache(discover(config), config)) as cache:
        yield cache


def loader(cache: SampleCache, split: object = "train", **settings: object) -> Loader:
    defaults: dict[str, object] = {
        "batch_size": 4,
        "augment": None,
        "shuffle": False,
        "drop_last": False,
        "seed": 0,
        "num_workers": 0,
        "pin_memory": False,
    }
    return build_loader(cache, split, **{**defaults, **settings})  # type: ignore[arg-type]


def everything(source: Loader, epoch: int) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    source.set_epoch(epoch)
    return {
        int(index): (image, target)
        for batch in source
        for index, image, target in zip(batch.indices, batch.images, batch.targets, strict=True)
    }


def order(source: Loader, epoch: int) -> list[int]:
    source.set_epoch(epoch)
    return [int(index) for batch in source for index in batch.indices]


def test_batches_hold_the_caches_samples(cache: SampleCache) -> None:
    batches = list(loader(cache))
    assert [len(batch) for batch in batches] == [4, 4, 3]
    first = batches[0]
    assert (first.images.shape, first.images.dtype) == ((4, 3, 16, 32), torch.uint8)
    assert (first.targets.shape, first.targets.dtype) == ((4, 1, 16, 32), torch.uint8)
    assert first.indices.dtype == torch.int64
    assert first.images.is_contiguous(memory_format=torch.channels_last)
    for row, index in enumerate(first.indices.tolist()):
        np.testing.assert_array_equal(first.images[row].permute(1, 2, 0).numpy(), cache.image(index))
        np.testing.assert_array_equal(first.targets[row, 0].numpy(), cache.mask(index))


def test_a_batch_stays_as_it_is_when_the_next_is_made(cache: SampleCache) -> None:
    iterator = iter(loader(cache))
    first = next(iterator)
    kept = first.images.clone()
    next(iterator)
    assert torch.equal(first.images, kept)


def test_splits_and_chosen_samples(cache: SampleCache) -> None:
    assert order(loader(cache, "val"), 0) == [11, 12, 13]
    assert order(loader(cache, [5, 2, 9]), 0) == [5, 2, 9]
    with pytest.raises(DataError, match=r"no images in the split 'test'; the data set .* has \['train', 'val'\]"):
        loader(cache, "test")


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    ("batch_size", "drop_last", "sizes"),
    [(4, False, [4, 4, 3]), (4, True, [4, 4]), (11, True, [11]), (20, True, [11]), (20, False, [11])],
)
def test_lengths(cache: SampleCache, batch_size: int, drop_last: bool, sizes: list[int], num_workers: int) -> None:
    source = loader(cache, batch_size=batch_size, drop_last=drop_last, num_workers=num_workers)
    assert len(source) == len(sizes)
    assert source.num_samples == sum(sizes)
    assert [len(batch) for batch in source] == sizes
    source.close()


def test_the_order_follows_seed_and_epoch(cache: SampleCache) -> None:
    source = loader(cache, shuffle=True, seed=3)
    first = order(source, 0)
    assert sorted(first) == list(range(11))
    assert first != list(range(11))
    assert order(source, 1) != first
    assert order(source, 0) == first
    assert order(loader(cache, shuffle=True, seed=3, batch_size=2), 0) == first
    assert order(loader(cache, shuffle=True, seed=4), 0) != first


def test_without_shuffling_every_epoch_has_the_caches_order(cache: SampleCache) -> None:
    assert order(loader(cache), 5) == list(range(11))


@pytest.mark.parametrize("policy", ["flip", "medium"])
def test_a_samples_augmentation_is_a_function_of_seed_epoch_and_sample(cache: SampleCache, policy: str) -> None:
    augment = AugmentConfig(policy=policy)
    straight = loader(cache, augment=augment, shuffle=True)
    for epoch in range(3):
        last = everything(straight, epoch)
    # A run that starts at epoch 2, in other batches and another order, with two workers.
    resumed = loader(cache, augment=augment, shuffle=False, batch_size=3, num_workers=2)
    again = everything(resumed, 2)
    assert again.keys() == last.keys()
    for index, (image, target) in last.items():
        assert torch.equal(image, again[index][0])
        assert torch.equal(target, again[index][1])
    first = everything(resumed, 0)
    assert any(not torch.equal(first[index][0], again[index][0]) for index in first)
    other = everything(loader(cache, augment=augment, seed=1), 2)
    assert any(not torch.equal(other[index][0], again[index][0]) for index in other)
    resumed.close()


def test_workers_survive_epochs_and_give_the_same_batches(cache: SampleCache) -> None:
    settings: dict[str, object] = {"augment": AugmentConfig(policy="light"), "shuffle": True, "drop_last": True}
    here, there = loader(cache, **settings), loader(cache, num_workers=2, **settings)
    for epoch in range(3):
        here.set_epoch(epoch)
        there.set_epoch(epoch)
        for ours, theirs in zip(here, there, strict=True):
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(ours.targets, theirs.targets)
            assert torch.equal(ours.indices, theirs.indices)
            assert theirs.images.is_contiguous(memory_format=torch.channels_last)
    there.close()


def test_two_samples_of_equal_pixels_are_augmented_differently(cache: SampleCache) -> None:
    source = loader(cache, [0] * 4 + [1] * 4, augment=AugmentConfig(policy="light", probability=1.0), batch_size=8)
    (batch,) = source
    assert torch.equal(batch.images[0], batch.images[1])  # the same sample in the same epoch
    assert not torch.equal(batch.images[0], batch.images[4])


def test_the_global_generators_are_neither_used_nor_moved(cache: SampleCache) -> None:
    source = loader(cache, augment=AugmentConfig(policy="medium"), shuffle=True)
    np.random.seed(0)
    torch.manual_seed(0)
    numpy_before, torch_before = copy.deepcopy(np.random.get_state()[1]), torch.get_rng_state()
    first = everything(source, 0)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)
    assert torch.equal(torch.get_rng_state(), torch_before)
    np.random.seed(9)
    torch.manual_seed(9)
    second = everything(source, 0)
    assert all(torch.equal(first[index][0], second[index][0]) for index in first)


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("policy", ["flip", "light", "medium"])
def test_a_plan_leaves_the_samples_to_the_device(cache: SampleCache, policy: str, num_workers: int) -> None:
    augment = AugmentConfig(policy=policy)
    on_device = build_device_augmentation(augment)
    assert on_device is not None
    here = everything(loader(cache, augment=augment), 2)
    source = loader(cache, augment=augment, augment_on="device", shuffle=True, batch_size=5, num_workers=num_workers)
    source.set_epoch(2)
    for batch in source:
        assert batch.plan is not None
        assert batch.plan.shape[0] == len(batch)
        np.testing.assert_array_equal(batch.images[0].permute(1, 2, 0).numpy(), cache.image(int(batch.indices[0])))
        for index, image, target in zip(
            batch.indices, *on_device(batch.images, batch.targets, batch.plan), strict=True
        ):
            level = (image.int() - here[int(index)][0].int()).abs()
            assert (level > 1).float().mean() < 0.01
            assert (target != here[int(index)][1]).float().mean() < 0.01
    source.close()


@pytest.mark.parametrize("augment", [None, AugmentConfig(policy="none"), AugmentConfig(probability=0)], ids=str)
def test_nothing_to_do_has_no_plan(cache: SampleCache, augment: AugmentConfig | None) -> None:
    for batch in loader(cache, augment=augment, augment_on="device"):
        assert batch.plan is None
        np.testing.assert_array_equal(batch.images[0].permute(1, 2, 0).numpy(), cache.image(int(batch.indices[0])))


def test_what_a_device_cannot_do_stays_in_the_loader(cache: SampleCache) -> None:
    augment = AugmentConfig(policy="heavy")
    here = everything(loader(cache, augment=augment), 1)
    asked = loader(cache, augment=augment, augment_on="device")
    assert all(batch.plan is None for batch in asked)
    there = everything(asked, 1)
    assert all(torch.equal(here[index][0], there[index][0]) for index in here)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_wait_is_the_time_spent_in_getting_batches(cache: SampleCache, num_workers: int) -> None:
    source = loader(cache, augment=AugmentConfig(policy="light"), num_workers=num_workers)
    source.set_epoch(0)
    assert source.wait_s == 0
    started = time.perf_counter()
    for _ in source:
        time.sleep(0.05)
    assert 0 < source.wait_s <= time.perf_counter() - started - 0.15
    source.set_epoch(1)
    assert source.wait_s == 0
    source.close()


def test_workers_end_when_a_loader_is_closed_in_the_middle_of_an_epoch(cache: SampleCache) -> None:
    before = set(multiprocessing.active_children())
    source = loader(cache, num_workers=2, batch_size=1)
    iterator = iter(source)
    next(iterator)
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    source.close()
    for worker in workers:
        worker.join(10)
    assert not any(worker.is_alive() for worker in workers)
    assert next(iterator, None) is None
    source.close()  # twice is once


def test_reading_ahead_gives_the_same_batches_and_ends_its_thread(cache: SampleCache) -> None:
    """What a loader of pinned batches does, without the pinning."""
    settings: dict[str, object] = {"augment": AugmentConfig(policy="light"), "shuffle": True, "batch_size": 1}
    here, ahead = loader(cache, **settings), loader(cache, **settings)
    ahead._reads_ahead = True
    for epoch in range(2):
        here.set_epoch(epoch)
        ahead.set_epoch(epoch)
        for ours, theirs in zip(here, ahead, strict=True):
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(ours.indices, theirs.indices)
    next(iter(ahead))
    assert [thread for thread in threading.enumerate() if thread.name.startswith("loader")]
    ahead.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.mark.slow
def test_loading_needs_no_more_than_torch_numpy_pyarrow_and_opencv() -> None:
    code = (
        "import sys; import segcore.data.loader; "
        "print({'albumentations', 'pydantic', 'ray', 'filelock', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_pinned_batches(cache: SampleCache, num_workers: int) -> None:
    augment = AugmentConfig(policy="light")
    source = loader(cache, pin_memory=True, num_workers=num_workers, augment=augment, augment_on="device")
    for batch in source:
        assert batch.plan is not None
        assert batch.images.is_pinned()
        assert batch.targets.is_pinned()
        assert batch.plan.is_pinned()
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(batch.images.to("cuda", non_blocking=True).cpu(), batch.images)
    source.close()
