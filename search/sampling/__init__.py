"""How the next configuration is chosen.

`samplers/` holds a file for each sampler that a config can choose, found there by `search.config.choices`; the proposer
asks one of them. Imported by `search.tune`; knows Optuna's estimators, nothing of Ray.

Layer 2.
"""
