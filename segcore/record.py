"""The base of what is kept as JSON: read with its types checked, fields of later minor versions kept, never changed.

Layer 0.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError


class Record(BaseModel):
    """A JSON object of known fields; those that it does not know are kept and written back."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)  # `ls` needs few of them

    def tree(self) -> dict[str, Any]:
        """The JSON object: the fields that were given, in their order."""
        return self.model_dump(mode="json", exclude_unset=True)

    def but(self, **changes: Any) -> Self:
        """The same record with other values of some fields, which are checked; None drops a field."""
        tree = {**{name: getattr(self, name) for name in self.model_fields_set}, **(self.model_extra or {}), **changes}
        return self.model_validate({name: value for name, value in tree.items() if value is not None})


def why_unreadable(path: object, tree: Mapping[str, Any], newest: int) -> str | None:
    """Why a record's format cannot be read by this version; None where it can.

    Args:
        path: Where it stands, for the message.
        tree: Its JSON object; one without `format` is of format 1.
        newest: The newest format that can be read.
    """
    found = tree.get("format", 1)
    if isinstance(found, int) and not isinstance(found, bool) and 1 <= found <= newest:
        return None
    if isinstance(found, int) and found > newest:
        newer = f"{path} was written by a newer segsearch (format {found}; this one reads up to {newest})"
        return f"{newer}; upgrade segsearch"
    return f"{path}: format {found!r} is not one that segsearch writes (1 to {newest})"


def wrong_fields(error: ValidationError) -> str:
    """What is wrong with a record: each field by its dotted name, the rule, and what was found."""
    found = []
    for each in error.errors():
        value = "" if each["type"] in ("missing", "value_error") else f", found {each['input']!r:.60}"
        found.append(f"{'.'.join(map(str, each['loc']))}: {each['msg'].removeprefix('Value error, ')}{value}")
    return "; ".join(found)
