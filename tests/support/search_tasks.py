"""Learning-curve tasks for comparing searches: settings in, the values of every epoch out, in no time."""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from search.space.domains import (
    Choice,
    Node,
    Option,
    Range,
)
from search.space.tree import Space

EPOCHS = 27
Array = NDArray[np.float64]


class Task(Protocol):
    """What a search is run on; larger values are better."""

    name: str
    space: Space
    best: float
    """The best value known; regret 0."""
    typical: float
    """The median of what random settings end with; regret 1."""

    def curve(self, flat: dict[str, Any]) -> Array:
        """The value after each epoch, `(EPOCHS,)`; the same settings always give the same."""


def unit_space(num_parameters: int) -> Space:
    """Numbers x0, x1, ... from 0 to 1."""
    return Space(tuple(Node(f"x{i}", Range(0.0, 1.0), f"x{i}") for i in range(num_parameters)))


def _key(values: Array, seed: int) -> int:
    return zlib.crc32(np.round(values, 12).tobytes(), seed)


class PriorTask:
    """Curves of the prior that ifBO's network was trained on: 2 to 10 parameters, curves that cross, stall, diverge.

    References:
        Rakotoarison et al., In-Context Freeze-Thaw Bayesian Optimization, ICML 2024, arXiv:2404.16795.
    """

    def __init__(self, num_parameters: int, seed: int) -> None:
        import torch
        from ifbo.priors.ftpfn_prior import DatasetPrior

        torch.set_num_threads(1)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.name, self._seed = f"prior-{num_parameters}d-{seed}", seed
        self.space = unit_space(num_parameters)
        self._prior = DatasetPrior(num_parameters, 23)
        self._prior.new_dataset()
        self._curves: dict[bytes, Array] = {}
        rng = np.random.default_rng(seed)
        some = [self._curve(rng.uniform(size=num_parameters)) for _ in range(600)]
        self.best = max(float(curve.max()) for curve in some)
        self.typical = float(np.median([curve[-1] for curve in some]))

    def curve(self, flat: dict[str, Any]) -> Array:
        """As in `Task`."""
        return self._curve(np.array([flat[f"x{i}"] for i in range(len(flat))]))

    def _curve(self, x: Array) -> Array:
        import torch

        known = self._curves.get(x.tobytes())
        if known is None:
            key = _key(x, self._seed)
            torch.manual_seed(key)
            np.random.seed(key)
            curve = self._prior.curves_for_configs(x[None, :])
            known = self._curves[x.tobytes()] = np.asarray(curve(np.arange(1, EPOCHS + 1) / EPOCHS, 0))
        return known


@dataclass
class HartmannTask:
    """The Hartmann function of six parameters; early epochs are biased and noisy, but rank much like the last.

    `mfh6` of mf-prior-bench 1.10 with its default bias and noise, whose epochs 1-100 are ours times 100/27. The
    function is written out here, since that package asks for numpy 1.

    References:
        Kandasamy et al., Multi-fidelity Bayesian Optimisation with Continuous Approximations, ICML 2017.
        Mallik et al., PriorBand, NeurIPS 2023, arXiv:2306.12370.
    """

    seed: int
    bias: float = 0.5
    noise: float = 0.1
    best: float = 3.32237
    space: Space = field(default_factory=lambda: unit_space(6))

    def __post_init__(self) -> None:
        self.name = f"mfh6-{self.seed}"
        rng = np.random.default_rng(0)
        self.typical = float(np.median([self._curve(x)[-1] for x in rng.uniform(size=(1000, 6))]))

    def curve(self, flat: dict[str, Any]) -> Array:
        """As in `Task`."""
        return self._curve(np.array([flat[f"x{i}"] for i in range(6)]))

    def _curve(self, x: Array) -> Array:
        fidelity = np.log(np.maximum(1.0, np.round(np.arange(1, EPOCHS + 1) * 100 / EPOCHS))) / math.log(100)
        alpha = np.array([1.0, 1.2, 3.0, 3.2]) - self.bias * (1.0 - fidelity)[:, None]
        value = (alpha * np.exp(-np.sum(_A * (x - _P) ** 2, axis=1))).sum(axis=1)
        rng = np.random.default_rng(_key(x, self.seed))
        return np.asarray(value - np.abs(rng.normal(size=EPOCHS)) * self.noise * (1.0 - fidelity))


_A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def prior_tasks(count: int) -> list[Task]:
    """Tasks of 2 to 10 parameters, in turn."""
    return [PriorTask(2 + index % 9, 1000 + index) for index in range(count)]


def hartmann_tasks(count: int) -> list[Task]:
    """One function, with other noise in each."""
    return [HartmannTask(seed) for seed in range(count)]


class TableTask:
    """Real training runs, recorded: every combination of a few settings, to the last epoch.

    Args:
        rows: A row an epoch: the settings, `epoch`, `iou`, `cpu_s`.
        settings: Names of the settings; one with numbers only is a range over its values' order, others are choices.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> None:
        self.name = "table"
        self._levels = {key: sorted({row[key] for row in rows}) for key in settings}
        nodes = []
        for key, levels in self._levels.items():
            is_range = len(levels) > 2 and not isinstance(levels[0], str)
            domain = (
                Range(0, len(levels) - 1, integer=True)
                if is_range
                else Choice(tuple(Option(index) for index in range(len(levels))))
            )
            nodes.append(Node(key, domain, key))
        self.space = Space(tuple(nodes))
        self._values: dict[tuple[int, ...], Array] = {}
        self._seconds: dict[tuple[int, ...], Array] = {}
        for row in rows:
            key = tuple(self._levels[name].index(row[name]) for name in settings)
            self._values.setdefault(key, np.zeros(EPOCHS))[row["epoch"] - 1] = row["iou"]
            self._seconds.setdefault(key, np.zeros(EPOCHS))[row["epoch"] - 1] = row["cpu_s"]
        bests = [float(values.max()) for values in self._values.values()]
        self.best, self.typical = max(bests), float(np.median(bests))
        self.good = float(np.quantile(bests, 0.95))
        """The value that 95% of the settings never reach."""

    def curve(self, flat: dict[str, Any]) -> Array:
        """As in `Task`."""
        return self._values[tuple(int(value) for value in flat.values())]

    def epoch_time(self, flat: dict[str, Any], epoch: int) -> float:
        """CPU seconds of an epoch with these settings, the median of them: the first one has its imports in it."""
        return float(np.median(self._seconds[tuple(int(value) for value in flat.values())]))
