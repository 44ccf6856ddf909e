# ruff: noqa: E501
"""What is recorded of the machine that trains."""

import getpass
import json
from pathlib import Path

import pytest
import torch

from segcore.training import machine
from segcore.training.machine import describe_machine, driver_version


def test_it_says_what_decides_about_the_last_bits_and_nothing_private() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = describe_machine(torch.device("cpu"))
    finally:
        torch.set_num_threads(before)
    assert (found["device"], found["threads"], found["torch"]) == ("cpu", 2, torch.__version__)
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert found["cpu"]
    text = json.dumps(found)
    assert str(Path.home()) not in text
    assert getpass.getuser() not in found.values()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build", "575.57.08"),
        ("", None),
    ],
)  # fmt: skip
def test_the_driver_is_read_from_what_the_kernel_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, version: str | None
) -> None:
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(machine, "_DRIVER", tmp_path / "version")
    assert driver_version() == version
    monkeypatch.setattr(machine, "_DRIVER", tmp_path / "none")
    assert driver_version() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_named_with_its_software() -> None:
    found = describe_machine(torch.device("cuda"))
    assert found["gpu"] == torch.cuda.get_device_name()
    assert found["cuda"] == torch.version.cuda
    assert found["cudnn"] == torch.backends.cudnn.version()
