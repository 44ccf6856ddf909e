"""The schedulers: one file each, which states its options, their limits, what suits it, and how it is built.

Nobody imports them by name: `search.config.choices` finds them, so that a new file here is a new scheduler. A config
is checked before Ray and Optuna are imported, so these files import neither.
"""
