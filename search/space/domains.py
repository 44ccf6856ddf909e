"""Where the values of one parameter come from: ranges, choices and fixed values, and what is believed beforehand."""

import json
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

if TYPE_CHECKING:
    from numpy.random import Generator

KINDS = ("uniform", "loguniform", "quniform", "int", "choice")
DOMAINS = (*KINDS, "step", "prior")
"""The words that make a map in `space:` a domain rather than a section."""
Scalar: TypeAlias = bool | int | float | str | None
_NARROWEST_SHARE = 1e-15


@dataclass(frozen=True)
class Prior:
    """Where good values are believed to lie.

    For a range, `width` is a standard deviation in the unit of the range's own scale: decades where it is logarithmic,
    else the value's own. For a choice, it is the share of the draws that the options other than `center` get together.
    """

    center: Any
    width: float


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `step` is None for a continuous range."""

    low: float
    high: float
    integer: bool = False
    log: bool = False
    step: float | None = None
    widest: ClassVar[float] = 1e12

    def describe(self) -> str:
        """For a table: `1e-05 to 0.01, log`."""
        kind = [
            "whole numbers" if self.integer else "",
            "log" if self.log else "",
            f"step {self.step:g}" if self.step else "",
        ]
        return ", ".join([f"{self.low:g} to {self.high:g}", *filter(None, kind)])

    def holds(self, value: object) -> bool:
        """Whether the range can yield the value."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            return False
        if self.integer and value != int(value):
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return math.isclose(steps, round(steps), abs_tol=1e-9)

    @property
    def size(self) -> int | None:
        """How many values there are; None for a continuous range."""
        return 1 + round((self.high - self.low) / self._grid) if self._grid else None

    def values(self) -> list[float]:
        """Every value of a stepped range, ascending; nothing of a continuous one."""
        values = [self.low + index * self._grid for index in range(self.size or 0)]
        return [round(value) if self.integer else float(value) for value in values]

    @property
    def default_width(self) -> float:
        """The width of a prior that names none: a quarter of the range on its own scale."""
        return (self._position(self.high) - self._position(self.low)) / 4

    @property
    def width_rule(self) -> str:
        """What the width of a prior is, for an error."""
        unit = "decades, 0.5 being a factor of 3" if self.log else "the unit of the value"
        return f"above 0, a standard deviation in {unit} (default {self.default_width:.3g})"

    def draw(self, rng: "Generator", prior: Prior | None = None) -> float:
        """A random value: even on the range's own scale, or from a normal cut off at the range's ends."""
        half = self._grid / 2  # each value of a stepped range, the ends too, owns one step
        low, high = self._position(self.low) - half, self._position(self.high) + half
        if prior is None:
            return self._value(rng.uniform(low, high))
        # A very wide normal is flat here already; wider still, and rounding would spoil it.
        normal = NormalDist(self._position(prior.center), min(prior.width, 100 * (high - low)))
        share = rng.uniform(normal.cdf(low), normal.cdf(high))
        return self._value(normal.inv_cdf(min(max(share, _NARROWEST_SHARE), 1 - _NARROWEST_SHARE)))

    @property
    def _grid(self) -> float:
        return self.step or float(self.integer)

    def _position(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def _value(self, position: float) -> float:
        value = 10.0**position if self.log else position
        if self._grid:
            value = self.low + round((value - self.low) / self._grid) * self._grid
        value = min(max(value, self.low), self.high)
        return round(value) if self.integer else float(value)


@dataclass(frozen=True)
class Option:
    """One value of a choice and what it brings with it."""

    value: Any
    nodes: tuple["Node", ...] = ()

    @property
    def label(self) -> Scalar:
        """The value as Optuna stores it: a list becomes its JSON text."""
        return json.dumps(self.value) if isinstance(self.value, (list, tuple)) else self.value


@dataclass(frozen=True)
class Choice:
    """One of several values, each with parameters of its own."""

    options: tuple[Option, ...]
    default_width: ClassVar[float] = 0.5
    widest: ClassVar[float] = 1.0
    width_rule: ClassVar[str] = "above 0 and up to 1, the share of all the others together (default 0.5)"

    def describe(self) -> str:
        """For a table: `adamw | sgd`."""
        return " | ".join(plain(option.value) for option in self.options)

    def option(self, value: object) -> Option | None:
        """The option with this value, or None."""
        return next((option for option in self.options if same_value(option.value, value)), None)

    def holds(self, value: object) -> bool:
        """Whether the value is one of the options."""
        return self.option(value) is not None

    def draw(self, rng: "Generator", prior: Prior | None = None) -> Any:
        """The value of a random option: all alike, or the prior's center and the others by their shares."""
        options = self.options
        if prior is not None:
            others = tuple(option for option in options if not same_value(option.value, prior.center))
            if not others or rng.random() >= prior.width:
                return prior.center
            options = others
        return options[int(rng.integers(len(options)))].value


@dataclass(frozen=True)
class Fixed:
    """A value that a branch sets without searching it."""

    value: Any

    def describe(self) -> str:
        """For a table: `= 0.9`."""
        return f"= {plain(self.value)}"


@dataclass(frozen=True)
class Node:
    """A dotted config key, where its values come from, its name in the study, and what is believed of it."""

    key: str
    domain: Range | Choice | Fixed
    name: str
    prior: Prior | None = None


def same_value(a: object, b: object) -> bool:
    """Equality that tells true from 1 and takes a list for a tuple."""
    a, b = (list(x) if isinstance(x, tuple) else x for x in (a, b))
    return isinstance(a, bool) == isinstance(b, bool) and a == b


def plain(value: object) -> str:
    """A value as YAML would show it: `true`, `null`, `adamw`, `[16, 8]`."""
    return value if isinstance(value, str) else json.dumps(value)
