"""The optimizers, one file each: its options, how it is built and its numpy twin, declared as `COMPONENT`.

Found by the registry of optimizers, from which the config's section is made; so nothing here imports torch at start.

Layer 4.
"""
