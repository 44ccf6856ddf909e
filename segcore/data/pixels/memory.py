"""How much memory is free for decoding, and who may take it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SHARE = 0.5
"""Of the free memory, what the images that are decoded at once may take together."""
_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Free memory in bytes: the machine's, or the container's where that is less; very much where neither is known."""
    found = [2**62]
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines() if ":" in line)
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass
    try:  # what files are cached counts as used, and is given up when needed
        limit, used = (int((_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        cached = dict(line.split() for line in (_GROUP / "memory.stat").read_text().splitlines())
        found.append(max(0, limit - used + int(cached.get("inactive_file", 0)) + int(cached.get("active_file", 0))))
    except (OSError, ValueError):  # no control group, or "max"
        pass
    return min(found)


class MemoryShare:
    """Lets several large images be decoded at once only as far as memory allows; one alone always may."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = 0

    @contextmanager
    def taken(self, num_bytes: int) -> Iterator[None]:
        """Wait until there is room for `num_bytes` beside what others have taken, and take it until the end."""
        if num_bytes == 0:
            yield
            return
        with self._changed:
            self._changed.wait_for(
                lambda: self._taken == 0 or self._taken + num_bytes <= _SHARE * (available_bytes() + self._taken)
            )
            self._taken += num_bytes
        try:
            yield
        finally:
            with self._changed:
                self._taken -= num_bytes
                self._changed.notify_all()
