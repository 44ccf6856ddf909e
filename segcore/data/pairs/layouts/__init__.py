"""The layouts of images and masks on disk, one file each: how it is detected and paired, declared as `COMPONENT`.

The registry of layouts imports these to build the config's section, so nothing here imports numpy at import time.

Layer 1.
"""
