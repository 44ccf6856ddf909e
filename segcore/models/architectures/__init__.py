"""The architectures, one file a family: how a model config becomes a model, declared as `COMPONENT` or `COMPONENTS`.

Found by the registry of architectures, from which the config's section is made; so nothing here imports torch at start.

Layer 1.
"""
