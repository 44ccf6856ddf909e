"""The ways in which images and masks lie on disk, one file each: how it is known and paired, declared as `COMPONENT`.

Found by the registry of layouts, from which the config's section is made; so nothing here imports numpy at start.

Layer 1.
"""
