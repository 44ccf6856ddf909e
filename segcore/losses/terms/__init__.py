"""The terms of the loss mix, one file each: its options, the loss and its numpy twin, declared as `COMPONENT`.

The registry of losses imports these to build the config's section, so nothing here imports torch at import time.

Layer 1.
"""
