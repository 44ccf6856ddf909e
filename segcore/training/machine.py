"""Where a run trains: the device, its software, and whatever else may affect the last bits of a number."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

_CPU_INFO = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Everything that affects the last bits of a result: device, threads, instruction set and library versions.

    Host names and paths are left out. With the same config and seed, equal descriptions give the same numbers bit by
    bit on a CPU.
    """
    return {
        "device": device.type,
        "threads": torch.get_num_threads(),
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        **(_gpu(device) if device.type == "cuda" else {}),
    }


def cpu_model() -> str:
    """The processor's name, as the kernel reports it."""
    try:
        lines = _CPU_INFO.read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.machine()


def driver_version() -> str | None:
    """The NVIDIA driver's version; None where there is none, or the system does not say."""
    try:
        first = _DRIVER.read_text(errors="replace").splitlines()[0]
    except (OSError, IndexError):
        return None
    words = first.split()
    return next((word for word in words if word[0].isdigit() and "." in word), None)


def _gpu(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu_capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": driver_version(),
    }
