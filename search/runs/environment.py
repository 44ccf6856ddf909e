"""What a run's numbers may depend on beside its config: versions, machine and the state of the code; for `run.json`.

No user name, no path, nothing secret: `run.json` is made to be shown.
"""

import os
import platform
import re
import socket
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import segcore
from segcore.sealed.card import installed_versions

_COMPARED = ("versions", "host", "code", "machine")
_NOT_COMPARED = frozenset({"host.name"})


def describe_environment() -> dict[str, Any]:
    """The fields `host`, `versions` and `code` of `run.json`."""
    import torch

    from segcore.training.machine import cpu_model, driver_version

    gpus = torch.cuda.device_count()  # their names would cost this process a CUDA context; each trial reports its own
    host = {
        "name": socket.gethostname(),
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpus": gpus,
    }
    if gpus:
        host |= {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "driver": driver_version(),
        }
    code = _commit()
    return {"host": host, "versions": versions(), **({"code": code} if code else {})}


def versions() -> dict[str, str]:
    """Of segsearch and of every package that it requires."""
    found = installed_versions()
    for line in requires("segsearch") or []:
        if "extra ==" in line:
            continue
        name = re.split(r"[\[<>=~! ;]", line)[0]
        try:
            found.setdefault(name, version(name))
        except PackageNotFoundError:
            continue
    return dict(sorted(found.items()))


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Dotted field -> [then, now] for what differs; a field that only one side has is left out."""
    found = {}
    for section in _COMPARED:
        before, after = then.get(section) or {}, now.get(section) or {}
        for key in before:
            name = f"{section}.{key}"
            if key in after and before[key] != after[key] and name not in _NOT_COMPARED:
                found[name] = [before[key], after[key]]
    return found


def _commit() -> dict[str, Any] | None:
    """The commit of a checkout of segsearch that runs, and whether files of it were changed; None elsewhere."""
    root = Path(segcore.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "segcore", "search")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(changed)}


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
