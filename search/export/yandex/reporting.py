"""Streams that tell a callback how far a transfer has come: a file that is read, and what is written of a download."""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

from search.export.files import Progress

_REPORT_BYTES = 1 << 20


class ReportingFile(io.RawIOBase):
    """A file open for reading that tells a callback how much of it was read."""

    def __init__(self, path: Path, name: str, size: int, progress: Progress | None) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._name, self._size, self._progress = name, size, progress
        self._reported = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes: a file that is sent again starts from its first byte."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a byte."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The byte that is read next."""
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """The next bytes; each MiB, and a start from further up, is reported."""
        chunk = self._file.read(size)
        position = self._file.tell()
        if self._progress is not None and (position < self._reported or position - self._reported >= _REPORT_BYTES):
            self._reported = position
            self._progress(self._name, position, self._size)
        return chunk

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()


class HashingSink:
    """What `yadisk` writes a download to: counts, hashes and reports it on its way to a file."""

    def __init__(self, write: Callable[[bytes], int], name: str, total: int, progress: Progress | None) -> None:
        self.size = 0
        self._write, self._name, self._total, self._progress = write, name, total, progress
        self._sha256 = hashlib.sha256()
        self._reported = 0

    def seekable(self) -> bool:
        """No: each attempt gets a new sink."""
        return False

    def write(self, chunk: bytes) -> int:
        """Takes the next bytes."""
        self.size += len(chunk)
        self._sha256.update(chunk)
        if self._progress is not None and self.size - self._reported >= _REPORT_BYTES:
            self._reported = self.size
            self._progress(self._name, self.size, self._total)
        return self._write(chunk)

    def digest(self) -> tuple[str, int]:
        """`(sha256, size)` of what was written."""
        return self._sha256.hexdigest(), self.size
