"""Losses for binary and multilabel masks: one file per term in `terms`, and their weighted mix.

Imported by training, the gate and the memory estimate.

Layer 1.
"""
