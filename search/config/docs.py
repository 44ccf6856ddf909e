"""The page of everything that a config chooses by name, made from what the components declare.

`python -m search.config.docs` writes `docs/components.md`. A further registry is one more entry of `KINDS`.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from search.config.choices import SAMPLERS, SCHEDULERS, TARGETS
from search.config.problems import rule_of, schema_of
from search.space.domains import plain
from segcore.component import Component, Registry
from segcore.registries import ARCHITECTURES, LAYOUTS, LOSSES, OPTIMIZERS, SCHEDULES

KINDS: Mapping[str, Registry[Any]] = {
    "Data layouts": LAYOUTS,
    "Losses": LOSSES,
    "Optimizers": OPTIMIZERS,
    "Learning-rate schedules": SCHEDULES,
    "Architectures": ARCHITECTURES,
    "Samplers": SAMPLERS,
    "Schedulers": SCHEDULERS,
    "Export targets": TARGETS,
}
"""Heading of the page -> what stands below it."""

_HEAD = """# Components

What a config chooses by name. `python -m search.config.docs` makes this page from what each component declares in its
own file; a new file in a folder named here is a new choice, and needs no other change.
"""


def components_page() -> str:
    """The page, as Markdown."""
    return "\n".join([_HEAD, *(line for heading, kind in KINDS.items() for line in _chapter(heading, kind))])


def _chapter(heading: str, registry: Registry[Any]) -> Iterator[str]:
    yield f"## {heading}\n"
    where = f", declared in `{registry.package.replace('.', '/')}/`" if registry.package else ""
    yield f"`{registry.key}`{where}.\n"
    head = ("name", "what it does", "when", "reads") if _says_when(registry) else ("name", "what it is", "reads")
    yield from _table(head, [_row(registry, component) for component in registry])
    if set(registry.options) - set(registry.names):
        yield from _table(("option", "what it takes", "default", "what it is"), _options(registry))


def _row(registry: Registry[Any], component: Component[Any]) -> tuple[str, ...]:
    own = [registry.key_of(option.name) for option in component.options if option.name != component.name]
    keys = [*own, *component.reads]
    told = (component.build.does, component.build.when) if _says_when(registry) else (component.summary,)
    return f"`{component.name}`", *told, ", ".join(f"`{key}`" for key in keys)


def _says_when(registry: Registry[Any]) -> bool:
    """Whether components of this kind say both what they do and when to choose them."""
    return all(hasattr(component.build, "when") for component in registry)


def _options(registry: Registry[Any]) -> Iterator[tuple[str, ...]]:
    section: type[BaseModel] = registry.section(BaseModel)
    properties = schema_of(section)["properties"]
    for option in registry.options.values():
        node = {key: value for key, value in properties[option.name].items() if key != "description"}
        yield f"`{registry.key_of(option.name)}`", rule_of(section, node), f"`{plain(option.default)}`", option.help


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        cells = [cell.replace("|", r"\|") for cell in row]
        yield f"| {' | '.join(cells)} |"
    yield ""


def main(arguments: Sequence[str]) -> None:
    """Writes the page to the given path."""
    path = Path(arguments[0]) if arguments else Path("docs") / "components.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(components_page(), encoding="utf-8")
    beside.replace(path)


if __name__ == "__main__":
    main(sys.argv[1:])
