"""Architectures: encoders, decoders and how a `ModelConfig` becomes a model.

Imported by training, the sealed model, the gate and the checks before a search.

Layer 1.
"""
