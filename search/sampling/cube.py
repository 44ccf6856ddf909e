"""A search space as numbers: its points as positions in the unit cube, and as features that distances make sense in."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.space.domains import Choice, Node, Range
from search.space.tree import Space
from segcore.params import Params, ParamValue

Array = NDArray[np.float64]


class Cube:
    """The unit cube of a space, one axis per parameter, those of all branches included.

    A position on a range's axis is the share of the way from its low to its high end, on the range's own scale; a
    stepped range and a choice cut their axis into equal parts. Axes of branches that a point does not take are 0.5.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.parameters = space.parameters()
        self._axis = {node.name: axis for axis, node in enumerate(self.parameters)}

    @property
    def num_axes(self) -> int:
        """How many parameters there are."""
        return len(self.parameters)

    @property
    def num_features(self) -> int:
        """Columns of `features`: one per range, one per option of a choice."""
        return sum(_num_options(node) or 1 for node in self.parameters)

    @property
    def num_points(self) -> int | None:
        """How many points there are at most; None where a range is continuous."""
        sizes = [_num_cells(node) for node in self.parameters]
        return None if None in sizes else math.prod(size for size in sizes if size)

    def point(self, position: Array) -> Params:
        """The point at a position `(num_axes,)`: flat dotted key -> value, as a trial has it."""
        return self.space.suggest(_At({name: float(position[axis]) for name, axis in self._axis.items()}))  # type: ignore[arg-type]

    def position(self, flat: Mapping[str, ParamValue]) -> Array:
        """The position `(num_axes,)` of a point; the inverse of `point`.

        Raises:
            KeyError, ValueError: It is not a point of the space.
        """
        found = np.full(self.num_axes, 0.5)
        for name, value in self.space.to_params(flat).items():
            domain = self.parameters[self._axis[name]].domain
            if isinstance(domain, Choice):
                labels = [option.label for option in domain.options]
                index = next(i for i, label in enumerate(labels) if label == value and type(label) is type(value))
                found[self._axis[name]] = (index + 0.5) / len(labels)
            elif isinstance(domain, Range) and isinstance(value, int | float):
                found[self._axis[name]] = _position(domain, value)
        return found

    def features(self, positions: Array) -> Array:
        """Positions `(N, num_axes)` as `(N, num_features)`: ranges in [0, 1], choices one-hot, unused axes ignored.

        Two different options are as far from each other as the two ends of a range.
        """
        active = self._active(positions)
        columns = []
        for axis, node in enumerate(self.parameters):
            options, cells = _num_options(node), _num_cells(node)
            here = positions[:, axis]
            if options:
                chosen = np.minimum((here * options).astype(int), options - 1)
                columns.append(np.eye(options)[chosen] * active[:, axis, None] / math.sqrt(2.0))
                continue
            if cells:
                here = (np.minimum(np.floor(here * cells), cells - 1) + 0.5) / cells
            columns.append(np.where(active[:, axis], here, 0.5)[:, None])
        return np.concatenate(columns, axis=1)

    def _active(self, positions: Array) -> NDArray[np.bool_]:
        """Which parameters the points take, `(N, num_axes)`."""
        active = np.zeros(positions.shape, dtype=bool)

        def visit(nodes: Sequence[Node], taken: NDArray[np.bool_]) -> None:
            for node in nodes:
                axis = self._axis.get(node.name)
                if axis is None:  # a fixed value
                    continue
                active[:, axis] |= taken
                if isinstance(node.domain, Choice):
                    options = node.domain.options
                    chosen = np.minimum((positions[:, axis] * len(options)).astype(int), len(options) - 1)
                    for index, option in enumerate(options):
                        visit(option.nodes, taken & (chosen == index))

        visit(self.space.nodes, np.ones(len(positions), dtype=bool))
        return active


class _At:
    """Suggests the values at one position; stands in for an Optuna trial."""

    def __init__(self, positions: Mapping[str, float]) -> None:
        self._positions = positions

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return choices[min(int(self._positions[name] * len(choices)), len(choices) - 1)]

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        return int(_value(Range(low, high, integer=True, step=step), self._positions[name]))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return _value(Range(low, high, step=step, log=log), self._positions[name])


def _num_options(node: Node) -> int:
    return len(node.domain.options) if isinstance(node.domain, Choice) else 0


def _num_cells(node: Node) -> int | None:
    """Into how many parts the axis is cut; None for a continuous one."""
    return node.domain.size if isinstance(node.domain, Range) else _num_options(node)


def _value(domain: Range, position: float) -> float:
    if domain.size:
        index = min(int(position * domain.size), domain.size - 1)
        return domain.low + index * (domain.step or 1)
    if domain.log:
        value = math.exp(math.log(domain.low) + position * (math.log(domain.high) - math.log(domain.low)))
    else:
        value = domain.low + position * (domain.high - domain.low)
    return float(min(max(value, domain.low), domain.high))


def _position(domain: Range, value: float) -> float:
    if domain.size:
        return (round((value - domain.low) / (domain.step or 1)) + 0.5) / domain.size
    if domain.log:
        return math.log(value / domain.low) / math.log(domain.high / domain.low)
    return (value - domain.low) / (domain.high - domain.low)
