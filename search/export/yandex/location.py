"""Where a model lies on Yandex Disk: a folder's path in its one spelling, and the page that shows it."""

from urllib.parse import quote

from search.errors import ExportError


def clean_path(location: str) -> str:
    """A folder on the disk in its one spelling: `/a/b`, or `app:/a` for a token that sees its own folder only.

    Raises:
        ExportError: The location is empty, the disk's root, or climbs with `..`.
    """
    text = location.strip().removeprefix("disk:")
    scheme, rest = ("app:", text.removeprefix("app:")) if text.startswith("app:") else ("", text)
    parts = [part for part in rest.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\x00" in rest or "\\" in rest:
        raise ExportError(
            f"yandex_disk: a location is a folder below the disk's root, such as /segsearch/attention, "
            f"found {location!r}"
        )
    return f"{scheme}/" + "/".join(parts)


def page_url(path: str) -> str | None:
    """The folder's page for a signed-in person; unknown for an app's own folder."""
    return None if path.startswith("app:") else f"https://disk.yandex.com/client/disk{quote(path)}"
