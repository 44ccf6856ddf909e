"""How Yandex Disk describes files and folders."""

import hashlib
from collections.abc import Iterable
from typing import Any


def plain_path(path: str) -> str:
    """A path of a request without its `disk:` or `app:`."""
    return "/" + path.removeprefix("disk:").removeprefix("app:").strip("/")


def parent_of(path: str) -> str:
    """The folder that a path is in."""
    return path.rpartition("/")[0] or "/"


def file_resource(path: str, content: bytes) -> dict[str, Any]:
    """A file's metadata, with its size and hashes."""
    hashes = {"md5": hashlib.md5(content).hexdigest(), "sha256": hashlib.sha256(content).hexdigest()}
    return {"type": "file", "size": len(content), **hashes, **_common(path), "mime_type": "application/octet-stream"}


def folder_resource(path: str) -> dict[str, Any]:
    """A folder's metadata, without what it holds."""
    return {"type": "dir", **_common(path)}


def _common(path: str) -> dict[str, Any]:
    stamp = "2025-01-01T00:00:00+00:00"
    return {"path": f"disk:{path}", "name": path.rpartition("/")[2], "created": stamp, "modified": stamp, "revision": 1}


def chosen_fields(meta: dict[str, Any], fields: str | None) -> dict[str, Any]:
    """What the `fields` of a request leave of an answer."""
    wanted: Iterable[str] = {name.partition(".")[0] for name in fields.split(",")} if fields else meta
    return {key: value for key, value in meta.items() if key in wanted}
