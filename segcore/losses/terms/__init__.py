"""The terms of the loss mix, one file each: its options, the loss and its numpy twin, declared as `COMPONENT`.

Found by the registry of losses, from which the config's section is made; so nothing here imports torch at start.

Layer 1.
"""
