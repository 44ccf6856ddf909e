import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from search.tune.packing.mps import CONTROL, PID_FILE, mps_directory


def test_no_files_no_mps(tmp_path: Path) -> None:
    assert mps_directory({"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path / "absent")}) is None


@pytest.mark.parametrize("pid", ["", "none", "-1", "0", "999999999999", "1"])
def test_a_pid_file_that_a_dead_daemon_left_is_no_mps(tmp_path: Path, pid: str) -> None:
    """Process 1 is alive, but it is not the daemon."""
    (tmp_path / PID_FILE).write_text(pid)
    assert mps_directory({"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}) is None


def test_a_daemon_whose_process_is_alive_is_mps(tmp_path: Path) -> None:
    daemon = shutil.copy(shutil.which("sleep") or "/bin/sleep", tmp_path / "nvidia-cuda-mps-control")
    process = subprocess.Popen([str(daemon), "60"])
    deadline = time.monotonic() + 30
    try:
        while not Path(f"/proc/{process.pid}/comm").read_text().startswith("nvidia-cuda-mps"):
            assert time.monotonic() < deadline, "a new process has its parent's name until the program is loaded"
        (tmp_path / PID_FILE).write_text(f"{process.pid}\n")
        assert mps_directory({"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}) == tmp_path
    finally:
        process.kill()
        process.wait()
    assert mps_directory({"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}) is None


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_daemon_in_another_container_answers_at_its_socket(tmp_path: Path, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_UNIX, kind) as server:
        server.bind(str(tmp_path / CONTROL))
        server.listen()
        assert mps_directory({"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}) == tmp_path
    assert mps_directory({"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}) is None, "its socket is left, and nobody answers"
