"""Rows as a table of Arrow."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa


def arrow_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table with a column for each key of any row, None where a row lacks it; `number`, where there are no rows."""
    columns = list(dict.fromkeys(key for row in rows for key in row)) or ["number"]
    return pa.table({name: _column([row.get(name) for row in rows]) for name in columns})


def _column(values: list[Any]) -> pa.Array:
    """A typed column; a parameter with values of several types (`auto` or a number) becomes text."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1:
        if kinds <= {int, float}:
            return pa.array([None if value is None else float(value) for value in values])
        return pa.array([None if value is None else str(value) for value in values])
    return pa.array(values)
