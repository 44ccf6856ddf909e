"""Records of the report as JSON, and as a page may show them."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Protocol, runtime_checkable

from segcore.record import Record


@runtime_checkable
class HasJson(Protocol):
    """A record whose JSON is not simply its fields."""

    def as_json(self) -> Mapping[str, object]:
        """Its keys and values; these may be records again."""


def as_json(value: object) -> Any:
    """A tree of records, lists and mappings as JSON has it: a dataclass becomes an object with its fields as keys."""
    if isinstance(value, HasJson):
        return as_json(value.as_json())
    if isinstance(value, Record):
        return value.tree()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value


def known(**values: object) -> dict[str, object]:
    """The values that are not None: keys which a record has only where there is something to say."""
    return {key: value for key, value in values.items() if value is not None}
