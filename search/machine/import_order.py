"""Where Python looks for modules: the standard library, what is installed, our packages, and last the user's folders.

Ray puts the driver's current folder in front of all else in its workers, and `PYTHONPATH` comes before everything that
is installed. A file `search.py`, `torch.py` or `random.py` in such a folder would then be imported instead of what its
name says. Code that a user keeps there on purpose is still found, under any name that is not taken.
"""

import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

OURS = ("segcore", "search")
_ROOT = str(Path(__file__).resolve().parents[2])
"""The folder that our packages lie in: a checkout, or where packages are installed."""


def import_order(path: Sequence[str] | None = None) -> list[str]:
    """A search path in the order of trust, without duplicates.

    Args:
        path: What to order; default: `sys.path`. An empty entry is the current folder.
    """
    entries = [os.path.abspath(entry) for entry in (sys.path if path is None else path)]  # noqa: PTH100
    standard = [entry for entry in entries if _is_standard(entry)]
    installed = [entry for entry in entries if is_installed(entry) and entry not in standard]
    own = [] if _ROOT in installed else [_ROOT]
    users = [entry for entry in entries if entry not in (*standard, *installed, *own)]
    hides_ours = any(PathFinder.find_spec(name, installed) is not None for name in OURS)
    return list(dict.fromkeys([*standard, *(own if hides_ours else []), *installed, *own, *users]))


def is_installed(entry: str | Path) -> bool:
    """Whether a file or folder lies where packages are installed."""
    return any(Path(entry).is_relative_to(folder) for folder in _installed_in())


def trust_in_order() -> None:
    """Orders this process's search path, and keeps the current folder out of those that it starts."""
    sys.path[:] = import_order()
    os.environ.setdefault("PYTHONSAFEPATH", "1")


def _is_standard(entry: str) -> bool:
    """Whether an entry is of the standard library: its folder, its archive, or its compiled modules."""
    if is_installed(entry):
        return False
    folders = _standard_library()
    archive = f"python{sys.version_info[0]}{sys.version_info[1]}.zip"
    return any(Path(entry).is_relative_to(folder) for folder in folders) or Path(entry).name == archive


def _standard_library() -> set[str]:
    names = ("stdlib", "platstdlib")
    plain = {sysconfig.get_path(name) for name in names}
    return plain | {sysconfig.get_path(name, vars={"base": sys.base_prefix, "platbase": sys.base_exec_prefix})
                    for name in names}  # fmt: skip


def _installed_in() -> Iterable[str]:
    user = site.getusersitepackages() if site.ENABLE_USER_SITE else None
    return [*site.getsitepackages(), *([user] if user else []), sysconfig.get_path("purelib")]
