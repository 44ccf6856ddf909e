"""The device of this process: which one, at what precision, and everything process-wide that a run sets or resets."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from segcore.config import LoopConfig

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_DEFAULT_THRESHOLD = 128 * 2**10
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_LARGEST_TRIM_THRESHOLD = 2**30


def choose_device() -> torch.device:
    """The GPU of this process when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(config: LoopConfig, device: torch.device, model: nn.Module) -> torch.dtype:
    """The dtype of autocast; float32 means none.

    `auto` is bf16 where the device computes it itself, else fp16 on a GPU and float32 on a CPU. On a CPU with
    AVX512-BF16 a training step of a U-Net takes half to three quarters of the time in bf16, but with an encoder of
    depthwise convolutions a tenth more, so these stay in float32 there (`make bench NAME=precision`).
    """
    if config.precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    if device.type == "cuda":
        return torch.bfloat16 if has_bf16(device) else torch.float16
    return torch.bfloat16 if has_bf16(device) and not _has_depthwise(model) else torch.float32


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes bf16 itself, rather than by way of float32: Ampere and newer, AVX512-BF16, AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return bool(torch.cpu._is_avx512_bf16_supported())


def _has_depthwise(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1 for module in model.modules())


def prepare_device(device: torch.device, *, deterministic: bool = False) -> None:
    """Lets a GPU's kernels be as fast as they can: TF32 where float32 is left, and the fastest convolutions.

    TF32 keeps float32's range and 10 bits of its mantissa, more than bf16's 7. Nothing is done for a CPU, which gives
    the same bits each time as it is.

    Args:
        device: Where to.
        deterministic: Kernels that give the same bits each time, on one kind of GPU with the same versions, are taken
            instead; `begin_trial` undoes that. TF32 stays: it rounds, but always alike. What has no such kernel warns
            and goes on.
    """
    if device.type != "cuda":
        return
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = not deterministic  # by timing: may be another one each time
    torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.use_deterministic_algorithms(True, warn_only=True)


def begin_trial(num_cpus: float, gpu_fraction: float) -> None:
    """Gives the process to a new trial: nothing of an earlier one is left, and no more is taken than its share.

    A reused process keeps imported modules and the CUDA context; all else that could tell one trial from another is
    dropped or reset: memory, compiled graphs, seeds, defaults, determinism switches, thread count.

    Args:
        num_cpus: The trial's cores; torch gets as many threads, at least one.
        gpu_fraction: Its share of the GPU's memory, in [0, 1]. An allocation beyond it raises
            `torch.OutOfMemoryError` in this process alone; 0 and 1 stand for no limit.
    """
    _reset_defaults()
    _drop_memory()
    torch.set_num_threads(max(1, int(num_cpus)))
    if torch.cuda.is_available():
        cap = gpu_fraction if 0 < gpu_fraction < 1 else 1.0
        torch.cuda.set_per_process_memory_fraction(cap)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the GPU, of the trial's share of it, or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "out of memory" in text or "not enough memory" in text or "STATUS_ALLOC_FAILED" in text
    )


def _reset_defaults() -> None:
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)
    if torch.are_deterministic_algorithms_enabled():  # the call imports the whole compiler
        torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.benchmark = False
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)


def _drop_memory() -> None:
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()  # compiled graphs hold their parameters' memory
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def freed_memory_kept(device: torch.device) -> Iterator[Callable[[], None]]:
    """While it lasts, glibc's malloc keeps what torch frees, instead of asking the kernel for each activation anew.

    A training step on a CPU allocates the same hundreds of megabytes each time. By default blocks of over 128 KiB may
    be mapped and unmapped, and the kernel clears each page again: 44,000 page faults and 15% of the time of a ResNet50
    U-Net's step. The price is that a loop which keeps something small in each round may break a large free block in
    each; so call what is yielded now and then, once an epoch: it gives free pages back. Nothing is done for a GPU, or
    without glibc.
    """
    libc = ctypes.CDLL(None) if device.type == "cpu" and hasattr(ctypes.CDLL(None), "mallopt") else None
    if libc is None:
        yield lambda: None
        return
    libc.mallopt(_M_ARENA_MAX, 1)  # the arenas of other threads, a trial's among them, give large blocks back
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)
    try:
        yield lambda: libc.malloc_trim(0)
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, _DEFAULT_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_THRESHOLD)
        libc.malloc_trim(0)
