"""Batches from the decoded cache.

Order and augmentation depend only on the seed, the epoch and the sample, so a resumed run gets the same batches as an
uninterrupted one, with any number of workers.
"""

import itertools
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from segcore.data.augment.device import AugmentOn, is_done_on_device
from segcore.data.augment.plan import mixed_seeds
from segcore.data.augment.policy import Augmentation, build_augmentation
from segcore.data.loader_processes import BATCHES_AHEAD, LoaderProcesses, new_shared, processes_that_fit, shared
from segcore.data.pairs.samples import Split
from segcore.data.pixels.cache_file import SampleCache
from segcore.errors import DataError, SharedMemoryError

if TYPE_CHECKING:
    from segcore.config import AugmentConfig

BatchKey = tuple[int, tuple[int, ...]]  # epoch, sample indices

_PAGE = 4096


@dataclass
class Batch:
    """Some samples, ready for the model or, with a plan, for the device's augmentation.

    Attributes:
        images: `(N, 3, H, W) uint8` in channels_last memory.
        targets: `(N, 1, H, W) uint8` of 0 and 1.
        indices: `(N,) int64`, each sample's index in the cache.
        plan: `(N, K) float32`, augmentation that the device still has to apply (see `draw_plan`); None: none.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    plan: Tensor | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def pin_memory(self) -> "Batch":
        """Copy the tensors that go to a GPU into page-locked memory; called by torch's loader."""
        images = self.images.permute(0, 2, 3, 1).pin_memory().permute(0, 3, 1, 2)
        plan = None if self.plan is None else self.plan.pin_memory()
        return Batch(images, self.targets.pin_memory(), self.indices, plan)


class BatchDataset(Dataset[Batch]):
    """Assembles whole batches; an item's key is `(epoch, sample indices)`, so a worker needs no state."""

    def __init__(
        self,
        cache: SampleCache,
        augment: "AugmentConfig | None",
        seed: int,
        augment_on: AugmentOn = "loader",
        pin_memory: bool = False,
    ) -> None:
        self.cache = cache
        self.augment_config = augment
        self.seed = seed
        self.pins_memory = pin_memory
        self.plans_only = augment is not None and augment_on == "device" and is_done_on_device(augment)
        self._augmentation: Augmentation | None = None

    def __getitem__(self, key: BatchKey) -> Batch:
        """Assemble one batch."""
        epoch, indices = key
        height, width = self.cache.hw
        images = self._new((len(indices), height, width, 3))
        targets = self._new((len(indices), 1, height, width))
        rows, mask_rows = images.numpy(), targets.numpy()[:, 0]
        plan = None
        augmentation = self.augmentation()
        if augmentation is not None:
            seeds = mixed_seeds(self.seed, epoch, indices)
            drawn = augmentation.plan(self.cache.hw, seeds)
            if self.plans_only:
                plan = torch.from_numpy(drawn)
                plan = plan.pin_memory() if self.pins_memory else shared(plan)
        if augmentation is not None and plan is None:
            sources = [self.cache.image(index) for index in indices], [self.cache.mask(index) for index in indices]
            augmentation.apply(drawn, seeds, *sources, rows, mask_rows)
        else:
            for row, index in enumerate(indices):
                rows[row], mask_rows[row] = self.cache.image(index), self.cache.mask(index)
        # (N, H, W, 3) viewed as (N, 3, H, W) is channels_last without a copy.
        return Batch(images.permute(0, 3, 1, 2), targets, shared(torch.tensor(indices, dtype=torch.int64)), plan)

    def _new(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True) if self.pins_memory else new_shared(shape)

    def batch_bytes(self, batch_size: int) -> int:
        """What a batch takes in shared memory: each of its tensors begins a page of its own.

        A plan is counted as long as two pages for each 16 samples, more than any policy's.
        """
        height, width = self.cache.hw
        plan = 2 * _PAGE * (1 + batch_size // 16) if self.plans_only else 0
        return _pages(3 * height * width * batch_size) + _pages(height * width * batch_size) + _PAGE + plan

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_augmentation": None}

    def augmentation(self) -> Augmentation | None:
        """The samples' augmentation, built at the first call; None where there is none."""
        if self._augmentation is None and self.augment_config is not None and self.augment_config.policy != "none":
            self._augmentation = build_augmentation(self.augment_config)
        return self._augmentation


class Loader:
    """Iterable of `Batch` over one split; call `set_epoch` before each epoch, `close` at the end.

    Made by `build_loader`.

    Attributes:
        indices: The samples' indices in the cache.
        num_samples: Samples that one epoch yields.
        wait_s: Seconds since the last `set_epoch` that the consumer has spent waiting for batches or, without
            workers, assembling them.
    """

    def __init__(
        self,
        dataset: BatchDataset,
        indices: Sequence[int],
        *,
        batch_size: int,
        shuffle: bool,
        drop_last: bool,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        self.indices = tuple(indices)
        self.wait_s = 0.0
        self.dataset = dataset
        self.batch_size = batch_size
        self.is_shuffled = shuffle
        self._reads_ahead = pin_memory and num_workers == 0
        self._epoch = 0
        full, rest = divmod(len(self.indices), batch_size)
        self._num_batches = full if drop_last and full > 0 else full + (rest > 0)
        self.num_samples = min(len(self.indices), self._num_batches * batch_size)
        self._source: Generator[Batch] | None = None
        self._workers: LoaderProcesses[Batch] | None = None
        self._pins = pin_memory
        self._note: str | None = None
        num_workers = min(num_workers, self._num_batches)
        if num_workers > 0:
            batch_bytes = dataset.batch_bytes(min(batch_size, len(self.indices)))
            num_workers, self._note = processes_that_fit(num_workers, batch_bytes, self._num_batches)
            if num_workers > 0:
                self._workers = LoaderProcesses(dataset, self._Keys(self), num=num_workers, pin_memory=pin_memory)
            else:
                self._do_without_processes()

    class _Keys:
        """The keys of the loader's current epoch, as a sampler."""

        def __init__(self, loader: "Loader") -> None:
            self._loader = loader

        def __iter__(self) -> Iterator[BatchKey]:
            return self._loader._keys()

        def __len__(self) -> int:
            return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that decides order and augmentation of the next iteration (0 at first)."""
        self._epoch = epoch
        self.wait_s = 0.0

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        source = self._source = self._batches()
        while True:
            started = time.perf_counter()
            batch = next(source, None)
            self.wait_s += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def take_note(self) -> str | None:
        """What the user should know of the loader's processes; each thing is said once."""
        note, self._note = self._note, None
        return note

    def close(self) -> None:
        """Stop the worker processes and threads, if there are any, even in the middle of an epoch."""
        if self._source is not None:
            self._source.close()
            self._source = None
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _batches(self) -> Generator[Batch]:
        num_yielded = 0
        if self._workers is not None:
            try:
                for batch in self._workers.items():
                    yield batch
                    num_yielded += 1
                return
            except SharedMemoryError as error:
                self._note = f"{error}. From here on, batches are made in the training process"
                self._do_without_processes()
        keys = itertools.islice(self._keys(), num_yielded, None)
        if self._reads_ahead:
            yield from self._read_ahead(keys)
        else:
            for key in keys:
                yield self.dataset[key]

    def _do_without_processes(self) -> None:
        self._workers = None
        self._reads_ahead = self.dataset.pins_memory = self._pins

    def _read_ahead(self, keys: Iterator[BatchKey]) -> Generator[Batch]:
        """Yield batches that a thread assembles while the consumer uses the previous ones."""
        pending: deque[Future[Batch]] = deque()
        pool = ThreadPoolExecutor(1, thread_name_prefix="loader")
        try:
            for key in keys:
                pending.append(pool.submit(self.dataset.__getitem__, key))
                if len(pending) > BATCHES_AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _keys(self) -> Iterator[BatchKey]:
        order = np.asarray(self.indices, dtype=np.int64)
        if self.is_shuffled:
            order = np.random.default_rng((self.dataset.seed, self._epoch)).permutation(order)
        for first in range(0, self.num_samples, self.batch_size):
            yield self._epoch, tuple(order[first : first + self.batch_size].tolist())


def _pages(num_bytes: int) -> int:
    return -(-num_bytes // _PAGE) * _PAGE


def build_loader(
    cache: SampleCache,
    split: Split | Sequence[int],
    *,
    batch_size: int,
    augment: "AugmentConfig | None",
    shuffle: bool,
    drop_last: bool,
    seed: int,
    num_workers: int,
    pin_memory: bool,
    augment_on: AugmentOn = "loader",
) -> Loader:
    """Build the batches of one split.

    Args:
        cache: The decoded samples.
        split: `train`, `val` or `test`, or the indices of chosen samples in the cache.
        batch_size: Samples per batch.
        augment: Augmentation; None leaves samples as they are.
        shuffle: Draw a new order for each epoch; else the cache's order.
        drop_last: Leave out a last batch that is not full, unless it is the only one.
        seed: Seed of order and augmentation, >= 0.
        num_workers: Loader processes; 0 assembles batches in this process, and ahead of time if they are pinned.
        pin_memory: Put batches into page-locked memory, for copies to a GPU.
        augment_on: device: batches carry a plan for `build_device_augmentation` instead of being augmented, if
            the policy allows it.

    Raises:
        DataError: The split is empty.
    """
    indices = cache.indices(split) if isinstance(split, str) else list(split)
    if not indices:
        present = sorted(set(cache.splits))
        raise DataError(f"no images in the split {split!r}; the data set {cache.path.name} has {present}")
    return Loader(
        BatchDataset(cache, augment, seed, augment_on, pin_memory and num_workers == 0),
        indices,
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        num_workers=num_workers,
        pin_memory=pin_memory,
    )
