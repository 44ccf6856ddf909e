"""NVIDIA MPS, which lets the kernels of several processes run on a GPU at the same time: is it up on this machine?

Nothing is started and nothing set here: a CUDA process finds a running MPS through its pipe directory by itself.
`CUDA_MPS_ACTIVE_THREAD_PERCENTAGE` is left alone, because a trial that is given a fixed part of the GPU cannot use what
its neighbours leave idle while they validate or wait for data. So is `CUDA_MPS_PINNED_DEVICE_MEM_LIMIT`: each trial is
held to its share of the memory by torch's allocator, which raises an error that names what was asked for, and the
limit of a worker process could not change when it takes up a trial with another share.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

DEFAULT_PIPES = "/tmp/nvidia-mps"
CONTROL = "control"
PID_FILE = "nvidia-cuda-mps-control.pid"


def mps_directory(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The pipe directory of an MPS control daemon that runs on this machine; None where there is none.

    A daemon that was killed leaves its files behind, so it has to be alive: its process is there, or, where it runs in
    another container and cannot be seen, its socket answers.
    """
    pipes = Path(environment.get("CUDA_MPS_PIPE_DIRECTORY") or DEFAULT_PIPES)
    return pipes if _is_alive(pipes / PID_FILE) or _answers(pipes / CONTROL) else None


def _is_alive(pid_file: Path) -> bool:
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").startswith("nvidia-cuda-mps")
    except (OSError, ValueError):
        return False


def _answers(control: Path) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as client:
            client.settimeout(1.0)
            try:
                client.connect(str(control))
            except OSError:
                continue
            return True
    return False
