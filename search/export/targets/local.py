"""Target `local: PATH`: a verified copy of a sealed model in another folder, swapped in whole."""

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from search.errors import ExportError
from search.export.files import FileDigest, Progress, card_last, digest_of
from search.export.target import Destination, Receipt, destination
from segcore.sealed.card import CARD_FILE

_OURS = frozenset({CARD_FILE, "model.safetensors", "model.onnx"})
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_CHUNK_BYTES = 4 << 20


class LocalTarget:
    """A folder that will hold the model and nothing else."""

    kind = "local"

    def __init__(self, location: str) -> None:
        if not location.strip():
            raise ExportError("local: a location is the path of a folder, found an empty one")
        if "://" in location:
            raise ExportError(f"local: a location is the path of a folder, found the address {location}")
        self.location = location
        self.folder = Path(location).expanduser().resolve()

    def check(self) -> None:
        """What is in the way at the destination; see `Target.check`."""
        self._refuse_foreign(())
        above = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        if not above.is_dir():
            raise ExportError(f"local:{self.location}: {above} is a file, so no folder can be made there")
        if not os.access(above, os.W_OK | os.X_OK):
            raise ExportError(f"local:{self.location}: no permission to write in {above}")

    def upload(self, files: Mapping[str, Path], *, progress: Progress | None = None) -> Receipt:
        """Copies beside the destination, hashes the copies, then renames; see `Target.upload`.

        Raises:
            ExportError: The folder holds something that is not ours, or cannot be written.
        """
        started = time.monotonic()
        self._refuse_foreign(files)
        for path in files.values():
            if path.resolve().is_relative_to(self.folder):
                raise ExportError(f"local:{self.location} is where the sealed model itself lies; name another folder")
        try:
            digests = self._place(files, progress)
        except OSError as error:
            hint = "; free some space" if error.errno == errno.ENOSPC else ""
            raise ExportError(f"local:{self.location} could not be written: {error}{hint}") from error
        return Receipt(self.kind, self.location, digests, self.folder.as_uri(), time.monotonic() - started)

    def _refuse_foreign(self, names: Iterable[str]) -> None:
        """An existing folder may be replaced only if nothing in it would be missed."""
        if not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise ExportError(f"local:{self.location} is a file; name a folder")
        try:
            found = {path.name for path in self.folder.iterdir()} - _LITTER
        except OSError as error:
            raise ExportError(f"local:{self.location} cannot be listed: {error}") from error
        if found and CARD_FILE not in found:
            raise ExportError(
                f"local:{self.location} is neither empty nor a sealed model (no {CARD_FILE} in it; it holds "
                f"{_some(found)}), so it is not replaced; name a new folder"
            )
        if extra := found - _OURS - set(names):
            raise ExportError(
                f"local:{self.location} holds {_some(extra)} beside a sealed model; replacing the folder would delete "
                "that; move it away or name another folder"
            )

    def _place(self, files: Mapping[str, Path], progress: Progress | None) -> dict[str, FileDigest]:
        token = secrets.token_hex(4)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        in_place = self.folder.exists() and (
            os.path.ismount(self.folder) or not os.access(self.folder.parent, os.W_OK | os.X_OK)
        )
        staging = (
            self.folder / f".segsearch-{token}"
            if in_place
            else self.folder.with_name(f".{self.folder.name}.{token}.tmp")
        )
        staging.mkdir()
        try:
            digests = {name: _copy(files[name], staging / name, progress) for name in card_last(files)}
            if in_place:  # a mount point cannot be renamed: file by file then, the card last
                for name in digests:
                    os.replace(staging / name, self.folder / name)
                for stale in _OURS - set(digests):
                    (self.folder / stale).unlink(missing_ok=True)
            else:
                self._swap(staging, token)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return digests

    def _swap(self, staging: Path, token: str) -> None:
        if not self.folder.exists():
            staging.rename(self.folder)
            return
        old = self.folder.with_name(f".{self.folder.name}.{token}.old")
        self.folder.rename(old)
        try:
            staging.rename(self.folder)
        except BaseException:
            old.rename(self.folder)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _copy(source: Path, destination: Path, progress: Progress | None) -> FileDigest:
    """Copies a file to disk for good and proves the copy by reading both again."""
    total, done = source.stat().st_size, 0
    with source.open("rb") as reader, destination.open("xb") as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            done += len(chunk)
            if progress is not None:
                progress(source.name, done, total)
        writer.flush()
        os.fsync(writer.fileno())
    digest = digest_of(source)
    if digest_of(destination) != digest:
        raise ExportError(
            f"the copy of {source.name} at {destination.parent} differs from the original; is the disk ill?"
        )
    return digest


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")


COMPONENT = destination(
    "local",
    "A folder.",
    Annotated[str, Field(min_length=1)],
    Destination(open=lambda location, context: LocalTarget(location), placeholder="PATH", is_path=True),
    order=10,
)
