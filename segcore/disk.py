"""Disks that are full, read-only or broken: how their errors look, and how much room there is.

Layer 0.
"""

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
_WORDS = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|Input/output error"
    r"|\(?os error (?:28|122|5|30)\)?|database or disk is full|disk I/O error|attempt to write a readonly database"
    r"|PytorchStreamWriter failed writing file|OutOfDiskError"
)
"""What libraries say that do not hand the system's error on: SQLite, safetensors, torch, Ray."""
_SHARED_MEMORY = re.compile(r"shared memory|</torch")
MEGABYTE = 1e6


@dataclass(frozen=True)
class Room:
    """How much room there is on a disk, in bytes.

    Attributes:
        free: What this user may still write.
        total: The disk's size.
        device: Identifies the disk among those of this machine.
    """

    free: int
    total: int
    device: int

    def __str__(self) -> str:
        return f"{shown_bytes(self.free)} of {shown_bytes(self.total)} are free"


def room_at(path: Path | str) -> Room | None:
    """The room on the disk of a file or folder, which need not exist yet; None where the system does not say."""
    place = Path(path).absolute()
    for folder in (place, *place.parents):
        try:
            found = os.statvfs(folder)
            return Room(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, folder.stat().st_dev)
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def shown_bytes(num_bytes: float) -> str:
    """Bytes for people, e.g. `1.2 MB`."""
    if num_bytes >= 1e9:
        return f"{num_bytes / 1e9:.2f} GB"
    return f"{num_bytes / MEGABYTE:.1f} MB"


def disk_fault(error: BaseException) -> str | None:
    """What a disk refused, with the file where it is known; None for any other error.

    Errors that led to this one are looked at too, because libraries wrap those of the system.
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, OSError) and found.errno in _ERRNOS:
            reason = os.strerror(found.errno) if found.errno else str(found)
            return f"{found.filename}: {reason}" if found.filename else reason
        if (words := disk_words(str(found))) is not None:
            return words
        found = found.__cause__ or found.__context__
    return None


def disk_words(text: str) -> str | None:
    """The line of an error's text that says that a disk refused something, if any."""
    for line in text.splitlines():
        if _WORDS.search(line) and not _SHARED_MEMORY.search(line):
            return line.strip()[:500]
    return None
