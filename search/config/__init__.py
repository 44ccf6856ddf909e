"""The config file: its typed tree, how it is read and overridden, and every problem of it at once.

Imported by everything above; knows nothing of Ray, Optuna or a run's folder.

Layer 1.
"""
