"""Components: the things that a config chooses by name, each of which declares itself in one place.

A loss, optimizer, schedule, architecture, sampler, scheduler, data layout or export target is one `Component`: its
name, what it is in one line, its options (typed, with ranges and help), the config keys that it reads, and how it is
built. A `Registry` holds the components of one kind. The config's types, its JSON schema, the checks for idle keys,
error messages, the docs' tables and the report's names are derived from it, so that adding one needs no other change.

Declaring must be cheap: a config is checked before torch, Ray or a client library is imported, so a module that
declares a component imports such libraries inside the function that builds it.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field, create_model

from segcore.errors import ConfigError

Build = TypeVar("Build")


@dataclass(frozen=True)
class Option:
    """A config key that a component reads and that stands in its kind's own section.

    Attributes:
        name: The key, e.g. `momentum`.
        type: What pydantic takes, with its range: `Annotated[float, Field(ge=0.0, lt=1.0)]`.
        default: Its value where the config is silent.
        help: One line for the schema and the docs.
    """

    name: str
    type: Any
    default: Any
    help: str = ""


@dataclass(frozen=True)
class Component(Generic[Build]):
    """One thing that a config can choose.

    Attributes:
        name: As the config spells it.
        summary: One line: what it is, for help, schema and docs.
        build: How it is built; what its arguments are is the kind's affair.
        options: The keys of its section that it reads. Several components may share one, declared alike.
        reads: Dotted keys outside of its section that it reads too.
        order: Where it stands among its kind, in messages and tables; equal ones are sorted by name.
    """

    name: str
    summary: str
    build: Build
    options: tuple[Option, ...] = ()
    reads: tuple[str, ...] = ()
    order: int = 50


class Registry(Generic[Build]):
    """The components of one kind, by name.

    Args:
        kind: What they are, for messages: `optimizer`.
        key: The config key that chooses one: `optimizer.name`.
        components: All of them.

    Raises:
        ValueError: A name is taken twice, or two components declare one option differently.
    """

    def __init__(self, kind: str, key: str, components: list[Component[Build]]) -> None:
        self.kind, self.key = kind, key
        ordered = sorted(components, key=lambda component: (component.order, component.name))
        self._by_name = {component.name: component for component in ordered}
        if len(self._by_name) < len(components):
            raise ValueError(f"two components of the kind {kind} share a name: {[c.name for c in ordered]}")
        self.options: dict[str, Option] = {}
        for option in (option for component in ordered for option in component.options):
            if self.options.setdefault(option.name, option) != option:
                raise ValueError(f"{kind}: the option {option.name} is declared in two ways")

    @classmethod
    def of_package(cls, kind: str, key: str, package: str) -> "Registry[Build]":
        """The `COMPONENT` of each module of a package: a new file there is a new component."""
        folder = importlib.import_module(package).__path__
        modules = (importlib.import_module(f"{package}.{found.name}") for found in pkgutil.iter_modules(folder))
        return cls(kind, key, [module.COMPONENT for module in modules if hasattr(module, "COMPONENT")])

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of messages and tables."""
        return tuple(self._by_name)

    @property
    def literal(self) -> Any:
        """A `Literal` of all names, for a config's type."""
        return Literal[self.names]

    def __iter__(self) -> Iterator[Component[Build]]:
        return iter(self._by_name.values())

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __getitem__(self, name: str) -> Component[Build]:
        """The component of that name.

        Raises:
            ConfigError: There is none; says which there are.
        """
        if name not in self._by_name:
            raise ConfigError(f"{self.key}: no {self.kind} {name!r}; valid: {', '.join(self.names)}")
        return self._by_name[name]

    def unused_by(self, name: str) -> tuple[str, ...]:
        """Options of this kind that the component of that name does not read."""
        used = {option.name for option in self[name].options}
        return tuple(option for option in self.options if option not in used)

    def section(self, base: type[BaseModel]) -> Any:
        """A config section: the fields of `base`, and every option of this kind with its type, default and help."""
        fields = {
            option.name: (option.type, Field(option.default, description=option.help or None))
            for option in self.options.values()
        }
        return create_model(  # type: ignore[call-overload]
            base.__name__, __base__=base, __module__=base.__module__, __doc__=base.__doc__, **fields
        )
