"""Losses for binary and multilabel masks: one file a term in `terms`, and their weighted mix.

Imported by training, the gate and the memory estimate.

Layer 1.
"""
