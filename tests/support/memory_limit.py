"""A limit on the memory of torch on a CPU, which behaves as a GPU's cap does: the allocation too much raises."""

from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MemoryLimit(TorchDispatchMode):
    """Counts the bytes of all tensors that operations have made in this thread and that still live.

    Raises:
        torch.OutOfMemoryError: From an operation whose result goes beyond the limit.
    """

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self.max_bytes = max_bytes
        self.peak_bytes = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}
        self._sum = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor)
        if self._sum > self.max_bytes:
            self._forget_freed()
        self.peak_bytes = max(self.peak_bytes, min(self._sum, self.max_bytes))
        if self._sum > self.max_bytes:
            held, limit = self._sum, self.max_bytes
            self._live.clear()
            self._sum = 0
            raise torch.OutOfMemoryError(f"CUDA out of memory. (simulated) {held} bytes are held, {limit} allowed")
        return result

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        if reference.cdata not in self._live:  # the reference keeps the place from being given to another storage
            self._live[reference.cdata] = (reference, storage.nbytes())
            self._sum += storage.nbytes()

    def _forget_freed(self) -> None:
        for key, (reference, num_bytes) in list(self._live.items()):
            if reference.expired():
                del self._live[key]
                self._sum -= num_bytes
