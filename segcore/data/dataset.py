"""Batches from the decoded cache: what is drawn, in which order and how it is augmented depends on nothing but
the seed, the epoch and the sample, so a resumed run sees what an uninterrupted one would, with any number of workers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segcore.config import AugmentConfig
from segcore.data.augment import Augmentation, build_augmentation
from segcore.data.cache import SampleCache
from segcore.data.samples import Split
from segcore.errors import DataError

BatchKey = tuple[int, tuple[int, ...]]  # epoch, sample indices


@dataclass
class Batch:
    """Some samples, ready for the model.

    Attributes:
        images: `(N, 3, H, W) uint8` in channels_last memory.
        targets: `(N, 1, H, W) uint8` of 0 and 1.
        indices: `(N,) int64`, each sample's place in the cache.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)


class BatchDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Assembles whole batches; an item's key is `(epoch, sample indices)`, so a worker needs no state."""

    def __init__(self, cache: SampleCache, augment: AugmentConfig | None, seed: int) -> None:
        self.cache = cache
        self.augment_config = augment
        self.seed = seed
        self._augmentation: Augmentation | None = None

    def __getitem__(self, key: BatchKey) -> tuple[Tensor, Tensor, Tensor]:
        """Fill one batch: `(N, H, W, 3) uint8`, `(N, H, W) uint8`, `(N,) int64`."""
        epoch, indices = key
        height, width = self.cache.hw
        images = np.empty((len(indices), height, width, 3), np.uint8)
        masks = np.empty((len(indices), height, width), np.uint8)
        augmentation = self._pipeline()
        for row, index in enumerate(indices):
            image, mask = self.cache.image(index), self.cache.mask(index)
            if augmentation is not None:
                augmentation.reseed(_sample_seed(self.seed, epoch, index))
                image, mask = augmentation(image, mask)
            images[row], masks[row] = image, mask
        return torch.from_numpy(images), torch.from_numpy(masks), torch.tensor(indices, dtype=torch.int64)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_augmentation": None}

    def _pipeline(self) -> Augmentation | None:
        if self._augmentation is None and self.augment_config is not None and self.augment_config.policy != "none":
            self._augmentation = build_augmentation(self.augment_config, self.seed)
        return self._augmentation


class Loader:
    """Iterable of `Batch` over one split; call `set_epoch` before each epoch. Made by `build_loader`.

    Attributes:
        indices: The samples' places in the cache.
        num_samples: Samples that one epoch yields.
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
        self._dataset = dataset
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._pin_memory = pin_memory
        self._epoch = 0
        full, rest = divmod(len(self.indices), batch_size)
        self._num_batches = full if drop_last and full > 0 else full + (rest > 0)
        self.num_samples = min(len(self.indices), self._num_batches * batch_size)
        self._workers: DataLoader[tuple[Tensor, Tensor, Tensor]] | None = None
        if num_workers > 0:
            self._workers = DataLoader(
                dataset,
                batch_size=None,
                sampler=self._Keys(self),
                num_workers=min(num_workers, self._num_batches),
                pin_memory=pin_memory,
                persistent_workers=True,
            )

    class _Keys:
        """The keys of the loader's current epoch, as a sampler."""

        def __init__(self, loader: "Loader") -> None:
            self._loader = loader

        def __iter__(self) -> Iterator[BatchKey]:
            return self._loader._keys()

        def __len__(self) -> int:
            return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and augmentation the next iteration has (0 at first)."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        source = (self._dataset[key] for key in self._keys()) if self._workers is None else self._workers
        for images, masks, indices in source:
            if self._pin_memory and not images.is_pinned():
                images, masks = images.pin_memory(), masks.pin_memory()
            # (N, H, W, 3) seen as (N, 3, H, W) is channels_last without a copy.
            yield Batch(images.permute(0, 3, 1, 2), masks.unsqueeze(1), indices)

    def close(self) -> None:
        """End the worker processes, if there are any."""
        self._workers = None

    def _keys(self) -> Iterator[BatchKey]:
        order = np.asarray(self.indices, dtype=np.int64)
        if self._shuffle:
            order = np.random.default_rng((self._dataset.seed, self._epoch)).permutation(order)
        for first in range(0, self.num_samples, self._batch_size):
            yield self._epoch, tuple(order[first : first + self._batch_size].tolist())


def build_loader(
    cache: SampleCache,
    split: Split | Sequence[int],
    *,
    batch_size: int,
    augment: AugmentConfig | None,
    shuffle: bool,
    drop_last: bool,
    seed: int,
    num_workers: int,
    pin_memory: bool,
) -> Loader:
    """Build the batches of one split.

    Args:
        cache: The decoded samples.
        split: `train`, `val` or `test`, or the places of chosen samples in the cache.
        batch_size: Samples per batch.
        augment: Augmentation; None leaves samples as they are.
        shuffle: Draw a new order for each epoch; else the cache's order.
        drop_last: Leave out a last batch that is not full, unless it is the only one.
        seed: Seed of order and augmentation, >= 0.
        num_workers: Loader processes; 0 assembles batches in this one.
        pin_memory: Put batches into page-locked memory, for copies to a GPU.

    Raises:
        DataError: The split is empty.
    """
    indices = cache.indices(split) if isinstance(split, str) else list(split)
    if not indices:
        present = sorted(set(cache.splits))
        raise DataError(f"no images in the split {split!r}; the data set {cache.path.name} has {present}")
    return Loader(
        BatchDataset(cache, augment, seed),
        indices,
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=drop_last,
        num_workers=num_workers,
        pin_memory=pin_memory,
    )


def _sample_seed(seed: int, epoch: int, index: int) -> int:
    """Mix three numbers into 64 bits, so that neighbours differ in every bit."""
    value = 0
    for part in (seed, epoch, index):
        value = ((value ^ part) + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 31
    return value
