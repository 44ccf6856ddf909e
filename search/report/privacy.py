"""What a page that is passed around must not hold: secrets, and where things lie on the machine that made it."""

import math
import re
from typing import Any

from search.config.choices import TARGETS, secret_variables
from search.secrets import redact

_PATH = re.compile(r"(?<![\w.:/~-])(?:~|/)(?:[^\s/'\"`,;:()\[\]{}<>|=]*/)+([^\s/'\"`,;:()\[\]{}<>|=]+)")
_OURS = frozenset(target.name for target in TARGETS if not target.build.is_path)
"""Keys whose values are paths elsewhere than on this machine."""


def without_private(value: Any) -> Any:
    """The same tree for JSON: paths cut to their last part, secrets starred, and None for a number that is none."""
    if isinstance(value, dict):
        return {
            key: redact(item, secret_variables()) if key in _OURS and isinstance(item, str) else without_private(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_private(item) for item in value]
    if isinstance(value, str):
        return redact(shorten_paths(value), secret_variables())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def shorten_paths(text: str) -> str:
    """Each absolute path in a text as `.../name`; a text that is one path as a whole may hold spaces."""
    if re.match(r"~?/", text) and "\n" not in text and not re.search(r"\s~?/", text):
        return f".../{text.rstrip('/').rpartition('/')[2]}"
    return _PATH.sub(r".../\1", text)
