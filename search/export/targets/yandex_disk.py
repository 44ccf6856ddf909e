"""Target `yandex_disk: /folder`: declared here; `search.export.yandex` is what it is built of."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from search.export.files import Progress
from search.export.target import Destination, Target, TrackingContext, destination
from search.export.yandex.token import TOKEN_VARIABLE


def _open(location: str, context: TrackingContext) -> Target:
    from search.export.yandex.upload import YandexDiskTarget

    return YandexDiskTarget(location)


def _fetch(location: str, folder: Path, progress: Progress | None) -> Path:
    from search.export.yandex.download import download

    return download(location, folder, progress=progress)


COMPONENT = destination(
    "yandex_disk",
    "An absolute path on the disk: /models/attention.",
    Annotated[str, Field(pattern=r"^(disk:|app:)?/.*[^/]$")],
    Destination(open=_open, placeholder="/PATH", secrets=(TOKEN_VARIABLE,), is_service=True, fetch=_fetch),
    order=20,
)
