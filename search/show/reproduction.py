"""What `segsearch reproduce` prints, from the record that `search.stages.reproducing` makes."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

_WEIGHTS = {
    "equal": "the best epoch's weights are equal, bit by bit",
    "different": "the best epoch's weights differ",
    "not compared": "the best epoch's weights could not be compared: its checkpoint is gone, or of another epoch",
}


def render_reproduction(record: Mapping[str, Any]) -> Iterator[RenderableType]:
    """A table of epochs, and whether it matched."""
    metric, rows = record["metric"], record["epochs"]
    title = f"trial {record['trial']} of {record['run']}, trained again for {len(rows)} epochs"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("epoch", f"{metric} recorded", "now", "difference", "all metrics"):
        table.add_column(heading, justify="right")
    for row in rows:
        different = ", ".join(row["different"][:3]) + (", ..." if len(row["different"]) > 3 else "")
        table.add_row(
            str(row["epoch"]), _number(row["recorded"]), _number(row["new"]), _difference(row["difference"]),
            "equal" if row["equal"] else f"differ: {different}" if different else "not recorded",
        )  # fmt: skip
    yield table
    if record["parent"]:
        parent, epoch = record["parent"]
        yield Text(f"a fork: it continues from epoch {epoch} of trial {parent}, which was trained again before it")
    yield Text(_WEIGHTS[record["weights"]])
    if record["noise"] is not None:
        yield Text(f"two trainings on this GPU differ by up to {record['noise']:.3g} in {metric}")
    for field, (then, now) in record.get("differs", {}).items():
        yield Text(f"not as it was then: {field} was {then}, is {now}")
    how = {"bitwise": "matched, bit by bit", "different": "did not match"}
    text = how.get(record["how"], f"matched {record['how']}")
    if not record["matched"] and not record.get("differs"):
        text += "; machine and versions are those of then, as far as the run recorded them"
    yield Text(text, style="bold green" if record["matched"] else "bold red")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6f}"


def _difference(value: float | None) -> str:
    return "-" if value is None else "0" if value == 0 else f"{value:+.2e}"
