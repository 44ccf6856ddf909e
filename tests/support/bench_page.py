"""The form of a benchmark's page: title, command, what it measures, machine and versions, table."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parents[2] / "results" / "benchmarks"


def device_name() -> str:
    """The GPU's name, or the CPU's cores."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"


def machine(*packages: str) -> str:
    """Date, machine and versions, one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", *packages))
    return (
        f"{time.strftime('%Y-%m-%d')}, {gpu}{os.cpu_count()} CPU cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}, {versions}."
    )


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows]]


def write_page(name: str, title: str, text: str, lines: list[str], *packages: str) -> Path:
    """Writes `results/benchmarks/NAME.md`, on a GPU `NAME_gpu.md`, and returns its path."""
    path = FOLDER / f"{name}{'_gpu' if torch.cuda.is_available() else ''}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [f"# {title}", f"Made by `make bench NAME={name}`.", text.strip(), machine(*packages), "\n".join(lines)]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
