"""The architectures, one file per family: how a model config becomes a model, declared as `COMPONENT` or `COMPONENTS`.

The registry of architectures imports these to build the config's section, so nothing here imports torch at import time.

Layer 1.
"""
