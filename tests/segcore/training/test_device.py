"""What a trial finds in a process that other trials have used."""

import ctypes
import random
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from segcore.config import LoopConfig
from segcore.training.device import (
    begin_trial,
    choose_precision,
    freed_memory_kept,
    is_out_of_memory,
    prepare_device,
)

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def state() -> tuple[object, ...]:
    return (
        torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(), torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic, torch.empty(0).device, torch.get_num_threads(),
        torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)],
    )  # fmt: skip


def test_whatever_an_earlier_trial_changed_is_as_in_a_fresh_process() -> None:
    begin_trial(1, 0)
    first = state()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    torch.autograd.set_detect_anomaly(True)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = True
    torch.set_num_threads(2)
    random.seed(9)
    np.random.seed(9)
    begin_trial(1, 0)
    assert state() == first


@pytest.mark.parametrize(("num_cpus", "threads"), [(0.5, 1), (1, 1), (2, 2), (2.9, 2)])
def test_threads_follow_the_share_of_cores(num_cpus: float, threads: int) -> None:
    begin_trial(num_cpus, 0)
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_compiled_graphs_are_dropped() -> None:
    torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1))
    begin_trial(1, 0)
    counts = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        counts.append(graph)
        return graph

    add = torch.compile(lambda x: x + 1, backend=backend)
    add(torch.ones(1))
    begin_trial(1, 0)
    add(torch.ones(1))
    assert len(counts) == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize(
    ("has_bf16", "groups", "expected"),
    [(True, 1, torch.bfloat16), (False, 1, torch.float32), (True, 4, torch.float32), (True, 2, torch.bfloat16)],
)
def test_a_cpu_trains_in_bf16_where_that_is_faster(
    has_bf16: bool, groups: int, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=groups))
    assert choose_precision(LoopConfig(precision="auto"), CPU, model) is expected
    assert choose_precision(LoopConfig(precision="fp32"), CPU, model) is torch.float32
    assert choose_precision(LoopConfig(precision="bf16"), CPU, model) is torch.bfloat16


FAULTS = """
import resource, torch
from segcore.training.device import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**21)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

by_default = faults()
with freed_memory_kept(torch.device("cpu")) as tidy_up:
    torch.ones(2**21)
    kept = faults()
    tidy_up()
    again = faults()
print(by_default, kept, again)
"""


@pytest.mark.slow
def test_memory_of_a_step_is_kept_for_the_next_one() -> None:
    """Blocks of 8 MiB: mapped anew each time by default, so that each of their 2,048 pages faults again.

    In a process of its own: what other tests have left of the heap would be used instead.
    """
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("no glibc")
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    by_default, kept, again = map(int, done.stdout.split())
    assert by_default > 4 * 2048
    assert kept < by_default / 2
    assert again < by_default / 2, "tidying up costs one round"
    with freed_memory_kept(torch.device("cuda")) as tidy_up:
        tidy_up()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_share_of_the_gpu_is_a_limit_and_the_next_trial_has_its_own() -> None:
    total = torch.cuda.get_device_properties(0).total_memory
    begin_trial(1, 0.25)
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(int(0.3 * total), dtype=torch.uint8, device="cuda")
    begin_trial(1, 0.5)
    torch.empty(int(0.3 * total), dtype=torch.uint8, device="cuda")
    begin_trial(1, 0)
    assert torch.cuda.memory_reserved() == 0


def test_a_cpu_needs_nothing_to_be_deterministic() -> None:
    begin_trial(1, 0)
    before = state()
    begin_trial(1, 0)
    prepare_device(CPU, deterministic=True)
    assert state() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_deterministic_kernels_last_until_the_next_trial() -> None:
    prepare_device(torch.device("cuda"), deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    begin_trial(1, 0)
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic
