"""A training's state on disk: what is saved, under which names, when, and how it is read back.

Imported by the loop, the trainable and whoever reads a run's checkpoints.

Layer 4.
"""
