"""What `segsearch space` prints, from the survey that `search.show.survey` makes."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from search.show.survey import ParameterShown, Size, Survey
from search.space.domains import plain
from segcore.params import Params, ParamValue

_WIDEST_CELL = 24


def render_space(found: Survey, width: int, train: str) -> list[RenderableType]:
    """The tree, what is forbidden, the points tried first, sample points, and warnings.

    Args:
        found: What `survey` returned.
        width: Columns of the terminal, which decide how many points stand side by side.
        train: The command that trains the config once, without a search.
    """
    if not found.parameters:
        return [Text(f"nothing is searched: space is empty; one training run is: {train}")]
    parts: list[RenderableType] = [_tree(found), ""]
    if found.forbid:
        parts.append(_forbidden(found))
    first = {"config": found.first} if found.first is not None else {}
    enqueued = {f"enqueue[{index}]": point for index, point in enumerate(found.enqueued)}
    if found.first is None:
        parts.append(Text(f"the config's own values are no point of the space: {found.why_no_first}\n"))
    elif not enqueued:
        parts.append(Text("the first trial: the config's own values (config)\n"))
    keys = found.keys
    parts += _points("tried first", {**first, **enqueued}, keys, width)
    samples = {f"{number}": point for number, point in enumerate(found.samples, start=1)}
    parts += _points("random points, as trials may look", samples, keys, width)
    parts += [Text.assemble(("warning: ", "bold yellow"), warning) for warning in found.warnings]
    return parts


def _tree(found: Survey) -> Tree:
    tree = Tree(Text.assemble((f"space of {found.name}", "bold"), f": {_size_words(found.size)}"))
    for parameter in found.parameters:
        _grow(tree, parameter)
    return tree


def _grow(tree: Tree, parameter: ParameterShown) -> None:
    prior = (f"  prior: {parameter.prior.text}", "green") if parameter.prior else ""
    options = parameter.options or []
    if not any(option.parameters for option in options):
        tree.add(Text.assemble((parameter.key, "cyan"), f"  {parameter.values}", prior))
        return
    branch = tree.add(Text.assemble((parameter.key, "cyan"), "  one of", prior))
    for option in options:
        label = Text(plain(option.value), style="bold")
        if option.parameters:
            label.append(f"  {_size_words(option.size)}", style="dim not bold")
        twig = branch.add(label)
        for below in option.parameters:
            _grow(twig, below)


def _size_words(size: Size) -> str:
    count, low, high = size.combinations, size.min_continuous, size.max_continuous
    discrete = f"{count:,}" if count < 1e9 else f"{count:.2g}"
    combinations = f"{discrete} discrete combination{'s' if count > 1 else ''}"
    dimensions = f"{high} continuous" if low == high else f"{low} to {high} continuous"
    dimensions += f" dimension{'s' if high > 1 else ''}"
    if not high:
        return combinations
    return f"{combinations} x {dimensions}" if count > 1 else dimensions


def _forbidden(found: Survey) -> Table:
    table = Table(title="forbidden", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("expression", overflow="fold")
    table.add_column("of random points", justify="right")
    for rule in found.forbid:
        table.add_row(Text(rule.expression), f"{rule.share:.1%}")
    if len(found.forbid) > 1:
        table.add_row("all together", f"{found.forbidden_share:.1%}", style="dim")
    return table


def _points(title: str, points: Mapping[str, Params], order: Sequence[str], width: int) -> list[RenderableType]:
    """One row per key and one column per point, in as many tables as the width requires."""
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


def _cell(value: ParamValue) -> str:
    return f"{value:.3g}" if isinstance(value, float) else plain(value)
