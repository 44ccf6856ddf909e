"""What every export target shares: its interface, the receipt it gives, and the hashing that proves a copy.

A target's word is never enough: each one compares what the destination holds with the sha256 of
what was sent, and only then returns a `Receipt`.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict

from segcore.sealed.card import CARD_FILE

SECRET_VARIABLES = ("YADISK_TOKEN", "WANDB_API_KEY")
"""Environment variables whose values must not reach a log, an error or a file."""

_CHUNK_BYTES = 1 << 20

Progress = Callable[[str, int, int], None]
"""Called as `(file name, bytes done, bytes in total)`; the bytes fall back to 0 when a file is sent again."""


class FileDigest(TypedDict):
    """Content identity of one file."""

    sha256: str
    size: int


class SpecLike(Protocol):
    """Anything with a kind and a location, such as the config's own target entries."""

    @property
    def kind(self) -> str:
        """A key of `TARGETS`."""

    @property
    def location(self) -> str:
        """Where, in the target's own words."""


@dataclass(frozen=True)
class TargetSpec:
    """Where to export to: a kind of target (a key of `TARGETS`) and a location that only that kind understands."""

    kind: str
    location: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.location}"


@dataclass(frozen=True)
class TrackingContext:
    """What a tracked run knows of itself; only `wandb_artifact` looks at it.

    Attributes:
        mode: `auto`, `online`, `offline` or `disabled`, as in `tracking.wandb.mode`.
        project: W&B project of the search.
        entity: W&B team or user; None for the key's own.
        group: Group of the search's runs, usually the run's name.
        run_dir: The run's folder, where W&B may keep its local files.
    """

    mode: str = "auto"
    project: str = "segsearch"
    entity: str | None = None
    group: str | None = None
    run_dir: Path | None = None


@dataclass(frozen=True)
class Receipt:
    """Proof of a finished export: what the destination was seen to hold.

    Attributes:
        target: Kind of the target.
        location: Where, in the target's own words.
        files: sha256 and size in bytes of each file, as compared with the destination.
        url: A page on which a person finds the files, where there is one.
        seconds: Wall-clock time of the export.
    """

    target: str
    location: str
    files: dict[str, FileDigest]
    url: str | None
    seconds: float


class Target(Protocol):
    """One destination for a sealed model."""

    kind: str
    location: str

    def check(self) -> None:
        """Finds what would stop an upload, without a network request.

        Raises:
            ExportError: Something that the target needs is missing, and the message says how to get it.
        """

    def upload(self, files: Mapping[str, Path], *, progress: Progress | None = None) -> Receipt:
        """Puts the files there, verifies them, and leaves what was there before intact when that fails.

        Raises:
            ExportError: The destination refused the files or does not hold what was sent.
        """


def digest_of(path: Path) -> FileDigest:
    """Hashes a file in one pass."""
    sha256, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            sha256.update(chunk)
            size += len(chunk)
    return {"sha256": sha256.hexdigest(), "size": size}


def card_last(names: Mapping[str, object]) -> list[str]:
    """File names in the order in which a reader may see them appear: the card only after what it vouches for."""
    return sorted(names, key=lambda name: (name == CARD_FILE, name))


def redact(text: str) -> str:
    """Replaces the value of every secret of this process in a text."""
    for variable in SECRET_VARIABLES:
        secret = os.environ.get(variable, "").strip()
        if secret:
            text = text.replace(secret, "***")
    return text


def megabytes(size: int) -> str:
    """A byte count for people."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} bytes"
