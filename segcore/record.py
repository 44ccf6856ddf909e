"""The base of records stored as JSON: types are checked on reading, unknown fields are kept, records are immutable.

Layer 0.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError


class Record(BaseModel):
    """A JSON object with known fields; unknown ones are kept and written back."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)  # `ls` needs few of them

    def tree(self) -> dict[str, Any]:
        """The JSON object: the fields that were given, in their order."""
        return self.model_dump(mode="json", exclude_unset=True)

    def but(self, **changes: Any) -> Self:
        """A copy of the record with some fields changed, after validation; None drops a field."""
        tree = {**{name: getattr(self, name) for name in self.model_fields_set}, **(self.model_extra or {}), **changes}
        return self.model_validate({name: value for name, value in tree.items() if value is not None})


def why_unreadable(path: object, tree: Mapping[str, Any], newest: int) -> str | None:
    """Why a record's format cannot be read by this version; None where it can.

    Args:
        path: Its file, for the message.
        tree: Its JSON object; one without `format` has format 1.
        newest: The newest format that can be read, at least 1.
    """
    found = tree.get("format", 1)
    if isinstance(found, int) and not isinstance(found, bool) and 1 <= found <= newest:
        return None
    if isinstance(found, int) and found > newest:
        newer = f"{path} was written by a newer segsearch (format {found}; this one reads up to {newest})"
        return f"{newer}; upgrade segsearch"
    return f"{path}: format {found!r} is not one that segsearch writes (1 to {newest})"


def wrong_fields(error: ValidationError) -> str:
    """What is wrong with a record: each invalid field by its dotted name, the rule, and the value found."""
    found = []
    for each in error.errors():
        value = "" if each["type"] in ("missing", "value_error") else f", found {each['input']!r:.60}"
        found.append(f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}{value}")
    return "; ".join(found)
