"""The device of this process: which one, its precision, and all process-wide settings that a run sets or resets."""

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

    `auto` is bf16 where the device supports it natively, else fp16 on a GPU and float32 on a CPU. On a CPU with
    AVX512-BF16 a training step of a U-Net takes half to three quarters of the time in bf16, but with an encoder of
    depthwise convolutions a tenth more, so these stay in float32 there (`make bench NAME=precision`).

    Args:
        config: Its `precision` counts: "auto", "fp32", "bf16" or "fp16".
        device: The device the model trains on.
        model: Searched for depthwise convolutions, where `auto` depends on them.
    """
    if config.precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    if device.type == "cuda":
        return torch.bfloat16 if has_bf16(device) else torch.float16
    return torch.bfloat16 if has_bf16(device) and not _has_depthwise(model) else torch.float32


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes bf16 natively rather than through float32: Ampere and newer, AVX512-BF16, AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return bool(torch.cpu._is_avx512_bf16_supported())


def _has_depthwise(model: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1 for module in model.modules())


def prepare_device(device: torch.device, *, deterministic: bool = False) -> None:
    """Enable a GPU's fastest kernels: TF32 where float32 is used, and the fastest convolutions.

    TF32 keeps float32's range and 10 bits of its mantissa, more than bf16's 7. Nothing is done for a CPU, which is
    deterministic anyway.

    Args:
        device: The device that is about to train.
        deterministic: Use kernels that give the same bits each time on one kind of GPU with the same versions;
            `begin_trial` undoes that. TF32 stays on, since its rounding is deterministic. An operation without such a
            kernel warns and continues.
    """
    if device.type != "cuda":
        return
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = not deterministic  # chosen by timing, so it may vary
    torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
        torch.use_deterministic_algorithms(True, warn_only=True)


def begin_trial(num_cpus: float, gpu_fraction: float) -> None:
    """Prepare the process for a new trial: drop everything of an earlier one, and limit threads and GPU memory.

    A reused process keeps imported modules and the CUDA context. Everything else that could make one trial differ from
    another is dropped or reset: memory, compiled graphs, seeds, defaults, determinism switches, thread count.

    Args:
        num_cpus: The trial's cores; torch gets as many threads, at least one.
        gpu_fraction: The trial's share of the GPU's memory, in [0, 1]. An allocation beyond it raises
            `torch.OutOfMemoryError` in this process only; 0 and 1 mean no limit.
    """
    _reset_defaults()
    _drop_memory()
    torch.set_num_threads(max(1, int(num_cpus)))
    if torch.cuda.is_available():
        cap = gpu_fraction if 0 < gpu_fraction < 1 else 1.0
        torch.cuda.set_per_process_memory_fraction(cap)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: the GPU's, the trial's share of it, or the machine's."""
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
    if torch.are_deterministic_algorithms_enabled():  # checked first: the call below imports the whole compiler
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
    """Make glibc's malloc keep the memory that torch frees, instead of returning it to the kernel, until the exit.

    A training step on a CPU allocates the same hundreds of megabytes each time. By default blocks of over 128 KiB may
    be mapped and unmapped, and the kernel clears each page again: 44,000 page faults and 15% of the time of a ResNet50
    U-Net's step. The drawback is fragmentation: a loop that keeps a small object per iteration may split a large free
    block each time. So call the yielded function regularly, such as once per epoch, to return free pages. Nothing is
    done for a GPU, or without glibc.
    """
    libc = ctypes.CDLL(None) if device.type == "cpu" and hasattr(ctypes.CDLL(None), "mallopt") else None
    if libc is None:
        yield lambda: None
        return
    libc.mallopt(_M_ARENA_MAX, 1)  # arenas of other threads, such as a trial's, would return large blocks
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST_TRIM_THRESHOLD)
    try:
        yield lambda: libc.malloc_trim(0)
    finally:
        libc.mallopt(_M_MMAP_THRESHOLD, _DEFAULT_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, _DEFAULT_THRESHOLD)
        libc.malloc_trim(0)
