"""The optimizers, one file each: its options, how it is built and its numpy twin, declared as `COMPONENT`.

The registry of optimizers imports these to build the config's section, so nothing here imports torch at import time.

Layer 4.
"""
