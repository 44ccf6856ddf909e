"""A Gaussian process over settings and epochs, which proposes the point with the most to gain at the last epoch.

The value of settings x at epoch t, with s = log t / log T, is modelled as the sum of independent parts: a common
learning curve f(s), what the settings are worth at any epoch g(x), what they are worth at this epoch h(x, s), the luck
of the single training u, and noise. So a trial that was stopped early informs about the end as much as early epochs
have proved to. Trials that still run count with their expected value, so that others do not get the same point.

References:
    Swersky, Snoek and Adams, Freeze-Thaw Bayesian Optimization, 2014, arXiv:1406.3896 (curves under one process).
    Jones, Schonlau and Welch, Efficient Global Optimization, 1998 (expected improvement).
    Ginsbourger et al., Kriging is well-suited to parallelize optimization, 2010 (the kriging believer).
    Hvarfner et al., Vanilla Bayesian Optimization Performs Great in High Dimensions, ICML 2024 (lengthscale prior).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.stats import norm

from search.sampling.cube import Array, Cube
from search.sampling.past import Past, with_values

Gain = Callable[[Array], Array]
_SQRT5 = math.sqrt(5.0)
_JITTER = 1e-6
_MOST_FITTED = 250
_MOST_OBSERVATIONS = 700
_REFIT_GROWTH = 1.15
_NUM_CANDIDATES = 1024


@dataclass(frozen=True)
class _Data:
    """Observations: features `(N, F)`, s in [0, 1] `(N,)`, standardized values `(N,)`, trial numbers `(N,)`."""

    x: Array
    s: Array
    y: Array
    trial: Array

    def take(self, rows: Array) -> "_Data":
        return _Data(self.x[rows], self.s[rows], self.y[rows], self.trial[rows])


class CurveProcess:
    """Proposes points by a Gaussian process over settings and epochs.

    Args:
        cube: The space.
        rungs: Epochs at which trials are compared; these, and each trial's last, are what is learned from.
        max_epochs: The last epoch.
    """

    def __init__(self, cube: Cube, rungs: Sequence[int], max_epochs: int) -> None:
        self._cube = cube
        self._rungs = frozenset(rungs)
        self._max_epochs = max_epochs
        self._theta: Array | None = None
        self._num_at_fit = 0

    def propose(self, trials: Sequence[Past], rng: np.random.Generator, count: int) -> list[Array]:
        """The `count` most promising positions, best first.

        Args:
            trials: All trials so far.
            rng: Source of randomness.
            count: How many positions.
        """
        data = _thinned(self._observed(with_values(trials)), rng)
        if self._theta is None or len(data.y) >= _REFIT_GROWTH * self._num_at_fit or len(data.y) < self._num_at_fit:
            self._theta = _fit(data, self._theta, rng)
            self._num_at_fit = len(data.y)
        running = [trial for trial in trials if trial.running]
        process = _Posterior(data, self._theta)
        if running:
            process = process.believing(self._cube.features(np.array([trial.position for trial in running])))
        seen = np.unique(np.array([trial.position for trial in trials if trial.values]), axis=0)
        means = process.predict(self._cube.features(seen))[0]
        best = float(means.max())

        def gain(positions: Array) -> Array:
            mean, std = process.predict(self._cube.features(positions))
            return _log_expected_improvement((mean - best) / std) + np.log(std)

        return _climb(gain, seen[np.argsort(-means)[:5]], rng, self._cube.num_axes, count)

    def _observed(self, trials: Sequence[Past]) -> _Data:
        """Values at rungs and at each trial's last epoch; a failed trial counts as the worst value."""
        rows = [(trial, epoch) for trial in trials for epoch in trial.values if self._tells(trial, epoch)]
        y = np.array([trial.values[epoch] for trial, epoch in rows])
        high, middle = y.max(), float(np.median(y))
        floor = middle - 1.5 * (high - middle)  # very bad trials need no distinction
        failed = [trial for trial in trials if trial.failed]
        lowest = max(float(y.min()), floor)
        y = np.concatenate([np.maximum(y, floor), np.full(len(failed), lowest)])
        epochs = np.array([epoch for _, epoch in rows] + [self._max_epochs] * len(failed), dtype=float)
        every = [trial for trial, _ in rows] + failed
        return _Data(
            self._cube.features(np.array([trial.position for trial in every])),
            np.log(epochs) / math.log(max(self._max_epochs, 2)),
            (y - y.mean()) / (y.std() + 1e-9),
            np.array([trial.number for trial in every], dtype=float),
        )

    def _tells(self, trial: Past, epoch: int) -> bool:
        return not trial.failed and (epoch in self._rungs or epoch == trial.last)


def _thinned(data: _Data, rng: np.random.Generator) -> _Data:
    """The observations, limited in number: of the lowest rung only some, of the others the latest."""
    if len(data.y) <= _MOST_OBSERVATIONS:
        return data
    order = np.lexsort((rng.random(len(data.y)), data.s == data.s.min()))
    return data.take(np.sort(order[:_MOST_OBSERVATIONS]))


def _start(num_features: int) -> tuple[Array, Array, Array, list[tuple[float, float]]]:
    """Start, prior mean, prior deviation and bounds of the logarithms of all parameters.

    In order: a lengthscale per feature, those of f and h along s, and the variances of g, h, u, noise and f.
    """
    scale = math.log(math.sqrt(num_features) * 0.6)
    center = np.array([scale] * num_features + [math.log(v) for v in (0.5, 0.7, 0.6, 0.3, 0.02, 0.01, 1.0)])
    deviation = np.array([1.0] * num_features + [1.0, 0.5, 1.0, 1.0, 1.5, 1.5, 1.0])
    bounds = [(math.log(0.02), math.log(20.0))] * num_features
    bounds += [(math.log(0.1), math.log(5.0))] * 2 + [(math.log(1e-4), math.log(20.0))] * 5
    return center.copy(), center, deviation, bounds


def _fit(data: _Data, theta: Array | None, rng: np.random.Generator) -> Array:
    """The parameters with the highest posterior, by L-BFGS-B from the last ones."""
    if len(data.y) > _MOST_FITTED:
        data = data.take(np.sort(rng.choice(len(data.y), _MOST_FITTED, replace=False)))
    num_features = data.x.shape[1]
    start, center, deviation, bounds = _start(num_features)
    squares = (data.x[:, None, :] - data.x[None, :, :]) ** 2
    gap = (data.s[:, None] - data.s[None, :]) ** 2
    same = (data.trial[:, None] == data.trial[None, :]).astype(float)
    eye = np.eye(len(data.y))

    def loss(theta: Array) -> tuple[float, Array]:
        weights = np.exp(-2.0 * theta[:num_features])
        r = np.sqrt(squares @ weights)
        decay = np.exp(-_SQRT5 * r)
        kx = (1.0 + _SQRT5 * r + 5.0 / 3.0 * r * r) * decay
        length0, length2 = np.exp(2.0 * theta[num_features : num_features + 2])
        k0, k2 = np.exp(-0.5 * gap / length0), np.exp(-0.5 * gap / length2)
        vg, vh, vu, vn, vf = np.exp(theta[num_features + 2 :])
        parts = (vg * kx, vh * kx * k2, vu * same, vn * eye, vf * k0)
        try:
            factor = cho_factor(sum(parts) + _JITTER * eye, lower=True)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        alpha = cho_solve(factor, data.y)
        half = 0.5 * (cho_solve(factor, eye) - np.outer(alpha, alpha))
        slope = half * (vg + vh * k2) * (5.0 / 3.0) * (1.0 + _SQRT5 * r) * decay
        gradient = np.concatenate(
            [
                np.einsum("ij,ijk->k", slope, squares) * weights,
                [np.sum(half * parts[4] * gap) / length0, np.sum(half * parts[1] * gap) / length2],
                [np.sum(half * part) for part in parts],
            ]
        )
        off = (theta - center) / deviation
        value: float = 0.5 * data.y @ alpha + np.log(np.diag(factor[0])).sum() + 0.5 * off @ off
        return float(value), gradient + off / deviation

    first = start if theta is None or len(theta) != len(start) else theta
    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 25, "maxfun": 30})
    return np.asarray(found.x)


class _Posterior:
    """The process given its observations."""

    def __init__(self, data: _Data, theta: Array, factor: Array | None = None) -> None:
        self._data, self._theta = data, theta
        num_features = data.x.shape[1]
        self._lengths = np.exp(theta[:num_features])
        self._squares = np.exp(2.0 * theta[num_features : num_features + 2])
        self._variances = np.exp(theta[num_features + 2 :])
        if factor is None:
            _, _, vu, vn, _ = self._variances
            k = self._kernel(data.x, data.s, data.x, data.s) + vu * (data.trial[:, None] == data.trial[None, :])
            factor = np.linalg.cholesky(k + (vn + _JITTER) * np.eye(len(data.y)))
        self._factor = factor
        self._alpha = cho_solve((factor, True), data.y)

    def believing(self, x: Array) -> "_Posterior":
        """The process as if trials with these features `(M, F)` had reached the end with the expected value."""
        s = np.ones(len(x))
        cross = self._kernel(x, s, self._data.x, self._data.s)
        lower = solve_triangular(self._factor, cross.T, lower=True)
        own = self._kernel(x, s, x, s) + (self._variances[3] + _JITTER) * np.eye(len(x))
        corner = np.linalg.cholesky(own - lower.T @ lower + _JITTER * np.eye(len(x)))
        factor = np.block([[self._factor, np.zeros((len(self._data.y), len(x)))], [lower.T, corner]])
        data = _Data(
            np.concatenate([self._data.x, x]),
            np.concatenate([self._data.s, s]),
            np.concatenate([self._data.y, cross @ self._alpha]),
            np.concatenate([self._data.trial, np.full(len(x), np.nan)]),
        )
        return _Posterior(data, self._theta, factor)

    def predict(self, x: Array) -> tuple[Array, Array]:
        """Mean and standard deviation `(M,)` of settings `(M, F)` at the last epoch, luck and noise left out."""
        cross = self._kernel(x, np.ones(len(x)), self._data.x, self._data.s)
        lower = solve_triangular(self._factor, cross.T, lower=True)
        vg, vh, _, _, vf = self._variances
        return cross @ self._alpha, np.sqrt(np.maximum(vf + vg + vh - (lower * lower).sum(axis=0), 1e-10))

    def _kernel(self, x: Array, s: Array, other_x: Array, other_s: Array) -> Array:
        a, b = x / self._lengths, other_x / self._lengths
        squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2.0 * a @ b.T
        r = np.sqrt(np.maximum(squares, 0.0))
        kx = (1.0 + _SQRT5 * r + 5.0 / 3.0 * r * r) * np.exp(-_SQRT5 * r)
        gap = (s[:, None] - other_s[None, :]) ** 2
        vg, vh, _, _, vf = self._variances
        k0, k2 = np.exp(-0.5 * gap / self._squares[0]), np.exp(-0.5 * gap / self._squares[1])
        return np.asarray(vf * k0 + kx * (vg + vh * k2))


def _log_expected_improvement(z: Array) -> Array:
    """Log of E[max(0, z + N(0, 1))]; far below 0 by its asymptote, where the exact form cancels to nothing."""
    exact = norm.pdf(z) + z * norm.cdf(z)
    far = norm.logpdf(z) - 2.0 * np.log(np.abs(z) + 1e-12)
    return np.asarray(np.where(z > -20.0, np.log(np.maximum(exact, 1e-300)), far))


def _climb(gain: Gain, tops: Array, rng: np.random.Generator, num_axes: int, count: int) -> list[Array]:
    """Positions of the highest gain: random ones and some near the best so far, then ever closer around the leaders."""
    near = _NUM_CANDIDATES // 10
    found = [rng.uniform(size=(_NUM_CANDIDATES // 2, num_axes))]
    for top in tops:
        reach = rng.choice([0.02, 0.07, 0.2], size=(near, 1))
        moved = rng.uniform(size=(near, num_axes)) < max(0.5, 2.0 / num_axes)
        found.append(np.clip(top + rng.normal(size=(near, num_axes)) * reach * moved, 0.0, 1.0))
    positions = np.concatenate(found)
    gains = gain(positions)
    for step in (0.1, 0.05, 0.02, 0.01):
        leaders = positions[np.argsort(-gains)[:5]]
        steps = rng.normal(size=(len(leaders) * 30, num_axes)) * step
        closer = np.clip(np.repeat(leaders, 30, axis=0) + steps, 0.0, 1.0)
        positions, gains = np.concatenate([positions, closer]), np.concatenate([gains, gain(closer)])
    return list(positions[np.argsort(-gains)[:count]])
