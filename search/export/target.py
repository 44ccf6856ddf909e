"""What an export target is: how it declares itself, what it does, and the receipt it gives.

An upload's success is never taken on trust: each target compares what the destination holds with the sha256 of
what was sent, and only then returns a `Receipt`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from search.export.files import FileDigest, Progress
from segcore.component import Component, Option


class SpecLike(Protocol):
    """Anything with a kind and a location, such as the config's own target entries."""

    @property
    def kind(self) -> str:
        """The name of a target."""

    @property
    def location(self) -> str:
        """Where, in the target's own words."""


@dataclass(frozen=True)
class TargetSpec:
    """Where to export to: the name of a target and a location that only that kind understands."""

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


class Asked(Protocol):
    """A target that is a service, which can be asked whether it would take an upload."""

    def ask(self, timeout_s: float) -> str | None:
        """Asks it with one short request.

        Args:
            timeout_s: Longest wait in seconds.

        Returns:
            Why nothing is known, if so: it cannot be reached.

        Raises:
            ExportError: It refuses our key or token.
        """


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


@dataclass(frozen=True)
class Destination:
    """How one kind of target is built, and what the rest of the program has to know of it.

    Attributes:
        open: Builds it from a location and what the run knows of itself; nothing is sent yet.
        placeholder: Stands for a location in the docs: `PATH`.
        secrets: Environment variables that it reads a secret from; their values are kept out of every text.
        is_path: A location is a path of this machine, so that it is made absolute, and shortened in reports.
        is_service: What `open` returns is `Asked`, too.
        fetch: Copies a sealed model from a location back into a folder; None where it cannot.
    """

    open: "Callable[[str, TrackingContext], Target]"
    placeholder: str
    secrets: tuple[str, ...] = ()
    is_path: bool = False
    is_service: bool = False
    fetch: "Callable[[str, Path, Progress | None], Path] | None" = None


def destination(
    name: str, summary: str, location: Any, build: Destination, *, reads: tuple[str, ...] = (), order: int = 50
) -> Component[Destination]:
    """An export target as a component: the one key of its entry in the config is its name.

    Args:
        name: Its key, as in `{local: exported}`.
        summary: What a location is, for the schema and for messages: `A folder.`
        location: The type of a location, as pydantic takes it: `Annotated[str, Field(min_length=1)]`.
        build: How it is built.
        reads: Dotted config keys beside the location that it is built from.
        order: Where it stands among the targets.
    """
    option = Option(name, location | None, None, summary)
    return Component(name, summary, build, (option,), reads, order)
