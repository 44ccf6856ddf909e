"""The config file: its typed tree, how it is read and overridden, and every problem of it at once.

Imported by everything above; knows nothing of Ray, Optuna or a run's folder. What it chooses by name (samplers,
schedulers, export targets) is declared above it, in the packages that build it: `choices` finds the declarations by the
package's name and imports none of them itself. They import the config's problems at most, never its tree, and no
library that takes long to load.

Layer 1.
"""
