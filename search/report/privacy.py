"""What a page that is passed around must not hold: secrets, and where things lie on the machine that made it."""

import math
import re
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar, cast

from search.config.choices import TARGETS, secret_variables
from search.secrets import redact
from segcore.record import Record

Tree = TypeVar("Tree")
_PATH = re.compile(r"(?<![\w.:/~-])(?:~|/)(?:[^\s/'\"`,;:()\[\]{}<>|=]*/)+([^\s/'\"`,;:()\[\]{}<>|=]+)")
_OURS = frozenset(target.name for target in TARGETS if not target.build.is_path)
"""Keys whose values are paths elsewhere than on this machine."""


def without_private(value: Tree) -> Tree:
    """The same record or tree: paths cut to their last part, secrets starred, non-finite numbers None."""
    return cast("Tree", _cleaned(value))


def _cleaned(value: object) -> object:
    if isinstance(value, Record):
        names = [*value.model_fields_set, *(value.model_extra or {})]
        return value.model_copy(update={name: _cleaned(getattr(value, name)) for name in names})
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _cleaned(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, dict):
        return {
            key: redact(item, secret_variables()) if key in _OURS and isinstance(item, str) else _cleaned(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_cleaned(item) for item in value)
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
