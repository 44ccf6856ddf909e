"""How Optuna is asked for the next configuration."""

import warnings
from collections.abc import Callable

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from search.errors import ConfigError


def _tpe(seed: int, num_samples: int) -> BaseSampler:
    """Multivariate TPE in groups, which suits conditional spaces, with the constant liar for parallel trials.

    The random start is a quarter of the trials, 4 to 10: a search of a dozen trials must not spend ten of them blind.

    References:
        Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011.
        Falkner et al., BOHB, ICML 2018 (multivariate TPE).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            seed=seed,
            n_startup_trials=min(10, max(4, num_samples // 4)),
            multivariate=True,
            group=True,
            constant_liar=True,
        )


def _random(seed: int, num_samples: int) -> BaseSampler:
    return RandomSampler(seed=seed)


SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {"tpe": _tpe, "random": _random}


def build_sampler(name: str, *, seed: int, num_samples: int, num_existing: int) -> BaseSampler:
    """The sampler of that name.

    Args:
        name: Key of `SAMPLERS`.
        seed: The search's seed.
        num_samples: Trials of the whole search.
        num_existing: Trials that the study holds already; they are part of the seed, because the same seed on a
            continued study would suggest the same points again.

    Raises:
        ConfigError: No such sampler.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"search.sampler: unknown sampler {name!r}; valid: {', '.join(SAMPLERS)}")
    return SAMPLERS[name](seed + num_existing, num_samples)
