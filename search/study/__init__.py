"""The Optuna study of a run: recording trials in it, and what samplers and reports learn from it.

Imported by samplers, schedulers, the searcher and the report.

Layer 2.
"""
