"""Why a trial ended early, judged from Ray's error file; everything that reports a failure uses this verdict."""

import re
from pathlib import Path

from ray.tune.experiment import Trial

from search.runs.journal import (
    DISK,
    INTERRUPTED,
    MOVED,
    NODE_AT_FAULT,
    OUT_OF_MEMORY,
    RETRIED_ALONE,
    WORKER_DIED,
)
from segcore.disk import disk_words
from segcore.errors import DiskError, LoaderError
from segcore.spec import TrialReport, TrialSpec

MAX_RETRIES = 3
"""How often a trial continues after its worker died without a new epoch; after that it counts as failed."""

_ERROR_LINE = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Interrupt|Exit))(?:\([^)]*\))?(?:: ?(.*))?$")
_NO_MEMORY = re.compile(
    r"OutOfMemory|MemoryError$|CUDA error: out of memory|CUDA out of memory|not enough memory|can't allocate memory"
    r"|(?:CUDNN|CUBLAS)_STATUS_ALLOC_FAILED"
)
_MEMORY_MONITOR = "killed due to the node running low on memory"
_CREATION_FAILED = "raised in its creation task"
_BROKEN_GPU = re.compile(
    r"CUDA error: (?!out of memory)|CUDA driver|CUDA initialization|device-side assert|no CUDA-capable device|NVML"
    r"|GPU is lost|fallen off the bus|uncorrectable ECC|CUDNN_STATUS_NOT_INITIALIZED|CUDNN_STATUS_INTERNAL_ERROR"
)
_MISSING_FILE = re.compile(r"No such file or directory: '([^']+)'|Stale file handle: '([^']+)'")
_NOT_INSTALLED = re.compile(r"No module named '(?:segcore|search)\b")
_WORKER_LOST = re.compile(r"^(?:The actor |Trainable runner reuse requires)", re.MULTILINE)


def describe_failure(trial: Trial) -> tuple[str, str]:
    """`(kind, message)` of a trial that ended with an error.

    The kind is the exception's name, `out of memory`, `interrupted` when its worker died and it will continue,
    `worker died` when that happened too often, `DISK` when it had no room to write, or `RETRIED_ALONE` when it ran out
    of memory on a share of a GPU and may try a whole one. A whole GPU does not help a worker that was killed because
    the node's own memory was full.
    Of a fault of its node, a full disk among them, it is `MOVED` while there is a node that it has not failed on, then
    `NODE_AT_FAULT`, or `DISK`.
    """
    text = Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
    kind, message = read_failure(text)
    if kind == OUT_OF_MEMORY and _MEMORY_MONITOR not in text and TrialSpec.from_ray(trial.config).may_retry_alone:
        return RETRIED_ALONE, message
    if kind == DISK or is_nodes_fault(kind, message):
        spec = TrialSpec.from_ray(trial.config)
        said = message if kind == DISK else f"{kind}: {message}"
        last_kind = DISK if kind == DISK else NODE_AT_FAULT
        return MOVED if len(spec.avoid) < spec.other_nodes else last_kind, said
    if kind == WORKER_DIED:
        spec, last = TrialSpec.from_ray(trial.config), TrialReport.last_of(trial)
        if next_strikes(spec.reached or 0, spec.strikes, last.epoch if last else 0) <= MAX_RETRIES:
            return INTERRUPTED, message
    return kind, message


def is_nodes_fault(kind: str, message: str) -> bool:
    """Whether a failure says nothing about a trial's settings: another node, or this one once mended, may not fail.

    A missing file counts if it is there when seen from the driver.

    Args:
        kind: From `read_failure`.
        message: From `read_failure`.
    """
    if kind in (OUT_OF_MEMORY, WORKER_DIED):
        return False
    missing = _MISSING_FILE.search(message)
    if missing is not None:
        return Path(missing[1] or missing[2]).exists()
    return bool(_BROKEN_GPU.search(message) or _NOT_INSTALLED.search(message))


def next_strikes(reached: int, strikes: int, epoch: int) -> int:
    """How often in a row a trial's worker has died without a new epoch, after it died again.

    Args:
        reached: How far the trial had come when this attempt began.
        strikes: How often in a row its worker had died then.
        epoch: How far it has come now.
    """
    return 1 if epoch > reached else strikes + 1


def read_failure(text: str) -> tuple[str, str]:
    """`(kind, message)` from the text of a trial's error file."""
    lines = text.strip().splitlines()
    if _MEMORY_MONITOR in text:
        return OUT_OF_MEMORY, next(line for line in lines if _MEMORY_MONITOR in line).strip()[:500]
    if _WORKER_LOST.search(text) and _CREATION_FAILED not in text:
        why = [line.strip() for line in lines if not re.match(r"Failure #|\t?\w+: |The actor died unexpectedly", line)]
        return WORKER_DIED, (why[0] if why else "its process ended without a message")[:500]
    for line in reversed(lines):
        match = _ERROR_LINE.match(line.strip())
        if match:
            message = (match[2] or "").strip()[:500]
            if match[1] == DiskError.__name__:
                return DISK, message
            if match[1] == LoaderError.__name__:
                return WORKER_DIED, message  # says as little about the trial as the death of its own process
            if (fault := disk_words(message)) is not None:
                return DISK, fault
            kind = OUT_OF_MEMORY if _NO_MEMORY.search(match[1]) or _NO_MEMORY.search(message) else match[1]
            return kind, message
    return "unknown", (lines[-1][:500] if lines else "the trial's process ended without a message")
