"""Components: the things that a config chooses by name, each of which declares itself in one place.

A loss, optimizer, schedule, architecture, sampler, scheduler, data layout or export target is one `Component`: its
name, a one-line summary, its options (typed, with ranges and help), the config keys that it reads, and how it is
built. A `Registry` holds the components of one kind. The config's types, its JSON schema, the checks for unused keys,
error messages, the docs' tables and the report's names are derived from it, so adding a component needs no other
change.

Declaring must be cheap: a config is checked before torch, Ray or a client library is imported, so a module that
declares a component imports such libraries inside the function that builds it. It cannot import the config's types
either, because they are built from the declarations. Declaring does not need pydantic; only building a section does.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from segcore.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel

Build = TypeVar("Build")


@dataclass(frozen=True)
class Option:
    """A config key that a component reads, in the config section of its kind.

    Attributes:
        name: The key, e.g. `momentum`.
        type: A type for pydantic: `float`, `int | None`, or an `Annotated` type for a rule that has no field here.
        default: Its value where the config does not set it.
        help: One line for the schema and the docs.
        ge: Inclusive lower bound.
        gt: Exclusive lower bound.
        le: Inclusive upper bound.
        lt: Exclusive upper bound.
        min_length: Minimum number of characters of a string.
        argument: The builder's argument name, where it is not `name`.
        order: Sort key within the section; ties keep the order of the components that read the options.
    """

    name: str
    type: Any
    default: Any
    help: str = ""
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    min_length: int | None = None
    argument: str = ""
    order: int = 50


@dataclass(frozen=True)
class Component(Generic[Build]):
    """One thing that a config can choose.

    Attributes:
        name: Its name in the config.
        summary: One line for help, schema and docs.
        build: How it is built; its type and arguments depend on the kind.
        options: The keys of its section that it reads. Several components may share an option, declared equally.
        reads: Further dotted keys that it reads and that other components of its kind may not read.
        order: Sort key in messages and tables; ties are sorted by name.
    """

    name: str
    summary: str
    build: Build
    options: tuple[Option, ...] = ()
    reads: tuple[str, ...] = ()
    order: int = 50

    def arguments(self, section: Any) -> dict[str, Any]:
        """The values of its options in a config section, by the builder's argument names."""
        return {option.argument or option.name: getattr(section, option.name) for option in self.options}


class Registry(Generic[Build]):
    """The components of one kind, by name.

    Args:
        kind: Noun for a component in messages: `optimizer`.
        key: The config key that chooses one: `optimizer.name`.
        components: All components; empty with `package`.
        package: A package whose modules declare a `COMPONENT`, or several `COMPONENTS`. They are imported when the
            registry is first used, so they may import the module that defines the registry.

    Raises:
        ValueError: A name is used twice, or two components declare one option differently.
    """

    def __init__(
        self, kind: str, key: str, components: Sequence[Component[Build]] = (), package: str | None = None
    ) -> None:
        self.kind, self.key, self.package = kind, key, package
        self._given = tuple(components)
        if package is None:
            assert self.options is not None  # building the options checks the components now

    @classmethod
    def of_package(cls, kind: str, key: str, package: str) -> Registry[Build]:
        """A registry of what the modules of a package declare: a new file there is a new component.

        Args:
            kind: What the components are, for messages: `optimizer`.
            key: The config key that chooses one: `optimizer.name`.
            package: Dotted name of the package.
        """
        return cls(kind, key, package=package)

    @cached_property
    def _by_name(self) -> dict[str, Component[Build]]:
        found = [*self._given, *(_declared_in(self.package) if self.package else ())]
        ordered = sorted(found, key=lambda component: (component.order, component.name))
        by_name = {component.name: component for component in ordered}
        if len(by_name) < len(ordered):
            raise ValueError(f"two components of the kind {self.kind} share a name: {[c.name for c in ordered]}")
        return by_name

    @cached_property
    def options(self) -> dict[str, Option]:
        """Every option of this kind by name, in the order of its section."""
        options: dict[str, Option] = {}
        for option in (option for component in self for option in component.options):
            if options.setdefault(option.name, option) != option:
                raise ValueError(f"{self.kind}: the option {option.name} is declared in two ways")
        return dict(sorted(options.items(), key=lambda item: item[1].order))

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of messages and tables."""
        return tuple(self._by_name)

    @property
    def literal(self) -> Any:
        """A `Literal` type of all names, for the config."""
        return Literal[self.names]

    def __iter__(self) -> Iterator[Component[Build]]:
        return iter(self._by_name.values())

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Component[Build]:
        """The component of that name.

        Raises:
            ConfigError: There is none; the message lists the valid names.
        """
        if name not in self._by_name:
            raise ConfigError(f"{self.key}: no {self.kind} {name!r}; valid: {', '.join(self.names)}")
        return self._by_name[name]

    def key_of(self, option: str) -> str:
        """The dotted key of an option, in the section of the key that chooses a component: `optimizer.momentum`."""
        return f"{self.key.rpartition('.')[0] or self.key}.{option}"

    def readers(self, option: str) -> tuple[str, ...]:
        """Names of the components that read an option, in the registry's order."""
        return tuple(component.name for component in self if option in {each.name for each in component.options})

    def unused_by(self, name: str) -> tuple[str, ...]:
        """Options of this kind that the component of that name does not read."""
        used = {option.name for option in self[name].options}
        return tuple(option for option in self.options if option not in used)

    def idle_with(self, name: str) -> tuple[str, ...]:
        """Dotted keys that other components of this kind read and the component of that name does not."""
        reads = [key for component in self for key in component.reads if key not in self[name].reads]
        return tuple(dict.fromkeys([*map(self.key_of, self.unused_by(name)), *reads]))

    def section(self, base: type[BaseModel], says_readers: bool = False) -> Any:
        """A config section: the fields of `base`, then every option of this kind with its type, default and help.

        Args:
            base: The section's class, with its docstring, its validators and the fields that are not options.
            says_readers: Whether an option's help starts with the names of the components that read it.
        """
        return with_options(base, self.options.values(), self if says_readers else None)


def with_options(base: type[BaseModel], options: Iterable[Option], registry: Registry[Any] | None = None) -> Any:
    """Create a config section with the fields of `base` and these options.

    Args:
        base: The section's class.
        options: Added as fields, in this order.
        registry: Where given, each option's help starts with the names of its components that read the option.
    """
    from pydantic import Field, create_model

    fields = {}
    for option in options:
        readers = f"{', '.join(registry.readers(option.name))}: " if registry else ""
        limits = {name: getattr(option, name) for name in ("ge", "gt", "le", "lt", "min_length")}
        given = {name: limit for name, limit in limits.items() if limit is not None}
        fields[option.name] = (
            option.type,
            Field(option.default, description=f"{readers}{option.help}" or None, **given),
        )
    return create_model(  # type: ignore[call-overload]
        base.__name__, __base__=base, __module__=base.__module__, __doc__=base.__doc__, **fields
    )


def _declared_in(package: str) -> Iterator[Component[Any]]:
    """What the modules of a package declare, imported one by one."""
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{found.name}")
        yield from getattr(module, "COMPONENTS", ())
        if hasattr(module, "COMPONENT"):
            yield module.COMPONENT
