"""An even spread of points over the space."""

import numpy as np
from scipy.stats import qmc

from search.sampling.cube import Array, Cube


class Spread:
    """A scrambled Sobol sequence.

    Args:
        cube: What it fills.
        seed: Seed of the scrambling.

    References:
        Bergstra and Bengio, Random Search for Hyper-Parameter Optimization, JMLR 2012 (low-discrepancy starts).
    """

    def __init__(self, cube: Cube, seed: int) -> None:
        self._sequence = qmc.Sobol(max(1, cube.num_axes), rng=np.random.default_rng([seed, 0xB01]))

    def position(self, number: int) -> Array:
        """Place `number` of the sequence, in [0, 1)^d."""
        self._sequence.reset()
        if number:
            self._sequence.fast_forward(number)
        return np.asarray(self._sequence.random(1)[0])
