"""What `segsearch space` prints, from the record that `search.show.survey` makes."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from search.space.domains import plain

_WIDEST_CELL = 24


def render_space(record: Mapping[str, Any], width: int, train: str) -> list[RenderableType]:
    """The tree, what is forbidden, the points tried first, sample points, and warnings.

    Args:
        record: What `survey` returned.
        width: Columns of the terminal, which decide how many points stand side by side.
        train: The command that trains the config once, without a search.
    """
    if not record["parameters"]:
        return [Text(f"nothing is searched: space is empty; one training run is: {train}")]
    parts: list[RenderableType] = [_tree(record), ""]
    if record["forbid"]:
        parts.append(_forbidden(record))
    first = {"config": record["first"]} if record["first"] is not None else {}
    enqueued = {f"enqueue[{index}]": point for index, point in enumerate(record["enqueued"])}
    if record["first"] is None:
        parts.append(Text(f"the config's own values are no point of the space: {record['why_no_first']}\n"))
    elif not enqueued:
        parts.append(Text("the first trial: the config's own values (config)\n"))
    keys = record["keys"]
    parts += _points("tried first", {**first, **enqueued}, keys, width)
    samples = {f"{number}": point for number, point in enumerate(record["samples"], start=1)}
    parts += _points("random points, as trials may look", samples, keys, width)
    parts += [Text.assemble(("warning: ", "bold yellow"), warning) for warning in record["warnings"]]
    return parts


def _tree(record: Mapping[str, Any]) -> Tree:
    tree = Tree(Text.assemble((f"space of {record['name']}", "bold"), f": {_size_words(record['size'])}"))
    for parameter in record["parameters"]:
        _grow(tree, parameter)
    return tree


def _grow(tree: Tree, parameter: Mapping[str, Any]) -> None:
    prior = (f"  prior: {parameter['prior']['text']}", "green") if parameter["prior"] else ""
    options = parameter.get("options", [])
    if not any(option["parameters"] for option in options):
        tree.add(Text.assemble((parameter["key"], "cyan"), f"  {parameter['values']}", prior))
        return
    branch = tree.add(Text.assemble((parameter["key"], "cyan"), "  one of", prior))
    for option in options:
        label = Text(plain(option["value"]), style="bold")
        if option["parameters"]:
            label.append(f"  {_size_words(option['size'])}", style="dim not bold")
        twig = branch.add(label)
        for below in option["parameters"]:
            _grow(twig, below)


def _size_words(size: Mapping[str, int]) -> str:
    count, low, high = size["combinations"], size["min_continuous"], size["max_continuous"]
    discrete = f"{count:,}" if count < 1e9 else f"{count:.2g}"
    combinations = f"{discrete} discrete combination{'s' if count > 1 else ''}"
    dimensions = f"{high} continuous" if low == high else f"{low} to {high} continuous"
    dimensions += f" dimension{'s' if high > 1 else ''}"
    if not high:
        return combinations
    return f"{combinations} x {dimensions}" if count > 1 else dimensions


def _forbidden(record: Mapping[str, Any]) -> Table:
    table = Table(title="forbidden", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("expression", overflow="fold")
    table.add_column("of random points", justify="right")
    for rule in record["forbid"]:
        table.add_row(Text(rule["expression"]), f"{rule['share']:.1%}")
    if len(record["forbid"]) > 1:
        table.add_row("all together", f"{record['forbidden_share']:.1%}", style="dim")
    return table


def _points(
    title: str, points: Mapping[str, Mapping[str, Any]], order: Sequence[str], width: int
) -> list[RenderableType]:
    """One row a key and one column a point; as many tables as the width asks for."""
    keys = [key for key in order if any(key in point for point in points.values())]
    columns = {
        heading: [_cell(point[key]) if key in point else "" for key in keys] for heading, point in points.items()
    }
    room = width - max(map(len, keys), default=0) - 4
    tables: list[RenderableType] = []
    for block in _blocks(columns, room):
        table = Table(title=title if not tables else None, title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("key", style="cyan", overflow="fold")
        for heading in block:
            table.add_column(Text(heading), justify="right", overflow="fold", max_width=_WIDEST_CELL)
        for index, key in enumerate(keys):
            table.add_row(key, *(Text(columns[heading][index]) for heading in block))
        tables.append(table)
    return tables


def _blocks(columns: Mapping[str, Sequence[str]], room: int) -> list[list[str]]:
    blocks: list[list[str]] = []
    left = 0
    for heading, cells in columns.items():
        wide = 3 + min(_WIDEST_CELL, max(map(len, (heading, *cells))))
        if not blocks or wide > left:
            blocks.append([])
            left = room
        blocks[-1].append(heading)
        left -= wide
    return blocks


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else plain(value)
