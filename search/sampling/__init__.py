"""How the next configuration is chosen.

Imported by `search.tune`; knows Optuna's estimators, nothing of Ray.

Layer 2.
"""
