"""The OAuth token of Yandex Disk; it comes from the environment alone and is never printed."""

import os
import re

from search.errors import ExportError

TOKEN_VARIABLE = "YADISK_TOKEN"
TOKEN_HELP = (
    "make an OAuth token with the rights cloud_api:disk.read, cloud_api:disk.write and cloud_api:disk.info "
    "(register an app on https://oauth.yandex.com, or take a test token from https://yandex.com/dev/disk/poligon) "
    f"and put it into the environment: export {TOKEN_VARIABLE}=..."
)


def read_token() -> str:
    """The OAuth token of the environment.

    Raises:
        ExportError: It is not set, or cannot be a token.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        raise ExportError(f"Yandex Disk needs a token and {TOKEN_VARIABLE} is not set; {TOKEN_HELP}")
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ExportError(
            f"{TOKEN_VARIABLE} holds spaces, line breaks or letters that no token has (its value is not shown); "
            f"{TOKEN_HELP}"
        )
    return token
