"""The samplers: one file each, which says what it does, when it fits, and how it is built.

Nobody imports them by name: `search.config.choices` finds them, so that a new file here is a new sampler. A config is
checked before Optuna and SciPy are imported, so these files import them inside functions.
"""
