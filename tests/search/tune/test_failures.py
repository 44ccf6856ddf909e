from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from specs import new_spec

from search.runs.journal import (
    DISK,
    GOES_ON,
    INTERRUPTED,
    MOVED,
    NODE_AT_FAULT,
    OUT_OF_MEMORY,
    RETRIED_ALONE,
    WORKER_DIED,
)
from search.tune.failures import MAX_RETRIES, describe_failure, is_nodes_fault, read_failure

HEAD = "Failure # 1 (occurred at 2026-01-02_03-04-05)\n"
TASK = (
    HEAD + "\x1b[36mray::ImplicitFunc.train()\x1b[39m (pid=13, ip=10.0.0.2, actor_id=ab, repr=train_trial)\n  File x\n"
)
ACTOR_DIED = (
    HEAD + "The actor died unexpectedly before finishing this task.\n\tclass_name: ImplicitFunc\n\tactor_id: 78\n"
    "\tpid: 14252\n\tnamespace: 51\n\tip: 10.0.0.2\n{}\n"
)
KILLED = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker "
    "unexpectedly exits with a connection error code 2. End of file. There are some potential root causes. (1) The "
    "process is killed by SIGKILL by OOM killer due to high memory usage. (2) ray stop --force is called."
)
MONITOR = (
    "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.2) was 3.49GB used"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TASK + "KeyError: 'lr'\n", ("KeyError", "'lr'")),
        (TASK + "segcore.errors.NonFiniteLossError: epoch 1: nan\n", ("NonFiniteLossError", "epoch 1: nan")),
        (TASK + "MemoryError\n", (OUT_OF_MEMORY, "")),
        (TASK + "MemoryError: no more\n", (OUT_OF_MEMORY, "no more")),
        (TASK + "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8 GiB\n",
         (OUT_OF_MEMORY, "Unable to allocate 8 GiB")),
        (TASK + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n",
         (OUT_OF_MEMORY, "CUDA out of memory. Tried to allocate 2 GiB")),
        (TASK + "RuntimeError: [enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate "
         "memory: you tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)\n", OUT_OF_MEMORY),
        (TASK + "RuntimeError: DefaultCPUAllocator: not enough memory: you tried to take 8 bytes.\n", OUT_OF_MEMORY),
        (TASK + "torch.AcceleratorError: CUDA error: out of memory\n", OUT_OF_MEMORY),
        (TASK + "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate()\n", OUT_OF_MEMORY),
        (TASK + "segcore.errors.DiskError: epoch 3: its checkpoint cannot be written to /r: No space left on device\n",
         (DISK, "epoch 3: its checkpoint cannot be written to /r: No space left on device")),
        (TASK + "OSError: [Errno 122] Disk quota exceeded: '/r/x'\n",
         (DISK, "[Errno 122] Disk quota exceeded: '/r/x'")),
        (TASK + "RuntimeError: the memory of elephants\n", ("RuntimeError", "the memory of elephants")),
        (HEAD + MONITOR + "\nOOM kill reason: 3 B exceeded 2 B\n", (OUT_OF_MEMORY, MONITOR)),
        (ACTOR_DIED.format(KILLED), (WORKER_DIED, KILLED[:500])),
        (HEAD + "The actor ab is unavailable: The actor is temporarily unavailable: IOError: 14.", WORKER_DIED),
        (HEAD + "Trainable runner reuse requires reset_config() to be implemented and return True.", WORKER_DIED),
        (HEAD + "The actor died because of an error raised in its creation task, \x1b[36mray::X.__init__()\x1b[39m\n"
         "ModuleNotFoundError: No module named 'segcore'\n", ("ModuleNotFoundError", "No module named 'segcore'")),
        (HEAD + "something odd", ("unknown", "something odd")),
        ("", ("unknown", "the trial's process ended without a message")),
    ],
)  # fmt: skip
def test_an_error_file_says_what_happened(text: str, expected: str | tuple[str, str]) -> None:
    kind, message = read_failure(text)
    assert (kind if isinstance(expected, str) else (kind, message)) == expected


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("FileNotFoundError", f"[Errno 2] No such file or directory: '{__file__}'", True),
        ("FileNotFoundError", "[Errno 2] No such file or directory: '/nowhere/at/all'", False),
        ("OSError", f"[Errno 116] Stale file handle: '{__file__}'", True),
        ("AcceleratorError", "CUDA error: device-side assert triggered", True),
        ("RuntimeError", "CUDA error: uncorrectable ECC error encountered", True),
        ("RuntimeError", "The NVIDIA driver on your system is too old; CUDA driver version is insufficient", True),
        ("RuntimeError", "No CUDA GPUs are available: CUDA initialization: no CUDA-capable device is detected", True),
        (OUT_OF_MEMORY, "CUDA error: out of memory", False),
        ("ModuleNotFoundError", "No module named 'segcore'", True),
        ("ModuleNotFoundError", "No module named 'searching'", False),
        ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied", False),
        (WORKER_DIED, "CUDA error: unspecified launch failure", False),
    ],
)
def test_what_says_nothing_about_a_trials_settings(kind: str, message: str, expected: bool) -> None:
    assert is_nodes_fault(kind, message) is expected


def test_a_full_disk_may_be_that_of_one_node(tmp_path: Path) -> None:
    (tmp_path / "error.txt").write_text(TASK + "OSError: [Errno 28] No space left on device: '/tmp/x'\n")

    def kind(**fields: Any) -> str:
        config = new_spec(**fields).to_ray()
        trial: Any = SimpleNamespace(error_file=str(tmp_path / "error.txt"), config=config, last_result=None)
        return describe_failure(trial)[0]

    assert (kind(), kind(other_nodes=1), kind(other_nodes=1, avoid=("n1",))) == (DISK, MOVED, DISK)


@pytest.mark.parametrize(
    ("avoid", "other_nodes", "expected"), [((), 0, NODE_AT_FAULT), ((), 1, MOVED), (("n1",), 1, NODE_AT_FAULT)]
)
def test_a_trial_moves_while_there_is_a_node_that_it_has_not_failed_on(
    tmp_path: Path, avoid: tuple[str, ...], other_nodes: int, expected: str
) -> None:
    (tmp_path / "error.txt").write_text(TASK + "RuntimeError: CUDA error: device-side assert triggered\n")
    spec = new_spec(avoid=avoid, other_nodes=other_nodes).to_ray()
    trial: Any = SimpleNamespace(error_file=str(tmp_path / "error.txt"), config=spec, last_result=None)
    assert describe_failure(trial) == (expected, "RuntimeError: CUDA error: device-side assert triggered")


@pytest.mark.parametrize(
    ("spec", "last_epoch", "expected"),
    [
        ({}, None, INTERRUPTED),
        ({}, 4, INTERRUPTED),
        ({"strikes": MAX_RETRIES - 1, "reached": 2}, 2, INTERRUPTED),
        ({"strikes": MAX_RETRIES, "reached": 2}, 3, INTERRUPTED),
        ({"strikes": MAX_RETRIES, "reached": 2}, 2, WORKER_DIED),
        ({"strikes": MAX_RETRIES, "reached": 2}, None, WORKER_DIED),
    ],
)
def test_a_dead_worker_is_a_failure_only_after_retries_without_progress(
    tmp_path: Path, spec: dict[str, Any], last_epoch: int | None, expected: str
) -> None:
    (tmp_path / "error.txt").write_text(ACTOR_DIED.format(KILLED))
    last = {} if last_epoch is None else {"number": 0, "epoch": last_epoch}
    trial: Any = SimpleNamespace(
        error_file=str(tmp_path / "error.txt"), config=new_spec(**spec).to_ray(), last_result=last
    )
    assert describe_failure(trial)[0] == expected


def test_a_failure_of_the_code_is_none_of_the_worker(tmp_path: Path) -> None:
    (tmp_path / "error.txt").write_text(TASK + "KeyError: 'lr'\n")
    trial: Any = SimpleNamespace(error_file=str(tmp_path / "error.txt"), config=new_spec().to_ray(), last_result=None)
    assert describe_failure(trial) == ("KeyError", "'lr'")
    no_file: Any = SimpleNamespace(error_file=None, config=new_spec().to_ray(), last_result=None)
    assert describe_failure(no_file) == ("unknown", "the trial's process ended without a message")


@pytest.mark.parametrize(
    ("error", "spec", "expected"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory.", {"may_retry_alone": True}, RETRIED_ALONE),
        ("torch.OutOfMemoryError: CUDA out of memory.", {"may_retry_alone": False}, OUT_OF_MEMORY),
        ("torch.OutOfMemoryError: CUDA out of memory.", {}, OUT_OF_MEMORY),
        (MONITOR, {"may_retry_alone": True}, OUT_OF_MEMORY),
        ("KeyError: 'lr'", {"may_retry_alone": True}, "KeyError"),
    ],
)
def test_only_a_share_of_a_gpu_that_was_too_little_is_a_reason_to_try_a_whole_one(
    tmp_path: Path, error: str, spec: dict[str, Any], expected: str
) -> None:
    (tmp_path / "error.txt").write_text(TASK + error + "\n")
    trial: Any = SimpleNamespace(
        error_file=str(tmp_path / "error.txt"), config=new_spec(**spec).to_ray(), last_result=None
    )
    kind = describe_failure(trial)[0]
    assert kind == expected
    assert (kind in GOES_ON) == (expected == RETRIED_ALONE)


def test_a_loader_process_that_died_says_nothing_about_the_trial() -> None:
    text = "Traceback ...\nsegcore.errors.LoaderError: a loader process died (process 7: SIGKILL), as where memory ..."
    kind, message = read_failure(text)
    assert kind == WORKER_DIED
    assert message.startswith("a loader process died (process 7: SIGKILL)")
